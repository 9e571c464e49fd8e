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
  if (link.origin_id === SUBGRAPH_INPUT) {
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
  if (link.target_id === SUBGRAPH_OUTPUT) {
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
