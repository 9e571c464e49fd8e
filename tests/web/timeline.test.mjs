import assert from "node:assert/strict";
import { test } from "node:test";

import { GAP_S, Timeline, areas, runs, toPoint, zoom } from "../../web/lib/timeline.js";

const reading = (used, total = 100) => ({
  total_bytes: total,
  used_bytes: used,
  torch_reserved_bytes: used / 2,
  outside_torch_bytes: 0,
  external_bytes: used / 2,
});
const sample = (time_s, used = 40, job_id = null) => ({ time_s, job_id, reading: reading(used) });

test("a device whose total is unknown has no share to draw", () => {
  assert.equal(toPoint({ time_s: 1, job_id: null, reading: reading(1, null) }), null);
});

test("the parts' upper edges stack up to the share in use", () => {
  const { tops, busy } = toPoint(sample(1, 40, "job"));
  assert.equal(tops.get("torch"), 0.2);
  assert.equal(tops.get("external"), 0.4);
  assert.equal(busy, true);
});

test("a silence longer than the slowest rate cuts the line", () => {
  const points = [0, 1, 2, 2 + GAP_S + 0.1, 6].map((time_s) => toPoint(sample(time_s)));
  assert.deepEqual(runs(points).map((run) => run.length), [3, 2]);
  assert.deepEqual(runs([]), []);
});

test("areas lie on top of each other and end at the right edge", () => {
  const run = [toPoint(sample(50)), toPoint(sample(60))];
  const view = { width: 600, height: 100, now_s: 60, window_s: 60 };
  const byId = new Map(areas(run, view).map(({ id, outline }) => [id, outline]));
  assert.deepEqual(byId.get("torch"), [[500, 80], [600, 80], [600, 100], [500, 100]]);
  assert.deepEqual(byId.get("external"), [[500, 60], [600, 60], [600, 80], [500, 80]]);
});

const zooms = [
  ["nothing yet", [], 1 / 16],
  ["a full device", [100], 1],
  ["too high to zoom in", [41], 1],
  ["half a device leaves a quarter of room", [40], 1 / 2],
  ["the highest point of the window decides", [1, 19, 2], 1 / 4],
  ["a small job on a large device", [4], 1 / 16],
  ["next to nothing", [0], 1 / 16],
];
for (const [name, used, share] of zooms) {
  test(`zoom: ${name}`, () => {
    assert.equal(zoom(used.map((bytes, index) => toPoint(sample(index, bytes)))), share);
  });
}

test("zoomed in, the areas fill the height", () => {
  const run = [toPoint(sample(60))];
  const view = { width: 600, height: 100, now_s: 60, window_s: 60, zoom: 0.5 };
  const external = areas(run, view).find(({ id }) => id === "external");
  assert.ok(Math.abs(external.outline[0][1] - 20) < 1e-9);
});

test("memory is bounded by the window and by the number of points", () => {
  const line = new Timeline(null, { windowSeconds: 60, colors: () => ({}) });
  for (let step = 0; step < 20_000; step += 1) line.push(sample(step / 10));
  assert.ok(line.points.length <= 602, String(line.points.length));
  for (let step = 0; step < 20_000; step += 1) line.push(sample(3000 + step / 1000));
  assert.ok(line.points.length <= 4096, String(line.points.length));
});

test("a repeated sample is ignored, a clock set far back starts the line anew", () => {
  const line = new Timeline(null, { windowSeconds: 60, colors: () => ({}) });
  for (const time_s of [1000, 1001, 1001, 1000.5]) line.push(sample(time_s));
  assert.deepEqual(line.points.map(({ time_s }) => time_s), [1000, 1001]);
  line.push(sample(100));
  assert.deepEqual(line.points.map(({ time_s }) => time_s), [100]);
});

test("drawing fills one area per known part and marks the job", () => {
  const fills = [];
  const context = {
    beginPath() {}, closePath() {}, lineTo() {}, clearRect() {}, setTransform() {},
    fill() { fills.push(this.fillStyle); },
    fillRect() { fills.push(this.fillStyle); },
  };
  const canvas = { clientWidth: 300, clientHeight: 100, getContext: () => context };
  const colors = { torch: "t", outside: "o", process: "p", external: "e", unattributed: "u", grid: "g", busy: "b" };
  const line = new Timeline(canvas, { colors: () => colors });
  line.push(sample(1, 40, "job"));
  line.push(sample(2, 40, "job"));
  line.draw();
  assert.deepEqual(fills, ["g", "g", "g", "t", "o", "p", "e", "u", "b"]);
  assert.equal(canvas.width, 300);
  assert.equal(line.topBytes(), 50);
});
