import assert from "node:assert/strict";
import { test } from "node:test";

import {
  MOST_JOBS,
  MOST_MARKERS,
  applyDecode,
  applyJob,
  applySample,
  applySnapshot,
  createModel,
  jobPeak,
  largestDecode,
  predictedLevel,
  reserveLevel,
} from "../../web/lib/model.js";

const READING = { total_bytes: 1000, used_bytes: 400 };
const peak = (used_bytes, device = "cuda:0") => ({ device, used_bytes });

function record(job_id, more = {}) {
  return { job_id, status: "success", started_s: 1, ended_s: 9, nodes: [], peaks: [], ...more };
}

function report(more = {}) {
  return {
    telemetry: {
      "cuda:0": { info: { key: "cuda:0" }, reading: READING },
      cpu: { info: { key: "cpu", kind: "cpu" }, reading: READING },
    },
    jobs: { current: null, recent: [] },
    decode: null,
    state: { reserve_bytes: 100, warnings: [] },
    ...more,
  };
}

function known(more) {
  const model = createModel();
  applySnapshot(model, report(more));
  return model;
}

function decode(more = {}) {
  return {
    number: 1,
    device: "cuda:0",
    outcome: "running",
    held_bytes: 300,
    predicted_bytes: 500,
    finished: [],
    ...more,
  };
}

test("a snapshot says which devices there are, and a sample what they hold", () => {
  const model = known();
  assert.deepEqual([...model.devices.keys()], ["cuda:0", "cpu"]);
  applySample(model, { device: "cuda:0", reading: { used_bytes: 7 } });
  applySample(model, { device: "gone", reading: { used_bytes: 8 } });
  assert.equal(model.devices.get("cuda:0").reading.used_bytes, 7);
  assert.equal(model.devices.size, 2);
});

test("the job that runs, with its open node", () => {
  const nodes = [
    { node_id: "1", node_type: "A", ended_s: 2, peaks: [] },
    { node_id: "2", node_type: "B", ended_s: null, peaks: [] },
  ];
  const model = known({ jobs: { current: { job_id: "j", started_s: 1, nodes }, recent: [] } });
  assert.deepEqual(model.job, { job_id: "j", started_s: 1, node_id: "2", node_type: "B" });
});

test("a job from start to end", () => {
  const model = known();
  applyJob(model, { phase: "start", time_s: 5, job_id: "j", node_id: null, node_type: null });
  applyJob(model, { phase: "node", time_s: 6, job_id: "j", node_id: "3", node_type: "K" });
  assert.deepEqual(model.job, { job_id: "j", started_s: 5, node_id: "3", node_type: "K" });
  applyJob(model, { phase: "end", time_s: 7, job_id: "j", record: record("j") });
  assert.equal(model.job, null);
  assert.deepEqual(model.jobs.map(({ job_id }) => job_id), ["j"]);
});

test("the newest jobs are kept, each once, the newest first", () => {
  const model = known();
  for (let place = 0; place < MOST_JOBS + 5; place += 1) {
    applyJob(model, { phase: "end", record: record(`job ${place}`) });
  }
  applyJob(model, { phase: "end", record: record("job 16") });
  assert.equal(model.jobs.length, MOST_JOBS);
  assert.deepEqual([model.jobs[0].job_id, model.jobs[1].job_id], ["job 16", "job 15"]);
});

test("peaks of nodes are marked once, oldest first, and not for ever", () => {
  const model = known();
  const nodes = Array.from({ length: MOST_MARKERS + 9 }, (_, place) => ({
    node_id: String(place),
    node_type: place % 2 ? "K" : null,
    ended_s: 1000 - place,
    peaks: [peak(place + 1), peak(null, "cpu")],
  }));
  const ended = { phase: "end", record: record("j", { nodes }) };
  applyJob(model, ended);
  const first = structuredClone(model.markers);
  applyJob(model, ended);
  assert.deepEqual(model.markers, first);
  assert.equal(first.length, MOST_MARKERS);
  assert.ok(first.every(({ time_s }, at) => at === 0 || first[at - 1].time_s <= time_s));
  assert.deepEqual(first.at(-1), { time_s: 1000, device: "cuda:0", name: "0", bytes: 1 });
});

test("a decode's finished parts add up, and another decode begins anew", () => {
  const model = known();
  applyDecode(model, decode({ finished: [[0, 1, 0, 0, 8, 8]] }));
  applyDecode(model, decode({ finished: [[0, 1, 8, 0, 16, 8]] }));
  assert.equal(model.decode.finished.length, 2);
  applyDecode(model, decode({ number: 2 }));
  assert.deepEqual(model.decode.finished, []);
});

test("after a restart of the server no decode runs that it does not know", () => {
  const model = known();
  applyDecode(model, decode());
  applySnapshot(model, report());
  assert.equal(model.decode, null);
  applyDecode(model, decode({ outcome: "done" }));
  applySnapshot(model, report());
  assert.equal(model.decode.outcome, "done", "the last one stays to be read");
});

test("the level a decode is expected to reach, on its device and while it runs", () => {
  const model = known({ decode: decode() });
  assert.equal(predictedLevel(model, "cuda:0"), 800);
  assert.equal(predictedLevel(model, "cpu"), null);
  applyDecode(model, decode({ outcome: "done" }));
  assert.equal(predictedLevel(model, "cuda:0"), null);
  applyDecode(model, decode({ held_bytes: null }));
  assert.equal(predictedLevel(model, "cuda:0"), null);
});

test("the reserve lies below the top of the main device only", () => {
  assert.equal(reserveLevel(known(), "cuda:0"), 900);
  assert.equal(reserveLevel(known(), "cpu"), null);
  assert.equal(reserveLevel(known({ state: { reserve_bytes: null } }), "cuda:0"), null);
});

test("of a job's decodes the largest, and its peak on any card", () => {
  const decodes = [
    { predicted_bytes: 5, measured_bytes: 4 },
    { predicted_bytes: 9, measured_bytes: null },
  ];
  assert.deepEqual(largestDecode({ decodes }), { predicted: 9, measured: null });
  assert.equal(largestDecode({}), null);
  assert.equal(jobPeak({ peaks: [peak(3), peak(8, "cuda:1"), peak(99, "cpu"), peak(null)] }), 8);
  assert.equal(jobPeak({ peaks: [peak(7, "cpu")] }), 7, "without a card it is the system's");
  assert.equal(jobPeak({ peaks: [] }), null);
});
