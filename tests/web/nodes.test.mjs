import assert from "node:assert/strict";
import { test } from "node:test";

import { NODE_TEXTS } from "../../web/lib/node_texts.js";
import { TEXTS, translator } from "../../web/lib/texts.js";
import { keep, showQuarters, stateOf } from "../../web/nodes/attach.js";
import { plansByItself, presetValues, valuesFor } from "../../web/nodes/apply.js";
import { contextOf } from "../../web/nodes/context.js";
import { convertInEditor, convertNodes, target } from "../../web/nodes/convert.js";
import { PlanWatch } from "../../web/nodes/replan.js";
import { contextText, summaryText } from "../../web/nodes/summary.js";
import { serverId } from "../../web/nodes/walk.js";
import { Graph, connect, node } from "./graph.mjs";

const t = translator({}, { ...TEXTS, ...NODE_TEXTS });
const SAFE = "IAMCCS_VAEDecodeTiledSafe";
const ADVICE = {
  hw_supporter: { profile: "balanced", reserved_vram_gb: 1, sage_attention: "auto", tf32: null },
  vae_decode: { tile: true, tile_size: 768, overlap: 64, tiling_mode: "auto" },
};
const widgets = (values) => Object.entries(values).map(([name, value]) => ({ name, value }));
const overwrite = { mode: "overwrite" };
const fill = (defaults) => ({ mode: "fill_missing", defaults });

test("no text of the panel and of the nodes has the same key", () => {
  assert.deepEqual(Object.keys(NODE_TEXTS).filter((key) => key in TEXTS), []);
});

// What is applied.

test("advice overwrites what differs, and names nothing else", () => {
  const has = widgets({ profile: "auto", reserved_vram_gb: 1, sage_attention: "auto", tf32: "on" });
  assert.deepEqual(valuesFor("IAMCCS_HwSupporter", has, ADVICE, overwrite), { profile: "balanced" });
});

test("to fill what is missing leaves what somebody set", () => {
  const has = widgets({ profile: "auto", reserved_vram_gb: 2.5 });
  const how = fill({ profile: "auto", reserved_vram_gb: 1.25 });
  assert.deepEqual(valuesFor("IAMCCS_HwSupporter", has, ADVICE, how), { profile: "balanced" });
  const zero = widgets({ profile: "low_vram", reserved_vram_gb: 0 });
  assert.deepEqual(valuesFor("IAMCCS_HwSupporter", zero, ADVICE, how), { reserved_vram_gb: 1 });
});

test("a drop-down takes its own entries only", () => {
  const profile = { name: "profile", value: "auto", options: { values: ["auto", "low_vram"] } };
  assert.deepEqual(valuesFor("IAMCCS_HwSupporter", [profile], ADVICE, overwrite), {});
});

test("a node that plans by itself keeps its widgets; a manual one is filled, and stays manual", () => {
  const auto = widgets({ tiling_mode: "auto", tile_size: 512 });
  assert.deepEqual(valuesFor(SAFE, auto, ADVICE, overwrite), {});
  assert.equal(plansByItself(SAFE, auto), true);
  const manual = widgets({ tiling_mode: "manual", tile_size: 512, overlap: 64 });
  assert.deepEqual(valuesFor(SAFE, manual, ADVICE, overwrite), { tile_size: 768 });
});

test("of other nodes nothing is known", () => {
  assert.deepEqual(valuesFor("KSampler", widgets({ tile_size: 1 }), ADVICE, overwrite), {});
  assert.equal(plansByItself("KSampler", []), false);
});

test("a profile fills what it is about; auto is what the card is advised", () => {
  const report = {
    presets: { low_vram: { reserved_vram_gb: 1.5, tf32: "auto" } },
    recommendations: ADVICE,
  };
  const has = widgets({ profile: "low_vram", reserved_vram_gb: 1, tf32: "on" });
  assert.deepEqual(presetValues(has, report, "low_vram"), { reserved_vram_gb: 1.5, tf32: "auto" });
  assert.deepEqual(presetValues(widgets({ reserved_vram_gb: 3 }), report, "auto"), {
    reserved_vram_gb: 1,
  });
  assert.deepEqual(presetValues(has, report, "odd"), {});
  assert.deepEqual(presetValues(has, null, "low_vram"), {});
});

