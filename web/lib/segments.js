// Who holds a device's memory, as parts that stack up to its total.

import { isKnown } from "./format.js";

/**
 * @typedef {object} Reading figures of one device at one moment; bytes, null where unknown
 * @property {number | null} total_bytes
 * @property {number | null} used_bytes
 * @property {number | null} free_bytes
 * @property {number | null} process_bytes
 * @property {number | null} torch_allocated_bytes
 * @property {number | null} torch_reserved_bytes
 * @property {number | null} outside_torch_bytes
 * @property {number | null} external_bytes
 */

/**
 * @typedef {"torch" | "outside" | "process" | "external" | "unattributed" | "free"} SegmentId
 * @typedef {{id: SegmentId, bytes: number}} Segment
 */

/** Order is the order of stacking, from the bottom up. @type {Record<SegmentId, string>} */
export const SEGMENT_LABELS = {
  torch: "This process, torch",
  outside: "Outside torch",
  process: "This process",
  external: "Other processes",
  unattributed: "Used, owner unknown",
  free: "Free",
};

/**
 * The known parts of one reading, bottom up. What is unknown is left out rather than shown
 * as 0; memory in use that nobody claims becomes `unattributed`. The parts never exceed the
 * total, however the figures were rounded or torn between two instruments.
 * @param {Reading} reading
 * @returns {Segment[]}
 */
export function segments(reading) {
  const total = reading.total_bytes;
  const used = usedBytes(reading);
  const own = ownParts(reading);
  const parts = isKnown(reading.external_bytes)
    ? [...own, part("external", reading.external_bytes)]
    : own;
  if (isKnown(used) && !isKnown(reading.external_bytes)) {
    const claimed = sum(parts);
    if (used > claimed) parts.push(part("unattributed", used - claimed));
  }
  if (!isKnown(total)) return parts;
  const fitted = clampTo(parts, total);
  if (isKnown(used) || isKnown(reading.free_bytes)) {
    fitted.push(part("free", total - sum(fitted)));
  }
  return fitted;
}

/**
 * @param {Reading} reading
 * @returns {number | null}
 */
export function usedBytes(reading) {
  if (isKnown(reading.used_bytes)) return reading.used_bytes;
  if (isKnown(reading.total_bytes) && isKnown(reading.free_bytes)) {
    return reading.total_bytes - reading.free_bytes;
  }
  return null;
}

/**
 * @param {Reading} reading
 * @returns {Segment[]}
 */
function ownParts(reading) {
  const torch = reading.torch_reserved_bytes ?? reading.torch_allocated_bytes;
  if (!isKnown(torch) && !isKnown(reading.outside_torch_bytes)) {
    return isKnown(reading.process_bytes) ? [part("process", reading.process_bytes)] : [];
  }
  const parts = [];
  if (isKnown(torch)) parts.push(part("torch", torch));
  if (isKnown(reading.outside_torch_bytes)) {
    parts.push(part("outside", reading.outside_torch_bytes));
  }
  return parts;
}

/**
 * @param {SegmentId} id
 * @param {number} bytes
 * @returns {Segment}
 */
function part(id, bytes) {
  return { id, bytes: Math.max(0, bytes) };
}

/** @param {Segment[]} parts */
function sum(parts) {
  return parts.reduce((bytes, segment) => bytes + segment.bytes, 0);
}

/**
 * @param {Segment[]} parts
 * @param {number} total
 * @returns {Segment[]}
 */
function clampTo(parts, total) {
  let room = total;
  return parts.map(({ id, bytes }) => {
    const fitted = Math.min(bytes, room);
    room -= fitted;
    return { id, bytes: fitted };
  });
}
