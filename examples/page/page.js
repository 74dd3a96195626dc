// Shows what model.js knows, and sends commands. What gateways say gets into the page as text only, never as HTML.
import { Model, CHART } from './model.js';

const $ = (id) => document.getElementById(id);
const SHOWN = 200;
const PATIENCE = 15_000;
let client = null;
let model = new Model('sluicegate/+');
let drawn = false;
const cards = new Map();

// --- the broker ------------------------------------------------------------------------------------------------------

function connect() {
  client?.end(true);
  model = new Model($('topics').value);
  cards.clear();
  $('gateways').replaceChildren($('none') ?? make('p', 'none', ''));
  say('wait', 'connecting…');
  const options = { username: $('user').value || undefined, password: $('password').value || undefined,
    reconnectPeriod: 2000, timerVariant: 'native', connectTimeout: 15_000, keepalive: 15, protocolVersion: 4, clean: true };
  try {
    client = mqtt.connect($('url').value, options);
  } catch (error) {
    return say('offline', error.message);
  }
  let why = '';
  client.on('connect', () => {
    why = '';
    say('online', 'connected');
    client.subscribe(`${$('topics').value}/#`, { qos: 1 });
  });
  client.on('close', () => say('offline', `${why || 'connection lost'}; trying again…`));
  client.on('error', (error) => {
    why = error.message;
    say('offline', why);
  });
  client.on('message', (topic, bytes, packet) => {
    if (model.take(topic, bytes, packet.retain, Date.now())) later();
  });
}

function say(state, words) {
  $('link').dataset.state = state;
  $('link').textContent = words;
  later();
}