test("a quarter of a GiB is shown as one", () => {
  const has = [
    { name: "reserved_vram_gb", options: { precision: 1 } },
    { name: "tile_size", options: { precision: 0 } },
    { name: "bare_gb" },
  ];
  showQuarters({ widgets: has });
  assert.deepEqual(has.map(({ options }) => options?.precision), [2, 0, undefined]);
});

test("what was chosen is kept with the node, and has a standard", () => {
  const saved = {};
  assert.deepEqual(stateOf(saved), { apply_mode: "overwrite", preset_sync: true, context: {} });
  keep(saved, { preset_sync: false });
  keep(saved, { apply_mode: "fill_missing" });
  assert.deepEqual(saved.properties.vram_supervisor, {
    preset_sync: false,
    apply_mode: "fill_missing",
  });
  assert.equal(stateOf(saved).preset_sync, false);
});

// What is read from the graph.

const SIZE = { width: 848, height: 480, length: 25, batch_size: 1 };

function decodeAfter(...chain) {
  const graph = new Graph();
  const decode = graph.add(node(SAFE, { inputs: ["samples", "vae"], outputs: ["IMAGE"] }));
  let next = decode;
  for (const each of chain) {
    graph.add(each);
    connect(each, 0, next, 0);
    next = each;
  }
  return { graph, decode };
}

const latent = (values = SIZE, more = {}) =>
  node("EmptyHunyuanLatentVideo", { outputs: ["LATENT"], widgets: values, ...more });
const sampler = () =>
  node("KSampler", { inputs: ["latent"], outputs: ["LATENT"], widgets: { seed: 7, steps: 20 } });

test("the size comes from the latent upstream, with the node it comes from", () => {
  const { graph, decode } = decodeAfter(sampler(), latent());
  const { size, sources } = contextOf(decode, graph);
  assert.deepEqual(size, { width: 848, height: 480, frames: 25, fps: null });
  assert.equal(sources.width, "EmptyHunyuanLatentVideo");
});

test("the nearest counts, and a node elsewhere does not", () => {
  const { graph, decode } = decodeAfter(
    node("Upscale", { inputs: ["latent"], outputs: ["LATENT"], widgets: { width: 1920, height: 1088 } }),
    latent(),
  );
  graph.add(latent({ width: 64, height: 64, length: 9 }));
  assert.deepEqual(contextOf(decode, graph).size, { width: 1920, height: 1088, frames: 25, fps: null });
});

test("a muted node tells nothing, nor does a bypassed one", () => {
  const { graph, decode } = decodeAfter(sampler(), latent(SIZE, { mode: 2 }));
  assert.equal(contextOf(decode, graph).size.width, null);
  const upscale = node("LatentUpscale", {
    inputs: ["samples"],
    outputs: ["LATENT"],
    widgets: { width: 1920, height: 1088 },
    mode: 4,
  });
  const bypassed = decodeAfter(upscale, sampler(), latent());
  assert.equal(contextOf(bypassed.decode, bypassed.graph).size.width, 848);
});

test("a converted widget has the value of the primitive at its end, through reroutes", () => {
  const source = latent({ width: 1, height: 480, length: 25 });
  source.inputs = [{ name: "width", widget: { name: "width" }, link: null }];
  const { graph, decode } = decodeAfter(source);
  const reroute = graph.add(node("Reroute", { inputs: [""], outputs: [""] }));
  const primitive = graph.add(node("PrimitiveNode", { outputs: ["INT"], widgets: { value: 1280 } }));
  connect(primitive, 0, reroute, 0);
  connect(reroute, 0, source, 0);
  assert.equal(contextOf(decode, graph).size.width, 1280);
});

test("a width that nobody knows is no size", () => {
  const source = latent({ width: 512, height: 480, length: 25 });
  source.inputs = [{ name: "width", widget: { name: "width" }, link: null }];
  const { graph, decode } = decodeAfter(source);
  connect(graph.add(node("Computed", { inputs: ["a", "b"], outputs: ["INT"] })), 0, source, 0);
  const { size } = contextOf(decode, graph);
  assert.deepEqual([size.width, size.height, size.frames], [null, null, 25]);
});

