// What the panel knows, kept small: it may be open for days.

/**
 * @typedef {{time_s: number, device: string, name: string, bytes: number}} Marker a node's peak
 * @typedef {object} Model
 * @property {Map<string, {info: any, reading: any}>} devices
 * @property {{job_id: string, started_s: number, node_id: string | null,
 *   node_type: string | null} | null} job
 * @property {any[]} jobs finished ones, newest first
 * @property {any | null} decode the one that runs, or the last one that ran
 * @property {any | null} process reserve and warnings
 * @property {Marker[]} markers oldest first
 */

export const MOST_JOBS = 12;
export const MOST_MARKERS = 64;
export const MOST_RECTANGLES = 8192;

/** @returns {Model} */
export function createModel() {
  return {
    devices: new Map(),
    job: null,
    jobs: [],
    decode: null,
    process: null,
    markers: [],
  };
}

/**
 * @param {Model} model
 * @param {any} report the probe's answer
 */
export function applySnapshot(model, report) {
  const devices = Object.entries(report.telemetry ?? {});
  model.devices = new Map(devices.map(([key, { info, reading }]) => [key, { info, reading }]));
  model.jobs = [];
  for (const record of [...(report.jobs?.recent ?? [])].reverse()) remember(model, record);
  const current = report.jobs?.current;
  const node = current?.nodes.findLast((/** @type {any} */ each) => each.ended_s === null);
  model.job = current
    ? {
        job_id: current.job_id,
        started_s: current.started_s,
        node_id: node?.node_id ?? null,
        node_type: node?.node_type ?? null,
      }
    : null;
  if (report.decode) model.decode = { ...report.decode, finished: [...report.decode.finished] };
  else if (model.decode?.outcome === "running") model.decode = null;
  model.process = report.state ?? null;
}

/**
 * @param {Model} model
 * @param {any} sample
 */
export function applySample(model, sample) {
  const device = model.devices.get(sample.device);
  if (device) device.reading = sample.reading;
}

/**
 * @param {Model} model
 * @param {any} change
 */
export function applyJob(model, change) {
  if (change.phase === "end") {
    model.job = null;
    if (change.record) remember(model, change.record);
    return;
  }
  const started_s = change.phase === "start" ? change.time_s : model.job?.started_s;
  model.job = {
    job_id: change.job_id,
    started_s: started_s ?? change.time_s,
    node_id: change.node_id,
    node_type: change.node_type,
  };
}

/**
 * @param {Model} model
 * @param {any} progress
 */
export function applyDecode(model, progress) {
  const same = model.decode?.number === progress.number;
  const before = same ? model.decode.finished : [];
  const room = Math.max(0, MOST_RECTANGLES - before.length);
  before.push(...progress.finished.slice(0, room));
  model.decode = { ...progress, finished: before };
}

/**
 * @param {Model} model
 * @param {any} record a finished job
 */
function remember(model, record) {
  if (record.status === "running") return;
  const others = model.jobs.filter(({ job_id }) => job_id !== record.job_id);
  model.jobs = [record, ...others].slice(0, MOST_JOBS);
  for (const node of record.nodes) mark(model, node);
}

/**
 * @param {Model} model
 * @param {any} node
 */
function mark(model, node) {
  if (node.ended_s === null) return;
  for (const { device, used_bytes } of node.peaks) {
    if (used_bytes === null) continue;
    const name = node.node_type ?? node.node_id;
    const known = model.markers.some(
      (each) => each.time_s === node.ended_s && each.device === device && each.name === name,
    );
    if (!known) model.markers.push({ time_s: node.ended_s, device, name, bytes: used_bytes });
  }
  model.markers.sort((one, other) => one.time_s - other.time_s);
  model.markers.splice(0, model.markers.length - MOST_MARKERS);
}

/**
 * The level a running decode is expected to reach on its device; null where none runs there.
 * @param {Model} model
 * @param {string} device
 * @returns {number | null}
 */
export function predictedLevel(model, device) {
  const { decode } = model;
  if (decode?.outcome !== "running" || decode.device !== device) return null;
  const { held_bytes, predicted_bytes } = decode;
  return held_bytes === null || predicted_bytes === null ? null : held_bytes + predicted_bytes;
}

/**
 * The level above which memory is kept free for others; null on devices that have none.
 * @param {Model} model
 * @param {string} device
 * @returns {number | null}
 */
export function reserveLevel(model, device) {
  const main = [...model.devices.keys()].find((key) => key !== "cpu");
  const total = model.devices.get(device)?.reading?.total_bytes;
  const reserve = model.process?.reserve_bytes;
  if (device !== main || !total || !reserve) return null;
  return Math.max(0, total - reserve);
}

/**
 * Of a job's decodes, the one that needed most, with what was expected.
 * @param {any} record
 * @returns {{predicted: number | null, measured: number | null} | null}
 */
export function largestDecode(record) {
  const decodes = record.decodes ?? [];
  if (decodes.length === 0) return null;
  const need = (/** @type {any} */ each) => each.measured_bytes ?? each.predicted_bytes ?? 0;
  const largest = decodes.reduce((/** @type {any} */ one, /** @type {any} */ other) =>
    need(other) > need(one) ? other : one,
  );
  return { predicted: largest.predicted_bytes, measured: largest.measured_bytes };
}

/**
 * The most a job used on a card, by whoever, or of the system's memory where there is no card;
 * null where not known.
 * @param {any} record
 * @returns {number | null}
 */
export function jobPeak(record) {
  const cards = record.peaks.filter((/** @type {any} */ { device }) => device !== "cpu");
  const known = (cards.length ? cards : record.peaks)
    .map((/** @type {any} */ { used_bytes }) => used_bytes)
    .filter((/** @type {number | null} */ bytes) => bytes !== null);
  return known.length ? Math.max(...known) : null;
}
