// Neighbours of a node in ComfyUI's graph: along links, into subgraphs and out of them.

/** Ids that stand for a subgraph's own inputs and outputs inside it. */
const SUBGRAPH_INPUT = -10;
const SUBGRAPH_OUTPUT = -20;

/**
 * @typedef {any} Node a LiteGraph node
 * @typedef {any} Graph
 */

/**
 * @param {Graph} graph
 * @param {number | null | undefined} id
 * @returns {any}
 */
export function linkOf(graph, id) {
  if (id === null || id === undefined) return null;
  if (typeof graph.getLink === "function") return graph.getLink(id) ?? null;
  return graph.links?.get?.(id) ?? graph.links?.[id] ?? null;
}

/**
 * Whether a link comes from its subgraph's own inputs. Newer frontends have ids as texts.
 * @param {any} link
 */
export function fromEdge({ origin_id }) {
  return Number(origin_id) === SUBGRAPH_INPUT;
}

/**
 * Whether a link goes to its subgraph's own outputs.
 * @param {any} link
 */
export function toEdge({ target_id }) {
  return Number(target_id) === SUBGRAPH_OUTPUT;
}

/**
 * What feeds an input: a node and the number of its output; null where nothing does.
 * @param {Node} node
 * @param {number} slot
 * @param {Graph} root
 * @returns {{node: Node, slot: number} | null}
 */
export function originOf(node, slot, root) {
  return origin(node.graph, node.inputs?.[slot]?.link, root);
}

/**
 * @param {Graph} graph
 * @param {number | null | undefined} linkId
 * @param {Graph} root
 * @returns {{node: Node, slot: number} | null}
 */
function origin(graph, linkId, root) {
  const link = linkOf(graph, linkId);
  if (!link) return null;
  if (fromEdge(link)) {
    const outer = instanceOf(graph, root);
    return outer ? origin(outer.graph, outer.inputs?.[link.origin_slot]?.link, root) : null;
  }
  const node = graph.getNodeById(link.origin_id);
  if (!node) return null;
  if (!node.subgraph) return { node, slot: link.origin_slot };
  const inner = node.subgraph.outputs?.[link.origin_slot]?.linkIds?.[0];
  return origin(node.subgraph, inner, root);
}

/**
 * The widget that a subgraph's node shows for an input inside it; null where there is none, or
 * where a link feeds it.
 * @param {Node} node
 * @param {number} slot
 * @param {Graph} root
 * @returns {{name: string, value: any} | null}
 */
export function entryOf(node, slot, root) {
  const link = linkOf(node.graph, node.inputs?.[slot]?.link);
  const outer = link && fromEdge(link) ? instanceOf(node.graph, root) : null;
  const input = outer?.inputs?.[link.origin_slot];
  if (!input) return null;
  if (linkOf(outer.graph, input.link)) return entryOf(outer, link.origin_slot, root);
  const shown = input.widget?.name ?? input.name;
  return outer.widgets?.find((/** @type {any} */ { name }) => name === shown) ?? null;
}

/**
 * What a node's output feeds.
 * @param {Node} node
 * @param {number} slot
 * @param {Graph} root
 * @returns {{node: Node, slot: number}[]}
 */
export function targetsOf(node, slot, root) {
  return (node.outputs?.[slot]?.links ?? []).flatMap((/** @type {number} */ id) =>
    targets(node.graph, id, root),
  );
}

/**
 * @param {Graph} graph
 * @param {number} linkId
 * @param {Graph} root
 * @returns {{node: Node, slot: number}[]}
 */
function targets(graph, linkId, root) {
  const link = linkOf(graph, linkId);
  if (!link) return [];
  if (toEdge(link)) {
    const outer = instanceOf(graph, root);
    return outer ? targetsOf(outer, link.target_slot, root) : [];
  }
  const node = graph.getNodeById(link.target_id);
  if (!node) return [];
  if (!node.subgraph) return [{ node, slot: link.target_slot }];
  const inner = node.subgraph.inputs?.[link.target_slot]?.linkIds ?? [];
  return inner.flatMap((/** @type {number} */ id) => targets(node.subgraph, id, root));
}

/**
 * The node that stands for a subgraph, searched from the root down.
 * @param {Graph} subgraph
 * @param {Graph} root
 * @returns {Node | null}
 */
export function instanceOf(subgraph, root) {
  for (const node of nodesOf(root)) if (node.subgraph === subgraph) return node;
  return null;
}

/**
 * Every node of a graph and of the subgraphs in it.
 * @param {Graph} graph
 * @param {Set<Graph>} [seen]
 * @returns {Node[]}
 */
export function nodesOf(graph, seen = new Set()) {
  if (!graph || seen.has(graph)) return [];
  seen.add(graph);
  const own = graph.nodes ?? graph._nodes ?? [];
  return own.flatMap((/** @type {Node} */ node) => [node, ...nodesOf(node.subgraph, seen)]);
}

/**
 * Every node that is there, also of subgraphs that nothing stands for.
 * @param {Graph} root
 * @returns {Node[]}
 */
export function everyNode(root) {
  const seen = new Set();
  return [root, ...(root?.subgraphs?.values?.() ?? [])].flatMap((graph) => nodesOf(graph, seen));
}

/**
 * The id that the server knows a node by: 1:2:3 inside subgraphs.
 * @param {Node} node
 * @param {Graph} root
 * @returns {string}
 */
export function serverId(node, root) {
  if (!node.graph || node.graph === root) return String(node.id);
  const outer = instanceOf(node.graph, root);
  return outer ? `${serverId(outer, root)}:${node.id}` : String(node.id);
}