/** A latent whose width and height are fed by a node with one output for each. */
function latentFedBy(feeder) {
  const source = latent();
  source.inputs = ["width", "height"].map((name) => ({ name, widget: { name }, link: null }));
  const { graph, decode } = decodeAfter(source);
  graph.add(feeder);
  connect(feeder, 0, source, 0);
  connect(feeder, 1, source, 1);
  return { graph, decode };
}

test("the size of a picture is not its width twice", () => {
  const measure = node("GetImageSize", { inputs: ["image"], outputs: ["width", "height"] });
  const { graph, decode } = latentFedBy(measure);
  const scale = node("ImageScale", {
    outputs: ["IMAGE"],
    widgets: { width: 1280, height: 704 },
  });
  connect(graph.add(scale), 0, measure, 0);
  const { size } = contextOf(decode, graph);
  assert.deepEqual([size.width, size.height], [1280, 704]);
});

test("what a node computes from its inputs is not the number in its widget", () => {
  const double = node("Multiply", { inputs: ["a"], outputs: ["INT", "INT"], widgets: { by: 2 } });
  const { graph, decode } = latentFedBy(double);
  const half = node("PrimitiveInt", { outputs: ["INT"], widgets: { value: 424 } });
  connect(graph.add(half), 0, double, 0);
  assert.equal(contextOf(decode, graph).size.width, null);
});

test("the sizes that prompts and models have are not the picture's", () => {
  const typed = (type, kind, values) => {
    const made = node(type, { outputs: [kind], widgets: values });
    made.outputs[0].type = kind;
    return made;
  };
  const graph = new Graph();
  const decode = graph.add(node(SAFE, { inputs: ["samples"], outputs: ["IMAGE"] }));
  const names = ["model", "positive", "latent_image"];
  const sample = graph.add(node("KSampler", { inputs: names, outputs: ["LATENT"] }));
  connect(sample, 0, decode, 0);
  const large = { width: 4096, height: 4096 };
  connect(graph.add(typed("ModelSamplingFlux", "MODEL", large)), 0, sample, 0);
  const prompt = graph.add(typed("CLIPTextEncodeSDXL", "CONDITIONING", { ...large, fps: 24 }));
  connect(prompt, 0, sample, 1);
  connect(graph.add(typed("EmptyLatentImage", "LATENT", { width: 832, height: 1216 })), 0, sample, 2);
  const { size } = contextOf(decode, graph);
  assert.deepEqual(size, { width: 832, height: 1216, frames: null, fps: 24 });
});

test("loaders of other packs: 0 is unset there", () => {
  const loader = node("VHS_LoadVideo", {
    outputs: ["IMAGE"],
    widgets: { force_rate: 0, custom_width: 640, custom_height: 360, frame_load_cap: 0 },
  });
  const { graph, decode } = decodeAfter(loader);
  assert.deepEqual(contextOf(decode, graph).size, { width: 640, height: 360, frames: null, fps: null });
});

test("a picture that a loader shows", () => {
  const image = node("LoadImage", { outputs: ["IMAGE"] });
  image.imgs = [{ naturalWidth: 1024, naturalHeight: 768 }];
  const { graph, decode } = decodeAfter(image);
  assert.equal(contextOf(decode, graph).size.width, 1024);
});

test("fps comes from what saves the video, downstream", () => {
  const { graph, decode } = decodeAfter(latent());
  const save = graph.add(node("SaveWEBM", { inputs: ["images"], widgets: { fps: 24 } }));
  connect(decode, 0, save, 0);
  assert.equal(contextOf(decode, graph).size.fps, 24);
});

test("a supporter after the loader reads what its model ends up in", () => {
  const graph = new Graph();
  const supporter = graph.add(node("IAMCCS_HwSupporter", { inputs: ["model"], outputs: ["MODEL"] }));
  const sample = graph.add(node("KSampler", { inputs: ["model", "latent"], outputs: ["LATENT"] }));
  const source = graph.add(latent());
  connect(supporter, 0, sample, 0);
  connect(source, 0, sample, 1);
  assert.equal(contextOf(supporter, graph).size.height, 480);
});

test("what was set by hand wins, field by field", () => {
  const { graph, decode } = decodeAfter(latent());
  const found = contextOf(decode, graph, { width: 0, height: 720, frames: null });
  assert.deepEqual([found.size.width, found.size.height, found.override], [848, 720, true]);
});

