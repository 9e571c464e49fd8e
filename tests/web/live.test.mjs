import assert from "node:assert/strict";
import { test } from "node:test";

import { createHub } from "../../web/lib/live.js";

/** A stream that tells what was asked of it and says what the test says. */
function world() {
  const opened = [];
  const open = (url, handlers, options) => {
    const stream = { url, handlers, options, closed: false };
    opened.push(stream);
    handlers.onState("connecting");
    return {
      close() {
        stream.closed = true;
        handlers.onState("closed");
      },
    };
  };
  return { opened, hub: createHub({ url: "/probe", open }) };
}

test("nobody listens, nothing is asked for", () => {
  const { opened } = world();
  assert.equal(opened.length, 0);
});

test("however many listen, there is one connection", () => {
  const { opened, hub } = world();
  hub.subscribe({});
  hub.subscribe({});
  assert.equal(opened.length, 1);
  assert.equal(opened[0].options.slow, true);
});

test("with one that wants it live the connection is live, and slow again after it", () => {
  const { opened, hub } = world();
  hub.subscribe({});
  const leave = hub.subscribe({ rate: "live" });
  assert.deepEqual(
    opened.map(({ closed, options }) => [closed, options.slow]),
    [
      [true, true],
      [false, false],
    ],
  );
  assert.ok(opened[1].options.backfill > 0);
  leave();
  assert.equal(opened[1].closed, true);
  assert.equal(opened[2].options.slow, true);
});

test("the last one to leave closes it, however often it leaves", () => {
  const { opened, hub } = world();
  const states = [];
  const leave = hub.subscribe({ onConnection: (state) => states.push(state) });
  leave();
  leave();
  assert.equal(opened[0].closed, true);
  assert.equal(opened.length, 1);
  assert.equal(hub.connection(), "closed");
});

test("who comes later hears what is known at once", () => {
  const { opened, hub } = world();
  hub.subscribe({});
  opened[0].handlers.onSnapshot({ a: 1 });
  opened[0].handlers.onState("live");
  const heard = [];
  hub.subscribe({
    onSnapshot: (report) => heard.push(report),
    onConnection: (state) => heard.push(state),
  });
  assert.deepEqual(heard, [{ a: 1 }, "live"]);
  assert.deepEqual(hub.report(), { a: 1 });
});

test("changing the rate is not told as a loss of connection", () => {
  const { opened, hub } = world();
  const states = [];
  hub.subscribe({ onConnection: (state) => states.push(state) });
  opened[0].handlers.onState("live");
  hub.subscribe({ rate: "live" });
  assert.deepEqual(states, ["closed", "connecting", "live", "connecting"]);
});

test("everything reaches everybody, and one that fails keeps no one from it", (context) => {
  const { opened, hub } = world();
  const logged = context.mock.method(console, "error", () => {});
  const heard = [];
  hub.subscribe({
    onJob() {
      throw new Error("on purpose");
    },
  });
  const names = ["onTelemetry", "onJob", "onDecode", "onProcess"];
  hub.subscribe(Object.fromEntries(names.map((name) => [name, () => heard.push(name)])));
  for (const name of names) opened[0].handlers[name]({});
  assert.deepEqual(heard, names);
  assert.equal(logged.mock.callCount(), 1);
});

test("who comes later hears of no job, decode or reserve that is over", () => {
  const { opened, hub } = world();
  hub.subscribe({});
  const running = { number: 1, outcome: "running", finished: [[0, 1, 0, 0, 8, 8]] };
  opened[0].handlers.onSnapshot({
    telemetry: { "cuda:0": { info: {}, reading: { free_bytes: 1 } } },
    jobs: { current: { job_id: "a", started_s: 1, nodes: [] }, recent: [{ job_id: "z" }] },
    decode: running,
    state: null,
  });
  const { handlers } = opened[0];
  handlers.onTelemetry({ device: "cuda:0", reading: { free_bytes: 2 } });
  handlers.onDecode({ ...running, outcome: "done", finished: [[0, 1, 8, 0, 16, 8]] });
  handlers.onJob({ phase: "node", job_id: "a", node_id: "7", node_type: "KSampler", time_s: 3 });
  handlers.onProcess({ reserve_bytes: 5 });
  const late = () => {
    let heard;
    hub.subscribe({ onSnapshot: (report) => (heard = structuredClone(report)) })();
    return heard;
  };
  const during = late();
  assert.equal(during.telemetry["cuda:0"].reading.free_bytes, 2);
  assert.deepEqual([during.decode.outcome, during.decode.finished.length], ["done", 2]);
  assert.deepEqual([during.jobs.current.started_s, during.jobs.current.nodes[0].node_id], [1, "7"]);
  assert.equal(during.state.reserve_bytes, 5);
  const end = { phase: "end", job_id: "a", record: { job_id: "a" } };
  handlers.onJob(end);
  handlers.onJob(end);
  const { jobs } = late();
  assert.equal(jobs.current, null);
  assert.deepEqual(jobs.recent, [{ job_id: "a" }, { job_id: "z" }]);
});
