// What the gateways say, as docs/WIRE.md has it. Knows nothing of the page: it is fed messages, and read.
// Nothing that comes from the broker is trusted: it is text, of bounded length and number.

const MAX_BYTES = 256 * 1024;
const MAX_GATEWAYS = 200;
const MAX_POINTS = 2000;
const MAX_GAPS = 20;
const MAX_TEXT = 1000;
// Bytes of what came before `info`.
const MAX_EARLY = 8 * 1024 * 1024;
export const CHART = 120;

export class Model {
  constructor(filter) {
    this.levels = filter.split('/').length;
    this.gateways = new Map();
    // What came of gateways before they said who they are, the newest by topic: the broker sends what is retained in an
    // order of its own.
    this.early = new Map();
    this.earlyBytes = 0;
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
        if (retained) this.#keep(root, topic, bytes);
        return false;
      }
      if (this.gateways.size >= MAX_GATEWAYS) return false;
      gateway = { root, name: words[this.levels - 1], status: '', since: 0, info: null, health: null, problems: [], gaps: [],
        devices: new Map(), heard: 0 };
    }
    if (!this.#gateway(gateway, rest, bytes, retained, now)) return false;
    if (!this.gateways.has(root)) {
      this.gateways.set(root, gateway);
      for (const [known, message] of this.early) {
        if (message.root !== root) continue;
        this.early.delete(known);
        this.earlyBytes -= message.bytes.length;
        this.take(known, message.bytes, true, now);
      }
    }
    return true;
  }

  #keep(root, topic, bytes) {
    this.earlyBytes += bytes.length - (this.early.get(topic)?.bytes.length ?? 0);
    this.early.delete(topic);
    this.early.set(topic, { root, bytes });
    // The oldest make room.
    for (const [known, message] of this.early) {
      if (this.earlyBytes <= MAX_EARLY) break;
      this.early.delete(known);
      this.earlyBytes -= message.bytes.length;
    }
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
          device.status = bounded(text(bytes));
          return true;
        }
        if (second === 'problem') {
          device.problems = problems(bytes);
          return true;
        }
        const point = device.points.get(second);
        return point ? reading(point, bytes, retained, now) : false;
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
        const status = bounded(text(bytes));
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
        const lanes = isObject(health.lanes) ? Object.values(health.lanes).slice(0, 8) : [];
        gateway.health = { ts: bounded(health.ts), lanes: lanes.map((lane) => ({ depth: Number(lane?.depth) || 0 })) };
        gateway.heard = Math.max(gateway.heard, Date.parse(health.ts) || 0);
        return true;
      }
      case 'problem':
        gateway.problems = problems(bytes);
        return true;
      case 'gap': {
        const gap = json(bytes);
        if (!isObject(gap) || gateway.gaps.some((known) => known.n === gap.n)) return false;
        gateway.gaps.push({ n: bounded(gap.n), count: Number(gap.count) || 0 });
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
  gateway.info = { version: bounded(said.version), session: bounded(said.session) };
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

function reading(point, bytes, retained, now) {
  const said = fields(point, bytes, 'reading');
  if (!isObject(said)) return false;
  // What the broker had kept, or what waited, without a date may be of any age.
  const dated = Date.parse(said.ts);
  const at = Number.isFinite(dated) || retained || said.repeat || said.late ? dated : now;
  if (typeof said.value === 'number' && !said.repeat && Number.isFinite(at)) {
    // The backlog comes after newer ones.
    const place = point.chart.findLastIndex((other) => other.at <= at) + 1;
    point.chart.splice(place, 0, { at, value: said.value });
    if (point.chart.length > CHART) point.chart.shift();
  }
  // Live ones come in their order, whatever the clock does meanwhile; the backlog is older than they are.
  if (!point.reading || !said.late) {
    point.reading = { at, value: bounded(said.value), unit: bounded(said.unit), quality: bounded(said.quality ?? 'good') };
  }
  return true;
}

function outcome(point, bytes) {
  const said = fields(point, bytes, 'outcome');
  if (!isObject(said) || typeof said.outcome !== 'string') return false;
  point.outcome = { id: bounded(said.id), outcome: bounded(said.outcome), reason: bounded(said.reason), text: bounded(said.text) };
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
  if (form === 'bytes' && name === 'reading') {
    return { value: Array.from(bytes.slice(0, MAX_TEXT), (byte) => byte.toString(16).padStart(2, '0')).join(' ') };
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
  return Array.isArray(said) ? said.filter(isObject).slice(0, 20).map((problem) => String(bounded(problem.text ?? problem.code))) : [];
}

/** What is shown of anything but numbers and switches is a text, and short. */
function bounded(value) {
  if (value === undefined || value === null || typeof value === 'number' || typeof value === 'boolean') return value;
  return (typeof value === 'string' ? value : JSON.stringify(value)).slice(0, MAX_TEXT);
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
