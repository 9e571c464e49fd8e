// Size, frames and fps of what a node works on, read from the graph it is connected to.

import { entryOf, originOf, targetsOf } from "./walk.js";

/**
 * @typedef {"width" | "height" | "frames" | "fps"} Field
 * @typedef {Record<Field, number | null>} Size
 * @typedef {{size: Size, sources: Partial<Record<Field, string>>, override: boolean}} Context
 */

/** Names of widgets that tell a field, in any pack; 0 means unset in all of them. */
const NAMES = {
  width: ["width", "custom_width", "image_width", "video_width"],
  height: ["height", "custom_height", "image_height", "video_height"],
  frames: ["length", "frames", "num_frames", "video_frames", "frame_count", "frame_load_cap"],
  fps: ["fps", "frame_rate", "force_rate"],
};
const FIELDS = /** @type {Field[]} */ (Object.keys(NAMES));
const LIMITS = { width: 16384, height: 16384, frames: 100000, fps: 240 };
/** Modes of a node that does not run: muted, bypassed. */
const IDLE = new Set([2, 4]);
/** A node that only makes these may have a width, but of no picture: SDXL's prompts, for one. */
const NO_PICTURES = new Set(["MODEL", "CLIP", "CONDITIONING", "SIGMAS"]);
const MOST_NODES = 400;
const MOST_HOPS = 16;

/**
 * What is nearest upstream counts; where nothing there tells, what is nearest in any direction.
 * @param {any} node
 * @param {any} root the outermost graph
 * @param {Partial<Size>} [override] set by hand; 0 and null are not set
 * @returns {Context}
 */
export function contextOf(node, root, override = {}) {
  /** @type {Size} */
  const size = { width: null, height: null, frames: null, fps: null };
  /** @type {Partial<Record<Field, string>>} */
  const sources = {};
  for (const neighbours of [upstream, around]) {
    for (const each of nearestFirst(node, root, neighbours)) {
      if (each !== node) readNode(each, root, size, sources);
      if (FIELDS.every((field) => size[field] !== null)) break;
    }
  }
  const set = FIELDS.filter((field) => override[field]);
  for (const field of set) size[field] = override[field] ?? null;
  return { size, sources, override: set.length > 0 };
}

/**
 * Width and height belong together: of two nodes one each would be a size that nobody set.
 * @param {any} node
 * @param {any} root
 * @param {Size} size
 * @param {Partial<Record<Field, string>>} sources
 */
function readNode(node, root, size, sources) {
  if (IDLE.has(node.mode)) return;
  const told = FIELDS.filter((field) => field === "fps" || makesPictures(node));
  const found = Object.fromEntries(told.map((field) => [field, fieldOf(node, field, root)]));
  const [width, height] = found.width && found.height ? [found.width, found.height] : picture(node);
  const title = node.title ?? node.type;
  if (size.width === null && width && height) {
    [size.width, size.height] = [width, height];
    sources.width = sources.height = title;
  }
  for (const field of /** @type {Field[]} */ (["frames", "fps"])) {
    if (size[field] !== null || !found[field]) continue;
    size[field] = found[field];
    sources[field] = title;
  }
}

/** @param {any} node */
function makesPictures(node) {
  const outputs = node.outputs ?? [];
  return outputs.length === 0 || outputs.some((/** @type {any} */ { type }) => !NO_PICTURES.has(type));
}

/**
 * @param {any} node
 * @param {Field} field
 * @param {any} root
 * @returns {number | null}
 */
function fieldOf(node, field, root) {
  for (const name of NAMES[field]) {
    const value = widgetValue(node, name, root);
    if (usable(value, field)) return field === "fps" ? value : Math.round(value);
  }
  return null;
}

/**
 * A widget's value, or, where it is fed by a link, that of the primitive at its other end.
 * @param {any} node
 * @param {string} name
 * @param {any} root
 * @param {number} [hops]
 * @returns {any}
 */
function widgetValue(node, name, root, hops = MOST_HOPS) {
  const slot = (node.inputs ?? []).findIndex(
    (/** @type {any} */ input) => (input.widget?.name ?? input.name) === name,
  );
  if (slot >= 0 && isLinked(node.inputs[slot])) return valueThrough(node, slot, root, hops);
  return node.widgets?.find((/** @type {any} */ widget) => widget.name === name)?.value;
}

/** @param {any} input */
function isLinked({ link }) {
  return link !== null && link !== undefined;
}

/**
 * Follow a link to a node with a single number: primitives, constants, through reroutes; or to
 * the widget that a subgraph shows for it.
 * @param {any} node
 * @param {number} slot
 * @param {any} root
 * @param {number} hops
 * @returns {any}
 */
function valueThrough(node, slot, root, hops) {
  if (hops === 0) return null;
  const from = originOf(node, slot, root);
  if (!from) return entryOf(node, slot, root)?.value;
  const { inputs = [], outputs = [], widgets = [] } = from.node;
  const numbers = widgets.filter(
    (/** @type {any} */ { value, name }) => typeof value === "number" && !/seed|control/.test(name),
  );
  const title = outputs[from.slot]?.name?.toLowerCase();
  const named = numbers.find((/** @type {any} */ { name }) => name === title);
  if (named) return widgetValue(from.node, named.name, root, hops - 1);
  if (!inputs.some(isLinked)) return numbers[0]?.value;
  // A reroute, or something like it; what others make of their inputs is not in their widgets.
  const through = inputs.length === 1 && outputs.length === 1;
  return through ? valueThrough(from.node, 0, root, hops - 1) : null;
}

/**
 * The picture that a loader shows.
 * @param {any} node
 * @returns {[number, number] | []}
 */
function picture(node) {
  const shown = node.imgs?.[0];
  const [width, height] = [shown?.naturalWidth, shown?.naturalHeight];
  return usable(width, "width") && usable(height, "height") ? [width, height] : [];
}

/**
 * @param {any} value
 * @param {Field} field
 */
function usable(value, field) {
  return typeof value === "number" && value > 0 && value <= LIMITS[field];
}

/**
 * @param {any} start
 * @param {any} root
 * @param {(node: any, root: any) => any[]} neighbours
 */
function* nearestFirst(start, root, neighbours) {
  const seen = new Set([start]);
  const waiting = [start];
  while (waiting.length > 0 && seen.size < MOST_NODES) {
    const node = waiting.shift();
    yield node;
    for (const next of neighbours(node, root)) {
      if (seen.has(next)) continue;
      seen.add(next);
      waiting.push(next);
    }
  }
}

/**
 * @param {any} node
 * @param {any} root
 */
function upstream(node, root) {
  const inputs = node.inputs ?? [];
  return inputs.flatMap((/** @type {any} */ _input, /** @type {number} */ slot) => {
    const from = originOf(node, slot, root);
    return from ? [from.node] : [];
  });
}

/**
 * @param {any} node
 * @param {any} root
 */
function around(node, root) {
  const outputs = node.outputs ?? [];
  const down = outputs.flatMap((/** @type {any} */ _output, /** @type {number} */ slot) =>
    targetsOf(node, slot, root).map((target) => target.node),
  );
  return [...upstream(node, root), ...down];
}
