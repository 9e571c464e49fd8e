import assert from "node:assert/strict";
import { test } from "node:test";

import { POLL_MS, SILENCE_MS, openStream, resumeAfter } from "../../web/lib/stream.js";

/** A browser under the test's control: no network, no clock. */
class FakeWorld {
  constructor() {
    this.sources = [];
    this.requests = [];
    this.timers = new Map();
    this.nextTimer = 1;
    this.answer = { stream: { last_event_id: "a1-100" }, telemetry: {} };
    const world = this;
    this.document = new (class extends EventTarget {
      visibilityState = "visible";
    })();
    this.EventSource = class extends EventTarget {
      closed = false;
      constructor(url) {
        super();
        this.url = url;
        world.sources.push(this);
      }
      close() {
        this.closed = true;
      }
      say(kind, data, id = "") {
        this.dispatchEvent(
          Object.assign(new Event(kind), { data: JSON.stringify(data), lastEventId: id }),
        );
      }
      fail() {
        this.dispatchEvent(new Event("error"));
      }
    };
    this.fetch = async (url, { signal }) => {
      this.requests.push(url);
      signal.throwIfAborted();
      if (this.answer === null) throw new TypeError("connection refused");
      return { ok: true, json: async () => this.answer };
    };
    this.setTimeout = (run, delay_ms) => {
      this.timers.set(this.nextTimer, { run, delay_ms });
      return this.nextTimer++;
    };
    this.clearTimeout = (timer) => this.timers.delete(timer);
    this.random = () => 1;
  }

  /** Run the only timer that waits, and say how long it was set for. */
  async elapse() {
    assert.equal(this.timers.size, 1);
    const [[id, { run, delay_ms }]] = this.timers;
    this.timers.delete(id);
    run();
    await settle();
    return delay_ms;
  }

  async setVisibility(state) {
    this.document.visibilityState = state;
    this.document.dispatchEvent(new Event("visibilitychange"));
    await settle();
  }

  get source() {
    return this.sources.at(-1);
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function open(world, options = {}) {
  const seen = { states: [], telemetry: [], jobs: [], dropped: [], snapshots: 0 };
  const stream = openStream(
    "probe",
    {
      onSnapshot: () => (seen.snapshots += 1),
      onTelemetry: (sample) => seen.telemetry.push(sample.time_s),
      onJob: (change) => seen.jobs.push(change.phase),
      onDropped: (count) => seen.dropped.push(count),
      onState: (state) => seen.states.push(state),
    },
    { world, ...options },
  );
  await settle();
  return { stream, seen };
}

const resumes = [
  ["nothing known of the server", null, null, 10, null],
  ["an id of another form", null, "whatever", 10, null],
  ["a first visit asks for the recent past", null, "a1-100", 10, "a1-90"],
  ["not further back than the beginning", null, "a1-5", 10, "a1-0"],
  ["a short absence resumes where it was", "a1-95", "a1-100", 10, "a1-95"],
  ["a long absence skips what is too old", "a1-5", "a1-100", 10, "a1-90"],
  ["another server life starts anew", "ff-5000", "a1-100", 10, "a1-90"],
];
for (const [name, seen, newest, backfill, expected] of resumes) {
  test(`resume: ${name}`, () => assert.equal(resumeAfter(seen, newest, backfill), expected));
}

test("the snapshot comes first and the stream goes on from it", async () => {
  const world = new FakeWorld();
  const { seen } = await open(world, { backfill: 40 });
  assert.deepEqual(world.requests, ["probe"]);
  assert.equal(world.source.url, "probe?stream=1&last_event_id=a1-60");
  assert.deepEqual(seen.states, ["connecting"]);
  world.source.say("telemetry", { device: "cpu", time_s: 1 }, "a1-61");
  world.source.say("job", { phase: "start" }, "a1-62");
  world.source.say("dropped", { count: 7 });
  assert.deepEqual(seen.states, ["connecting", "live"]);
  assert.deepEqual([seen.telemetry, seen.jobs, seen.dropped], [[1], ["start"], [7]]);
});

test("a lost stream comes back by itself after the last event it saw", async () => {
  const world = new FakeWorld();
  const { seen } = await open(world, { backfill: 40 });
  world.source.say("telemetry", { device: "cpu", time_s: 1 }, "a1-99");
  const lost = world.source;
  lost.fail();
  assert.equal(lost.closed, true);
  assert.equal(seen.states.at(-1), "reconnecting");
  await world.elapse();
  assert.equal(world.source.url, "probe?stream=1&last_event_id=a1-99");
});

test("a server that stays away is asked less and less often, up to a bound", async () => {
  const world = new FakeWorld();
  const { seen } = await open(world);
  world.source.say("telemetry", { device: "cpu", time_s: 1 }, "a1-99");
  world.answer = null;
  world.source.fail();
  const delays = [];
  for (let attempt = 0; attempt < 8; attempt += 1) delays.push(await world.elapse());
  assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, 10000, 10000, 10000]);
  world.answer = { stream: { last_event_id: "b2-3" } };
  await world.elapse();
  assert.equal(world.source.url, "probe?stream=1&last_event_id=b2-3");
  world.source.say("telemetry", { device: "cpu", time_s: 2 }, "b2-4");
  assert.equal(seen.states.at(-1), "live");
});