test("a graph that goes in circles ends", () => {
  const { graph, decode } = decodeAfter(sampler());
  const loop = graph.nodes[1];
  connect(loop, 0, loop, 0);
  assert.equal(contextOf(decode, graph).size.width, null);
});

/** A subgraph with a latent inside whose output feeds a decode outside. */
function withSubgraph() {
  const graph = new Graph();
  const inner = new Graph();
  const source = inner.add(latent());
  inner.outputs = [{ linkIds: [inner.link(source.id, 0, -20, 0)] }];
  source.outputs[0].links.push(1);
  inner.inputs = [];
  const box = graph.add(node("Subgraph", { outputs: ["LATENT"], subgraph: inner }));
  const decode = graph.add(node(SAFE, { inputs: ["samples"], outputs: ["IMAGE"] }));
  connect(box, 0, decode, 0);
  return { graph, inner, source, box, decode };
}

test("into a subgraph, and out of it", () => {
  const { graph, decode, source } = withSubgraph();
  assert.equal(contextOf(decode, graph).size.width, 848);
  const asker = source.graph.add(node(SAFE, { inputs: ["samples"], outputs: ["IMAGE"] }));
  source.graph.inputs = [{ linkIds: [source.graph.link(-10, 0, asker.id, 0)] }];
  asker.inputs[0].link = source.graph.inputs[0].linkIds[0];
  const box = graph.nodes[0];
  box.inputs = [{ name: "samples", link: null }];
  const outside = graph.add(latent({ width: 320, height: 240, length: 5 }));
  connect(outside, 0, box, 0);
  assert.equal(contextOf(asker, graph).size.width, 320);
});

test("a widget that a subgraph shows counts, in a subgraph of it too; ids may be texts", () => {
  for (const edge of [-10, "-10"]) {
    const { graph, inner, source, box, decode } = withSubgraph();
    source.inputs = [{ name: "width", widget: { name: "width" }, link: inner.link(edge, 0, source.id, 0) }];
    box.inputs = [{ name: "width_1", widget: { name: "width_1" }, link: null }];
    box.widgets = [{ name: "width_1", value: 1280 }];
    assert.equal(contextOf(decode, graph).size.width, 1280);
    const whole = new Graph();
    const outer = whole.add(node("Subgraph", { subgraph: graph }));
    outer.inputs = [{ name: "wide", link: null }];
    outer.widgets = [{ name: "wide", value: 640 }];
    box.inputs[0].link = graph.link(edge, 0, box.id, 0);
    assert.equal(contextOf(decode, whole).size.width, 640);
  }
});

test("the server knows nodes inside subgraphs by the way to them", () => {
  const { graph, box, source, decode } = withSubgraph();
  assert.equal(serverId(decode, graph), "2");
  assert.equal(serverId(source, graph), `${box.id}:${source.id}`);
});

// What a node says.

test("the line: free, plan, peak; while it runs its parts; afterwards what it took", () => {
  const reading = { free_bytes: 6 * 2 ** 30 };
  const plan = { kind: "tiled", tile_size: 720, predicted_peak_bytes: 4 * 2 ** 30 };
  const known = { report: { plan }, reading, decode: null, context: null };
  assert.equal(summaryText(known, t), "6.0 GiB free · plan: tiled 720 px · peak 4.0 GiB expected");
  const running = { outcome: "running", done: 3, steps: 9, predicted_bytes: 2 ** 30 };
  assert.equal(
    summaryText({ ...known, decode: running }, t),
    "6.0 GiB free · 3 of 9 parts · peak 1.0 GiB expected",
  );
  const done = { outcome: "done", measured_bytes: 3 * 2 ** 30 };
  assert.match(summaryText({ ...known, decode: done }, t), /last run 3\.0 GiB$/);
  assert.equal(summaryText({ report: null, reading: null, decode: null, context: null }, t), "");
});

test("where the size comes from is said", () => {
  const size = { width: 848, height: 480, frames: 25, fps: null };
  const context = { size, sources: { width: "Latent" }, override: false };
  assert.equal(contextText(context, t), "848 x 480 px, 25 frames from Latent");
  assert.match(contextText({ ...context, override: true }, t), /as set in this node/);
  assert.equal(contextText(null, t), NODE_TEXTS.contextUnknown);
});

