import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import {
  WIDGETS,
  allNodes,
  migrateValues,
  migrateWorkflow,
  tailLength,
} from "../../web/lib/migration.js";

const FIXTURES = new URL("../fixtures/workflows/", import.meta.url);

const load = (name) => JSON.parse(readFileSync(new URL(name, FIXTURES), "utf8"));
const named = (node) =>
  Object.fromEntries(WIDGETS[node.type].map(({ name }, i) => [name, node.widgets_values[i]]));
const ours = (graph) => allNodes(graph).filter((node) => node.type in WIDGETS);

const files = readdirSync(FIXTURES).filter((name) => name.endsWith(".json"));

test("there is a fixture for every known layout", () => {
  assert.ok(files.length >= 9);
});

for (const file of files.filter((name) => name !== "unknown_layout.json")) {
  test(`${file}: every value lands in the widget it was saved for`, () => {
    const graph = load(file);
    const expected = graph.extra.expected;
    const { unknown } = migrateWorkflow(graph);
    assert.deepEqual(unknown, []);
    const found = ours(graph);
    assert.equal(found.length, Object.keys(expected).length);
    for (const node of found) {
      const key = Object.keys(expected).find((id) => id.split(":").at(-1) === String(node.id));
      assert.deepEqual(named(node), expected[key]);
    }
  });

  test(`${file}: migrating twice changes nothing more`, () => {
    const once = load(file);
    migrateWorkflow(once);
    const twice = structuredClone(once);
    assert.deepEqual(migrateWorkflow(twice).changed, []);
    assert.deepEqual(twice, once);
  });
}

test("an unknown layout is left alone and named", () => {
  const graph = load("unknown_layout.json");
  const before = structuredClone(graph.nodes);
  const { changed, unknown } = migrateWorkflow(graph);
  assert.deepEqual(graph.nodes, before);
  assert.deepEqual(changed, []);
  assert.deepEqual(unknown, [
    { id: 1, type: "IAMCCS_VAEDecodeTiledSafe", values: [true, "auto", 512] },
  ]);
});

test("a right length with wrong types is not a known layout", () => {
  const decode = ["yes", "auto", 512, 64, 256, 32, false, false, 0];
  assert.equal(migrateValues("IAMCCS_VAEDecodeTiledSafe", decode), null);
});

test("the tail is recognised by its values, not by its length alone", () => {
  const type = "IAMCCS_VAEDecodeTiledSafe";
  const decode = [true, "auto", 512, 64, 256, 32, false, false, 0];
  assert.equal(tailLength(type, [...decode, "overwrite", "text", "run", "copy"]), 4);
  assert.equal(tailLength(type, [...decode, "overwrite", "text", null, null]), 4);
  assert.equal(tailLength(type, [...decode, "exact", 0, true]), 0);
  assert.equal(tailLength(type, [...decode, "overwrite", "text", "walk", "copy"]), 0);
  assert.equal(tailLength(type, decode), 0);
  assert.equal(tailLength(type, []), 0);
});

test("other packs' nodes, values saved by name and broken graphs are not touched", () => {
  const graph = {
    nodes: [
      { id: 1, type: "KSampler", widgets_values: [1, 2] },
      { id: 2, type: "IAMCCS_VAEDecodeTiledSafe", widgets_values: { tile: true } },
      { id: 3, type: "IAMCCS_VAEDecodeTiledSafe" },
      { id: 4, type: "toString", widgets_values: [1] },
      null,
    ],
  };
  const before = structuredClone(graph);
  assert.deepEqual(migrateWorkflow(graph), { changed: [], unknown: [] });
  assert.deepEqual(graph, before);
  for (const broken of [undefined, null, {}, { nodes: null }, { definitions: {} }]) {
    assert.deepEqual(migrateWorkflow(broken), { changed: [], unknown: [] });
  }
});

test("nodes in subgraphs of subgraphs and in group definitions are found", () => {
  const node = (id) => ({ id, type: "IAMCCS_VAEDecodeTiledSafe", widgets_values: [] });
  const graph = {
    nodes: [node(1)],
    definitions: { subgraphs: [{ nodes: [node(2)], definitions: { subgraphs: [{ nodes: [node(3)] }] } }] },
    extra: { groupNodes: { old: { nodes: [node(4)] } } },
  };
  assert.deepEqual(allNodes(graph).map(({ id }) => id).sort(), [1, 2, 3, 4]);
});
