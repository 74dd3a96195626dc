// What the gateways say, as docs/WIRE.md has it. Knows nothing of the page: it is fed messages, and read.
// Nothing that comes from the broker is trusted: it is text, of bounded length and number.

const MAX_BYTES = 256 * 1024;
const MAX_GATEWAYS = 200;
const MAX_POINTS = 2000;
const MAX_GAPS = 20;
const MAX_EARLY = 1000;
export const CHART = 120;

export class Model {
  constructor(filter) {
    this.levels = filter.split('/').length;
    this.gateways = new Map();
    // What came of gateways before they said who they are: the broker sends what is retained in an order of its own.
    this.early = [];
  }

  /** Takes a message; true where it changed something. `now` in milliseconds since 1970. */
  take(topic, bytes, retained, now) {
    if (bytes.length > MAX_BYTES) return false;
    const words = topic.split('/');
    const root = words.slice(0, this.levels).join('/');
    const rest = words.slice(this.levels);
    let gateway = this.gateways.get(root);
    if (!gateway) {
      // What only looks like a gateway's topic is none: one that is says who it is.
      if (rest.join('/') !== 'info') {
        if (retained && this.early.length < MAX_EARLY) this.early.push({ root, topic, bytes });
        return false;
      }
      if (this.gateways.size >= MAX_GATEWAYS) return false;
      gateway = { root, name: words[this.levels - 1], status: '', since: 0, info: null, health: null, problems: [], gaps: [],
        devices: new Map(), heard: 0 };
    }
    if (!this.#gateway(gateway, rest, bytes, retained, now)) return false;
    if (!this.gateways.has(root)) {
      this.gateways.set(root, gateway);
      const early = this.early.filter((message) => message.root === root);
      this.early = this.early.filter((message) => message.root !== root);
      for (const message of early) this.take(message.topic, message.bytes, true, now);
    }
    return true;
  }

  #gateway(gateway, rest, bytes, retained, now) {
    const [first, second, third] = rest;
    if (!retained) gateway.heard = now;
    switch (rest.length) {
      case 1:
        return this.#own(gateway, first, bytes, retained, now);
      case 2: {
        const device = gateway.devices.get(first);
        if (!device) return false;
        if (second === 'status') {
          device.status = text(bytes);
          return true;
        }
        if (second === 'problem') {
          device.problems = problems(bytes);
          return true;
        }
        const point = device.points.get(second);
        return point ? reading(point, bytes, now) : false;
      }
      case 3: {
        const point = gateway.devices.get(first)?.points.get(second);
        return point && third === 'outcome' ? outcome(point, bytes) : false;
      }
      default:
        return false;
    }
  }

  #own(gateway, word, bytes, retained, now) {
    switch (word) {
      case 'status': {
        const status = text(bytes);
        if (status === gateway.status) return false;
        gateway.status = status;
        // When a retained one was said, nobody knows.
        gateway.since = retained ? 0 : now;
        return true;
      }
      case 'info':
        return info(gateway, json(bytes));
      case 'health': {
        const health = json(bytes);
        if (!isObject(health)) return false;
        gateway.health = health;
        gateway.heard = Math.max(gateway.heard, Date.parse(health.ts) || 0);
        return true;
      }
      case 'problem':
        gateway.problems = problems(bytes);
        return true;
      case 'gap': {
        const gap = json(bytes);
        if (!isObject(gap) || gateway.gaps.some((known) => known.n === gap.n)) return false;
        gateway.gaps.push(gap);
        gateway.gaps.splice(0, gateway.gaps.length - MAX_GAPS);
        return true;
      }
      default:
        return false;
    }
  }
}

function info(gateway, said) {
  if (!isObject(said) || !isObject(said.devices)) return false;
  gateway.info = said;
  const before = gateway.devices;
  gateway.devices = new Map();
  let count = 0;
  for (const [name, device] of Object.entries(said.devices)) {
    if (!isObject(device) || !isObject(device.points)) continue;
    const old = before.get(name);
    const points = new Map();
    for (const [point, about] of Object.entries(device.points)) {
      if (!isObject(about) || (count += 1) > MAX_POINTS) continue;
      const known = old?.points.get(point) ?? { reading: null, chart: [], outcome: null, sent: null };
      points.set(point, { ...known, name: point, about });
    }
    gateway.devices.set(name, { name, kind: String(device.kind ?? ''), status: old?.status ?? '', problems: old?.problems ?? [], points });
  }
  return true;
}

function reading(point, bytes, now) {
  const said = fields(point, bytes, 'reading');
  if (!isObject(said)) return false;
  const at = Date.parse(said.ts) || now;
  if (typeof said.value === 'number' && !said.repeat) {
    // The backlog comes after newer ones.
    const place = point.chart.findLastIndex((other) => other.at <= at) + 1;
    point.chart.splice(place, 0, { at, value: said.value });
    if (point.chart.length > CHART) point.chart.shift();
  }
  if (!point.reading || at >= point.reading.at) {
    point.reading = { at, value: said.value, unit: said.unit, quality: String(said.quality ?? 'good'), cause: said.cause };
  }
  return true;
}

function outcome(point, bytes) {
  const said = fields(point, bytes, 'outcome');
  if (!isObject(said) || typeof said.outcome !== 'string') return false;
  point.outcome = { id: String(said.id), outcome: said.outcome, reason: said.reason, text: said.text };
  return true;
}

/** Of any form but CBOR, which needs more than a screenful. */
function fields(point, bytes, name) {
  const form = point.about.payload ?? 'json';
  if (form === 'cbor') return { value: '(CBOR)', quality: 'good' };
  if (form === 'value' && name === 'reading') {
    const bare = text(bytes);
    return { value: point.about.type !== 'text' && bare !== '' && Number.isFinite(Number(bare)) ? Number(bare) : bare };
  }
  return form === 'xml' ? xml(bytes, name) : json(bytes);
}

function xml(bytes, name) {
  const root = new DOMParser().parseFromString(text(bytes), 'application/xml').documentElement;
  if (root.nodeName !== name) return null;
  const said = Object.create(null);
  for (const child of root.children) said[child.nodeName] = child.textContent;
  const number = Number(said.value);
  if (said.value !== '' && Number.isFinite(number)) said.value = number;
  return said;
}

function problems(bytes) {
  const said = json(bytes);
  return Array.isArray(said) ? said.filter(isObject).slice(0, 20).map((problem) => String(problem.text ?? problem.code)) : [];
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function text(bytes) {
  return new TextDecoder().decode(bytes);
}

function json(bytes) {
  try {
    return JSON.parse(text(bytes));
  } catch {
    return null;
  }
}