// Core's nodes and ours.

test("what becomes of a decode node", () => {
  const sizes = { tile_size: 256, overlap: 32, temporal_size: 64, temporal_overlap: 8 };
  assert.deepEqual(target("VAEDecode", {}, "safe"), { type: SAFE, values: {} });
  assert.deepEqual(target("VAEDecodeTiled", sizes, "safe"), {
    type: SAFE,
    values: { tiling_mode: "manual", ...sizes },
  });
  const manual = { tile: true, tiling_mode: "manual", ...sizes };
  assert.deepEqual(target(SAFE, manual, "core"), { type: "VAEDecodeTiled", values: sizes });
  assert.equal(target(SAFE, { ...manual, tiling_mode: "auto" }, "core").type, "VAEDecode");
  assert.equal(target(SAFE, { ...manual, tile: false }, "core").type, "VAEDecode");
  assert.equal(target("KSampler", {}, "safe"), null);
  assert.equal(target(SAFE, {}, "safe"), null);
});

const KINDS = {
  VAEDecode: { inputs: ["samples", "vae"], outputs: ["IMAGE"] },
  VAEDecodeTiled: { inputs: ["samples", "vae"], outputs: ["IMAGE"], widgets: { tile_size: 512 } },
  [SAFE]: {
    inputs: ["samples", "vae"],
    outputs: ["IMAGE", "report_json"],
    widgets: { tiling_mode: "auto", tile_size: 512 },
  },
};
const create = (type) => (KINDS[type] ? node(type, KINDS[type]) : null);

/** A latent and a VAE, a decode node, and two that take its pictures. */
function decoding(type = "VAEDecode", more = {}) {
  const graph = new Graph();
  const source = graph.add(latent());
  const vae = graph.add(node("VAELoader", { outputs: ["VAE"] }));
  const decode = graph.add(node(type, { ...KINDS[type], ...more }));
  connect(source, 0, decode, 0);
  connect(vae, 0, decode, 1);
  for (const name of ["SaveImage", "PreviewImage"]) {
    connect(decode, 0, graph.add(node(name, { inputs: ["images"] })), 0);
  }
  return { graph, decode };
}

test("a converted node is where it was, with its links, title, colour and id", () => {
  const { graph, decode } = decoding("VAEDecode", { title: "mine", color: "#123", mode: 4 });
  assert.deepEqual(convertNodes(graph, [decode], "safe", create), { converted: 1, kept: 0 });
  const made = graph.getNodeById(decode.id);
  assert.deepEqual([made.type, made.title, made.color, made.mode], [SAFE, "mine", "#123", 4]);
  assert.deepEqual(made.pos, decode.pos);
  assert.ok(made.inputs.every(({ link }) => link !== null));
  assert.equal(made.outputs[0].links.length, 2);
});

test("there and back again is the same graph", () => {
  const { graph, decode } = decoding("VAEDecodeTiled", { widgets: { tile_size: 320 } });
  convertNodes(graph, [decode], "safe", create);
  const safe = graph.getNodeById(decode.id);
  assert.deepEqual(safe.widgets.map(({ value }) => value), ["manual", 320]);
  convertNodes(graph, [safe], "core", create);
  const back = graph.getNodeById(decode.id);
  assert.equal(back.type, "VAEDecodeTiled");
  assert.equal(back.widgets[0].value, 320);
  assert.equal(back.outputs[0].links.length, 2);
});

test("a safe node whose report is in use stays", () => {
  const { graph, decode } = decoding(SAFE);
  connect(decode, 1, graph.add(node("ShowText", { inputs: ["text"] })), 0);
  assert.deepEqual(convertNodes(graph, [decode], "core", create), { converted: 0, kept: 1 });
  assert.equal(graph.getNodeById(decode.id), decode);
});

test("inside a subgraph a converted node stays joined to its edges", () => {
  const { graph } = decoding();
  const decode = graph.nodes.find(({ type }) => type === "VAEDecode");
  const joined = [];
  graph.inputs = [{ connect: (input, made) => joined.push([input.name, made.type]) }];
  graph.outputs = [{ connect: (output, made) => joined.push([output.name, made.type]) }];
  decode.inputs[0].link = graph.link("-10", 0, decode.id, 0);
  decode.outputs[0].links.push(graph.link(decode.id, 0, -20, 0));
  convertNodes(graph, [decode], "safe", create);
  assert.deepEqual(joined, [["samples", SAFE], ["IMAGE", SAFE]]);
  assert.equal(graph.getNodeById(decode.id).outputs[0].links.length, 2);
});

