// Core's decode nodes become safe ones, and back, in one step that can be undone.

import { fromEdge, linkOf, nodesOf, toEdge } from "./walk.js";

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
  for (const { name, join } of ends.inputs) {
    const input = made.inputs.findIndex((/** @type {any} */ each) => each.name === name);
    if (input >= 0) join(made, input);
  }
  for (const join of ends.images) join(made);
  return true;
}

/**
 * What joins another node to the neighbours that this one has.
 * @param {any} graph
 * @param {any} node
 */
function endsOf(graph, node) {
  const inputs = (node.inputs ?? []).flatMap((/** @type {any} */ input) => {
    const join = sourceOf(graph, linkOf(graph, input.link));
    return join ? [{ name: input.name, join }] : [];
  });
  const images = (node.outputs?.[0]?.links ?? []).flatMap(
    (/** @type {number} */ id) => drainOf(graph, linkOf(graph, id)) ?? [],
  );
  return { inputs, images };
}

/**
 * Inside a subgraph a neighbour can be its edge, which is no node.
 * @param {any} graph
 * @param {any} link
 * @returns {((made: any, input: number) => void) | null}
 */
function sourceOf(graph, link) {
  if (!link) return null;
  const { origin_id, origin_slot } = link;
  const edge = fromEdge(link) ? graph.inputs?.[origin_slot] : null;
  if (edge) return (made, input) => edge.connect(made.inputs[input], made);
  const from = graph.getNodeById(origin_id);
  return from ? (made, input) => from.connect(origin_slot, made, input) : null;
}

/**
 * @param {any} graph
 * @param {any} link
 * @returns {((made: any) => void) | null}
 */
function drainOf(graph, link) {
  if (!link) return null;
  const { target_id, target_slot } = link;
  const edge = toEdge(link) ? graph.outputs?.[target_slot] : null;
  if (edge) return (made) => edge.connect(made.outputs[0], made);
  const to = graph.getNodeById(target_id);
  return to ? (made) => made.connect(0, to, target_slot) : null;
}

/**
 * Convert the selection, or all nodes where nothing of it can be, those in subgraphs too, as one
 * step of undo.
 * @param {any} app
 * @param {"safe" | "core"} to
 * @param {(type: string) => any} create
 * @param {any[]} [only] these nodes and no others
 */
export function convertInEditor(app, to, create, only) {
  const graph = app.canvas?.graph ?? app.graph;
  const own = graph.nodes ?? graph._nodes ?? [];
  const can = (/** @type {any} */ node) => target(node.type, {}, to) !== null;
  const selected = [...(app.canvas?.selectedItems ?? [])].filter((node) => own.includes(node));
  const chosen = only ?? selected.filter(can);
  const root = app.rootGraph ?? app.graph ?? graph;
  const nodes = chosen.length > 0 ? chosen : nodesOf(root).filter(can);
  app.canvas?.emitBeforeChange?.();
  graph.beforeChange?.();
  try {
    return convertWhereTheyAre(nodes, to, create);
  } finally {
    graph.afterChange?.();
    app.canvas?.emitAfterChange?.();
    app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();
  }
}

/**
 * @param {any[]} nodes of any graphs
 * @param {"safe" | "core"} to
 * @param {(type: string) => any} create
 */
function convertWhereTheyAre(nodes, to, create) {
  const sum = { converted: 0, kept: 0 };
  for (const graph of new Set(nodes.map((node) => node.graph))) {
    const own = nodes.filter((node) => node.graph === graph);
    const { converted, kept } = convertNodes(graph, own, to, create);
    sum.converted += converted;
    sum.kept += kept;
  }
  return sum;
}
