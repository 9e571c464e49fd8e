// Core's decode nodes become safe ones, and back, in one step that can be undone.

import { linkOf } from "./walk.js";

export const SAFE = "IAMCCS_VAEDecodeTiledSafe";
export const CORE = "VAEDecode";
export const CORE_TILED = "VAEDecodeTiled";
const SIZES = ["tile_size", "overlap", "temporal_size", "temporal_overlap"];
const LOOKS = ["title", "color", "bgcolor", "mode", "flags"];

/**
 * What a node becomes, and the widget values it gets; null where it is none of these.
 * @param {string} type
 * @param {Record<string, any>} values of its widgets, by name
 * @param {"safe" | "core"} to
 * @returns {{type: string, values: Record<string, any>} | null}
 */
export function target(type, values, to) {
  const sizes = Object.fromEntries(
    SIZES.filter((name) => name in values).map((name) => [name, values[name]]),
  );
  if (to === "safe") {
    if (type === CORE) return { type: SAFE, values: {} };
    return type === CORE_TILED ? { type: SAFE, values: { tiling_mode: "manual", ...sizes } } : null;
  }
  if (type !== SAFE) return null;
  const manual = values.tile !== false && values.tiling_mode === "manual";
  return manual ? { type: CORE_TILED, values: sizes } : { type: CORE, values: {} };
}

/**
 * Convert nodes of one graph.
 * @param {any} graph
 * @param {any[]} nodes
 * @param {"safe" | "core"} to
 * @param {(type: string) => any} create
 * @returns {{converted: number, kept: number}} `kept`: safe ones whose report is in use
 */
export function convertNodes(graph, nodes, to, create) {
  let converted = 0;
  let kept = 0;
  for (const node of nodes) {
    const values = Object.fromEntries(
      (node.widgets ?? []).map((/** @type {any} */ { name, value }) => [name, value]),
    );
    const wanted = target(node.type, values, to);
    if (!wanted) continue;
    if (to === "core" && (node.outputs?.[1]?.links?.length ?? 0) > 0) kept += 1;
    else if (replace(graph, node, wanted, create)) converted += 1;
  }
  return { converted, kept };
}

/**
 * @param {any} graph
 * @param {any} node
 * @param {{type: string, values: Record<string, any>}} wanted
 * @param {(type: string) => any} create
 */
function replace(graph, node, wanted, create) {
  const made = create(wanted.type);
  if (!made) return false;
  const ends = endsOf(graph, node);
  made.pos = [...node.pos];
  for (const look of LOOKS) {
    // A title of its own is kept; the one every node of its kind has is not.
    if (look === "title" && node.title === node.constructor?.title) continue;
    if (node[look] !== undefined) made[look] = node[look];
  }
  graph.remove(node);
  made.id = node.id;
  graph.add(made);
  for (const widget of made.widgets ?? []) {
    if (widget.name in wanted.values) widget.value = wanted.values[widget.name];
  }
  for (const { name, from, slot } of ends.inputs) {
    const input = made.inputs.findIndex((/** @type {any} */ each) => each.name === name);
    if (input >= 0) from.connect(slot, made, input);
  }
  for (const { to, slot } of ends.images) made.connect(0, to, slot);
  return true;
}

/**
 * @param {any} graph
 * @param {any} node
 */
function endsOf(graph, node) {
  const inputs = (node.inputs ?? []).flatMap((/** @type {any} */ input) => {
    const link = linkOf(graph, input.link);
    const from = link && graph.getNodeById(link.origin_id);
    return from ? [{ name: input.name, from, slot: link.origin_slot }] : [];
  });
  const images = (node.outputs?.[0]?.links ?? []).flatMap((/** @type {number} */ id) => {
    const link = linkOf(graph, id);
    const to = link && graph.getNodeById(link.target_id);
    return to ? [{ to, slot: link.target_slot }] : [];
  });
  return { inputs, images };
}

/**
 * Convert the selection, or all nodes where nothing of it can be, as one step of undo.
 * @param {any} app
 * @param {"safe" | "core"} to
 * @param {(type: string) => any} create
 * @param {any[]} [only] these nodes and no others
 */
export function convertInEditor(app, to, create, only) {
  const graph = app.canvas?.graph ?? app.graph;
  const own = graph.nodes ?? graph._nodes ?? [];
  const can = (/** @type {any} */ node) => own.includes(node) && target(node.type, {}, to) !== null;
  const chosen = only ?? [...(app.canvas?.selectedItems ?? [])].filter(can);
  const nodes = chosen.length > 0 ? chosen : own.filter(can);
  app.canvas?.emitBeforeChange?.();
  graph.beforeChange?.();
  try {
    return convertNodes(graph, nodes, to, create);
  } finally {
    graph.afterChange?.();
    app.canvas?.emitAfterChange?.();
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
  }
}