test("a kind that this server does not have changes nothing", () => {
  const { graph, decode } = decoding();
  assert.deepEqual(convertNodes(graph, [decode], "safe", () => null), { converted: 0, kept: 0 });
  assert.equal(graph.getNodeById(decode.id), decode);
});

test("in the editor: what is selected, else all, in one step", () => {
  const { graph } = decoding();
  const second = graph.add(create("VAEDecode"));
  const steps = [];
  const app = {
    canvas: {
      graph,
      selectedItems: new Set([second]),
      emitBeforeChange: () => steps.push("before"),
      emitAfterChange: () => steps.push("after"),
    },
  };
  assert.equal(convertInEditor(app, "safe", create).converted, 1);
  assert.equal(graph.getNodeById(second.id).type, SAFE);
  app.canvas.selectedItems = new Set([graph.nodes[0]]);
  assert.equal(convertInEditor(app, "safe", create).converted, 1, "none of the selection can be");
  assert.deepEqual(steps, ["before", "after", "before", "after"]);
});

test("in the editor all means those in subgraphs too, whichever graph is open", () => {
  const { graph, decode } = decoding();
  const { graph: inner, decode: within } = decoding();
  graph.add(node("Subgraph", { subgraph: inner }));
  const app = { rootGraph: graph, canvas: { graph: inner, selectedItems: new Set() } };
  assert.deepEqual(convertInEditor(app, "safe", create), { converted: 2, kept: 0 });
  assert.equal(graph.getNodeById(decode.id).type, SAFE);
  assert.equal(inner.getNodeById(within.id).type, SAFE);
});

// The plan in the line.

const GIB = 2 ** 30;
const STILL = { width: 1024, height: 1024 };

test("a plan is asked for once for a size, and again for another", async () => {
  const asked = [];
  const plans = new PlanWatch(async (size) => asked.push(size) && { plan: asked.length });
  assert.equal(await plans.consider({}, GIB, 0), null, "no size is known");
  assert.deepEqual(await plans.consider(STILL, GIB, 0), { plan: 1 });
  assert.equal(await plans.consider(STILL, GIB, 99), null);
  assert.deepEqual(await plans.consider({ ...STILL, frames: 9 }, GIB, 99), { plan: 2 });
});

test("it is asked for again when what is free changed, and not more than every ten seconds", async () => {
  let count = 0;
  const plans = new PlanWatch(async () => ({ plan: ++count }));
  await plans.consider(STILL, 20 * GIB, 0);
  assert.equal(await plans.consider(STILL, 10 * GIB, 5), null, "too early");
  assert.equal(await plans.consider(STILL, 18.5 * GIB, 20), null, "within a tenth");
  assert.deepEqual(await plans.consider(STILL, 10 * GIB, 20), { plan: 2 });
  await plans.consider(STILL, GIB, 40);
  assert.equal(await plans.consider(STILL, 1.4 * GIB, 60), null, "within half a GiB");
});

test("while one answer is awaited no other is asked for, and a refusal is no plan", async () => {
  const answers = [];
  const plans = new PlanWatch(() => new Promise((answer) => answers.push(answer)));
  const first = plans.consider(STILL, GIB, 0);
  assert.equal(await plans.consider({ ...STILL, frames: 9 }, GIB, 1), null);
  answers[0]({ error: { message: "width is not a number" } });
  assert.equal(await first, null);
  const second = plans.consider({ ...STILL, frames: 9 }, GIB, 2);
  answers[1](null);
  assert.equal(await second, null);
});

test("the line tells what must leave first", () => {
  const plan = { kind: "evict", evict_bytes: 1.25 * GIB, predicted_peak_bytes: 3 * GIB };
  const line = summaryText({ report: { plan }, reading: null, decode: null, context: null }, t);
  assert.equal(line, "plan: evict · 1.3 GiB evicted first · peak 3.0 GiB expected");
});
