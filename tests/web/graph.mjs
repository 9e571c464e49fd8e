// A small graph as LiteGraph has it: nodes, links, subgraphs.

export class Graph {
  constructor() {
    this.nodes = [];
    this.links = new Map();
    this.next = 1;
  }

  getNodeById(id) {
    return this.nodes.find((node) => String(node.id) === String(id)) ?? null;
  }

  getLink(id) {
    return this.links.get(id);
  }

  add(node) {
    node.id ??= this.nodes.length + 1;
    node.graph = this;
    this.nodes.push(node);
    return node;
  }

  remove(node) {
    this.nodes = this.nodes.filter((each) => each !== node);
    for (const [id, link] of this.links) {
      if (link.origin_id === node.id || link.target_id === node.id) this.unlink(id, link);
    }
  }

  unlink(id, link) {
    this.links.delete(id);
    const input = this.getNodeById(link.target_id)?.inputs[link.target_slot];
    if (input) input.link = null;
    const output = this.getNodeById(link.origin_id)?.outputs[link.origin_slot];
    if (output) output.links = output.links.filter((each) => each !== id);
  }

  link(origin_id, origin_slot, target_id, target_slot) {
    const id = this.next;
    this.next += 1;
    this.links.set(id, { id, origin_id, origin_slot, target_id, target_slot });
    return id;
  }
}

/** A node with named inputs and outputs, and widgets as name and value. */
export function node(type, { inputs = [], outputs = [], widgets = {}, ...more } = {}) {
  const made = {
    type,
    title: type,
    mode: 0,
    pos: [10, 20],
    inputs: inputs.map((name) => ({ name, link: null })),
    outputs: outputs.map((name) => ({ name, links: [] })),
    widgets: Object.entries(widgets).map(([name, value]) => ({ name, value })),
    ...more,
  };
  made.connect = (slot, target, input) => connect(made, slot, target, input);
  return made;
}

export function connect(from, slot, to, input) {
  const id = from.graph.link(from.id, slot, to.id, input);
  from.outputs[slot].links.push(id);
  to.inputs[input].link = id;
}
