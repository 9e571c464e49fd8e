import assert from "node:assert/strict";
import { test } from "node:test";

import { nodeShower } from "../../web/commands.js";
import { NODE_TEXTS } from "../../web/lib/node_texts.js";
import { translator } from "../../web/lib/texts.js";
import { registerNodes } from "../../web/nodes/register.js";
import { Graph, node } from "./graph.mjs";

const SAFE = "IAMCCS_VAEDecodeTiledSafe";

/** Elements as far as the controls of a node use them. */
function fakePage() {
  const createElement = (tag) => ({
    tag,
    children: [],
    attributes: {},
    append(...more) {
      this.children.push(...more);
    },
    addEventListener() {},
    setAttribute(name, value) {
      this.attributes[name] = value;
    },
    getAttribute(name) {
      return this.attributes[name] ?? null;
    },
    removeAttribute() {},
  });
  return {
    createElement,
    createTextNode: (text) => ({ text }),
    getElementById: () => null,
    head: createElement("head"),
  };
}

/** The node parts over a graph, and who listens to the stream. */
function world() {
  const graph = new Graph();
  const listeners = new Set();
  const told = [];
  const hub = {
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    report: () => null,
  };
  const nodes = registerNodes({
    app: { graph },
    api: {},
    page: fakePage(),
    hub,
    t: translator({}, NODE_TEXTS),
    toast: (severity) => told.push(severity),
    defaultQuality: () => null,
    create: () => null,
    ask: async () => null,
  });
  const create = () => {
    const made = node(SAFE, { inputs: ["samples"], outputs: ["IMAGE"] });
    made.addDOMWidget = (name, _type, element) => {
      const widget = { name, element };
      made.widgets.push(widget);
      return widget;
    };
    nodes.nodeCreated(made);
    return made;
  };
  return { graph, listeners, nodes, create, told };
}

/** As the frontend adds a node. */
function add(graph, made) {
  graph.add(made);
  made.onAdded(graph);
}

test("a node listens while it is in a graph; a copy for the clipboard never does", () => {
  const { graph, listeners, create } = world();
  const made = create();
  create();
  assert.equal(listeners.size, 0);
  add(graph, made);
  made.onAdded(graph);
  assert.equal(listeners.size, 1);
  made.onRemoved();
  assert.equal(listeners.size, 0);
  add(graph, made);
  assert.equal(listeners.size, 1, "moved, or put back");
});

test("a pasted node shows the choices that came with it", () => {
  const { create } = world();
  const made = create();
  made.properties = { vram_supervisor: { apply_mode: "fill_missing" } };
  made.onConfigure();
  const options = made.widgets.at(-1).element.children.at(-1);
  assert.equal(options.children[0].value, "fill_missing");
});

test("nodes of a subgraph that was replaced let go, those that are there stay", () => {
  const { graph, listeners, nodes, create } = world();
  const old = new Graph();
  const inner = new Graph();
  add(old, create());
  add(inner, create());
  graph.add(node("Subgraph", { subgraph: inner }));
  const unused = new Graph();
  add(unused, create());
  graph.subgraphs = new Map([["unused", unused]]);
  assert.equal(listeners.size, 3);
  nodes.afterConfigureGraph();
  assert.equal(listeners.size, 2);
});

test("while the server is gone the line tells no free memory of before", () => {
  const { graph, listeners, create } = world();
  const made = create();
  add(graph, made);
  const [listener] = listeners;
  const line = made.widgets.at(-1).element.children[0];
  const reading = { free_bytes: 5 * 2 ** 30, total_bytes: 8 * 2 ** 30 };
  listener.onSnapshot({ telemetry: { "cuda:0": { info: {}, reading } } });
  assert.equal(line.textContent, "5.0 GiB free");
  listener.onConnection("reconnecting");
  assert.equal(line.textContent, "");
});

test("to probe all means the nodes in subgraphs too", async (context) => {
  context.mock.method(console, "warn", () => {});
  const { graph, nodes, create, told } = world();
  const inner = new Graph();
  add(graph, create());
  add(inner, create());
  graph.add(node("Subgraph", { subgraph: inner }));
  await nodes.probeAll();
  assert.equal(told.length, 2);
});

test("a node is shown in its own graph, though the editor is inside a subgraph", () => {
  const graph = new Graph();
  const made = graph.add(node(SAFE));
  const shown = [];
  const canvas = {
    graph: new Graph(),
    setGraph: (given) => shown.push(given),
    selectNode: (given) => shown.push(given),
    centerOnNode: (given) => shown.push(given),
  };
  nodeShower({ canvas, rootGraph: graph })("1");
  assert.deepEqual(shown, [graph, made, made]);
});