test("a refused stream falls back on polling and is tried again later", async () => {
  const world = new FakeWorld();
  world.answer.telemetry = { cpu: { device: "cpu", time_s: 5 } };
  const { seen } = await open(world);
  world.source.fail();
  await settle();
  assert.equal(seen.states.at(-1), "polling");
  assert.deepEqual(seen.telemetry, [5]);
  assert.equal(await world.elapse(), POLL_MS);
  assert.deepEqual(seen.telemetry, [5], "the same sample is not told twice");
  world.answer.telemetry = { cpu: { device: "cpu", time_s: 7 } };
  for (let poll = 0; poll < 14; poll += 1) await world.elapse();
  assert.equal(world.sources.length, 1);
  await world.elapse();
  assert.equal(world.sources.length, 2, "the stream is tried again");
  assert.deepEqual(seen.telemetry, [5, 7]);
});

test("a stream that opens and then stays silent is given up for polling", async () => {
  const world = new FakeWorld();
  const { seen } = await open(world);
  world.source.say("telemetry", { device: "cpu", time_s: 1 }, "a1-99");
  assert.equal(await world.elapse(), SILENCE_MS);
  assert.equal(world.sources[0].closed, true);
  assert.equal(seen.states.at(-1), "polling");
});

test("without EventSource it polls", async () => {
  const world = new FakeWorld();
  world.EventSource = undefined;
  const { seen } = await open(world);
  assert.deepEqual(seen.states, ["connecting", "polling"]);
  assert.equal(await world.elapse(), POLL_MS);
});

test("a hidden page is silent and a shown one resumes", async () => {
  const world = new FakeWorld();
  const { seen } = await open(world, { backfill: 40 });
  world.source.say("telemetry", { device: "cpu", time_s: 1 }, "a1-99");
  await world.setVisibility("hidden");
  assert.equal(world.source.closed, true);
  assert.equal(world.timers.size, 0);
  assert.equal(seen.states.at(-1), "paused");
  const before = world.requests.length;
  world.answer = { stream: { last_event_id: "a1-120" } };
  await world.setVisibility("visible");
  assert.equal(world.requests.length, before + 1);
  assert.equal(world.source.url, "probe?stream=1&last_event_id=a1-99");
});

test("a page that is opened hidden asks for nothing", async () => {
  const world = new FakeWorld();
  world.document.visibilityState = "hidden";
  const { seen } = await open(world);
  assert.deepEqual([world.requests, world.sources, world.timers.size], [[], [], 0]);
  assert.deepEqual(seen.states, ["paused"]);
});

test("hidden while the snapshot is under way: no stream is opened afterwards", async () => {
  const world = new FakeWorld();
  let release;
  world.fetch = (url, { signal }) =>
    new Promise((resolve, reject) => {
      release = () => resolve({ ok: true, json: async () => world.answer });
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  const { seen } = await open(world);
  await world.setVisibility("hidden");
  release();
  await settle();
  assert.deepEqual([world.sources, world.timers.size, seen.snapshots], [[], 0, 0]);
});

test("closing ends everything", async () => {
  const world = new FakeWorld();
  const { stream, seen } = await open(world);
  stream.close();
  assert.equal(world.source.closed, true);
  assert.equal(world.timers.size, 0);
  assert.equal(seen.states.at(-1), "closed");
  await world.setVisibility("visible");
  assert.equal(world.requests.length, 1);
});