function send(gateway, device, point, value) {
  const id = `page-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
  point.sent = { id, value, at: Date.now() };
  point.outcome = null;
  client.publish(`${gateway.root}/${device.name}/${point.name}/set`, JSON.stringify({ value, id, ttl: '10s' }), { qos: 1 });
  later();
}

// --- the page --------------------------------------------------------------------------------------------------------

function later() {
  if (drawn) return;
  drawn = true;
  requestAnimationFrame(() => {
    drawn = false;
    draw();
  });
}

function make(tag, name, text, attributes = {}) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** What was made before for this key below this parent, or is made now. */
function kept(parent, key, create) {
  parent.parts ??= new Map();
  let part = parent.parts.get(key);
  if (!part) {
    part = create();
    parent.parts.set(key, part);
    parent.append(part);
  }
  return part;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function drop(parent, names) {
  for (const [key, part] of parent.parts ?? []) {
    if (key.startsWith('of ') && !names.has(key)) {
      part.remove();
      parent.parts.delete(key);
    }
  }
}

function draw() {
  const linked = $('link').dataset.state === 'online';
  $('gateways').classList.toggle('gone', !linked);
  if (model.gateways.size > 0) document.getElementById('none')?.remove();
  for (const gateway of [...model.gateways.values()].sort((a, b) => a.root.localeCompare(b.root))) {
    let card = cards.get(gateway.root);
    if (!card) {
      card = make('section', 'gateway', '', { 'aria-label': `Gateway ${gateway.name}` });
      cards.set(gateway.root, card);
      $('gateways').append(card);
    }
    drawGateway(card, gateway, linked);
  }
}

function drawGateway(card, gateway, linked) {
  const online = gateway.status === 'online';
  const head = kept(card, 'head', () => make('h2', '', ''));
  put(kept(head, 'name', () => make('span', '', '')), gateway.name);
  drawState(head, gateway.status || 'unknown');
  const since = gateway.since ? `since ${ago(gateway.since)}` : gateway.heard && !online ? `last heard ${ago(gateway.heard)} ago` : '';
  put(kept(head, 'since', () => make('span', 'faint', '')), since);
  const lanes = Object.values(gateway.health?.lanes ?? {});
  const waits = lanes.reduce((sum, lane) => sum + (Number(lane?.depth) || 0), 0);
  const lost = gateway.gaps.reduce((sum, gap) => sum + (Number(gap.count) || 0), 0);
  const about = [`version ${short(gateway.info?.version)}`, `start ${short(gateway.info?.session)}`,
    gateway.health ? `${waits} waiting, health ${age(Date.parse(gateway.health.ts))}` : 'no health yet'];
  if (gateway.gaps.length > 0) about.push(`${gateway.gaps.length} gaps seen, ${lost} readings lost`);
  put(kept(card, 'about', () => make('p', 'faint about', '')), about.join(' · '));
  drawProblems(card, gateway.problems);
  const grid = kept(card, 'devices', () => make('div', 'devices', ''));
  drop(grid, new Set([...gateway.devices.keys()].map((name) => `of ${name}`)));
  for (const device of gateway.devices.values()) {
    const part = kept(grid, `of ${device.name}`, () => make('section', 'device', '', { 'aria-label': `Device ${device.name}` }));
    drawDevice(part, gateway, device, online && linked);
  }
}

function drawState(parent, state) {
  const shown = kept(parent, 'state', () => make('span', 'state', ''));
  shown.dataset.state = state;
  put(shown, short(state));
}

function drawProblems(parent, problems) {
  const list = kept(parent, 'problems', () => make('ul', 'problems', ''));
  list.hidden = problems.length === 0;
  const said = problems.join('\n');
  if (list.said !== said) {
    list.said = said;
    list.replaceChildren(...problems.map((text) => make('li', '', short(text))));
  }
}

function drawDevice(part, gateway, device, online) {
  const head = kept(part, 'head', () => make('h3', '', ''));
  put(kept(head, 'name', () => make('span', '', '')), device.name);
  put(kept(head, 'kind', () => make('span', 'faint', '')), short(device.kind));
  // A device is online only while its gateway is.
  drawState(head, online ? device.status || 'unknown' : 'offline');
  drawProblems(part, device.problems);
  drop(part, new Set([...device.points.keys()].map((name) => `of ${name}`)));
  for (const point of device.points.values()) {
    const line = kept(part, `of ${point.name}`, () => make('div', 'point', ''));
    drawPoint(line, gateway, device, point, online && device.status === 'online');
  }
}

function drawPoint(line, gateway, device, point, online) {
  const { reading, about } = point;
  const row = kept(line, 'row', () => make('div', 'row', ''));
  put(kept(row, 'name', () => make('span', '', '')), point.name);
  const value = kept(row, 'value', () => make('span', 'value', ''));
  put(value, reading ? spoken(reading.value) : '–');
  put(kept(row, 'unit', () => make('span', 'faint', '')), short(reading?.unit ?? about.unit ?? ''));
  const quality = kept(row, 'quality', () => make('span', 'faint', ''));
  quality.dataset.quality = reading?.quality ?? '';
  put(quality, reading && reading.quality !== 'good' ? short(reading.quality) : '');
  put(kept(row, 'age', () => make('span', 'faint age', '')), reading ? age(reading.at) : 'nothing yet');
  line.classList.toggle('gone', !online);
  if (point.chart.length > 1) drawChart(line, point);
  if (about.writable === true && !['cbor', 'bytes'].includes(about.payload)) drawCommand(line, gateway, device, point, online);
}

function drawChart(line, point) {
  const SVG = 'http://www.w3.org/2000/svg';
  const chart = kept(line, 'chart', () => {
    const chart = document.createElementNS(SVG, 'svg');
    chart.setAttribute('class', 'chart');
    chart.setAttribute('viewBox', `0 0 ${CHART} 30`);
    chart.setAttribute('preserveAspectRatio', 'none');
    chart.setAttribute('role', 'img');
    chart.append(document.createElementNS(SVG, 'polyline'));
    return chart;
  });
  const values = point.chart.map((reading) => reading.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [from, to] = [point.chart[0].at, point.chart.at(-1).at];
  const place = ({ at, value }) =>
    `${(((at - from) / (to - from || 1)) * CHART).toFixed(1)},${(28 - ((value - low) / (high - low || 1)) * 26).toFixed(1)}`;
  chart.firstChild.setAttribute('points', point.chart.map(place).join(' '));
  chart.setAttribute('aria-label', `${point.name}: ${spoken(low)} to ${spoken(high)} in ${span(to - from)}`);
}

function drawCommand(line, gateway, device, point, online) {
  const { about } = point;
  const wanted = about.type === 'bool' ? 'switch' : about.type === 'text' ? 'text' : 'number';
  const command = kept(line, `command ${wanted}`, () => {
    const form = make('form', 'command', '');
    const label = `${device.name} ${point.name}`;
    if (wanted === 'switch') {
      form.input = make('button', '', '', { role: 'switch', 'aria-label': label });
    } else {
      const slider = wanted === 'number' && Number.isFinite(about.min) && Number.isFinite(about.max);
      form.input = make('input', '', '', { type: slider ? 'range' : wanted, 'aria-label': label, required: '' });
      // What a person has begun to say is not overwritten.
      form.input.addEventListener('input', () => (form.typed = true));
      if (wanted === 'number') form.input.step = about.type === 'int' ? '1' : 'any';
      if (slider) {
        form.input.min = about.min;
        form.input.max = about.max;
        if (about.type !== 'int') form.input.step = (about.max - about.min) / 200;
        form.shown = make('output', 'faint', '');
        form.input.addEventListener('input', () => put(form.shown, form.input.value));
      }
    }
    const button = wanted === 'switch' ? form.input : make('button', '', 'Set', { 'aria-label': `set ${label}` });
    form.button = button;
    form.append(form.input);
    if (form.shown) form.append(form.shown);
    if (button !== form.input) form.append(button);
    form.outcome = make('span', 'outcome faint', '', { role: 'status' });
    form.append(form.outcome);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      form.act();
    });
    return form;
  });
  command.act = () => {
    const typed = command.input.value;
    const value = wanted === 'switch' ? command.input.getAttribute('aria-checked') !== 'true' : wanted === 'number' ? Number(typed) : typed;
    command.typed = false;
    send(gateway, device, point, value);
  };
  command.button.disabled = !online;
  if (wanted === 'switch') {
    const is = { true: 'on', false: 'off' }[String(point.reading?.value)];
    // From a state that nobody knows nothing is toggled.
    command.button.disabled ||= !is;
    command.input.setAttribute('aria-checked', String(is === 'on'));
    put(command.input, is ?? '?');
  } else if (document.activeElement !== command.input && typeof point.reading?.value === 'number' && !command.typed) {
    command.input.value = String(point.reading.value);
    if (command.shown) put(command.shown, spoken(point.reading.value));
  }
  drawOutcome(command.outcome, point);
}

function drawOutcome(shown, { sent, outcome }) {
  let [state, words] = ['', ''];
  if (sent && outcome?.id === sent.id) {
    sent.took ??= Date.now() - sent.at;
    state = outcome.outcome;
    words = `${outcome.outcome}${outcome.reason ? `: ${outcome.reason}` : ''}${outcome.text ? ` (${outcome.text})` : ''} after ${sent.took} ms`;
  } else if (sent) {
    const late = Date.now() - sent.at > PATIENCE;
    [state, words] = late ? ['unknown', 'no outcome: look at the value'] : ['wait', 'sent…'];
  }
  shown.dataset.state = short(state);
  put(shown, short(words));
}

// --- words -----------------------------------------------------------------------------------------------------------

function short(text) {
  const words = String(text ?? '');
  return words.length > SHOWN ? `${words.slice(0, SHOWN)}…` : words;
}

function spoken(value) {
  if (value === null || value === undefined) return 'no value';
  if (value === true) return 'on';
  if (value === false) return 'off';
  if (typeof value === 'number') return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(6)));
  return short(typeof value === 'string' ? value : JSON.stringify(value));
}

function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

function ago(at) {
  return span(Date.now() - at);
}

function age(at) {
  if (!Number.isFinite(at)) return 'undated';
  return `${ago(at)} ago`;
}

$('broker').addEventListener('submit', (event) => {
  event.preventDefault();
  connect();
});
setInterval(later, 1000);
// index.html#ws://127.0.0.1:1883/mqtt connects at once.
const wanted = decodeURIComponent(location.hash.slice(1));
if (/^wss?:\/\//.test(wanted)) {
  $('url').value = wanted;
  connect();
}
