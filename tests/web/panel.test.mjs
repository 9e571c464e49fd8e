import assert from "node:assert/strict";
import { test } from "node:test";

import { levelOf, mainDevice } from "../../web/badge.js";
import { TEXTS, translator } from "../../web/lib/texts.js";
import { toaster } from "../../web/lib/toast.js";
import { coverage, framesText } from "../../web/panel/decode.js";
import { rowOf } from "../../web/panel/jobs.js";
import { levelY, markPlace, sameMarkers } from "../../web/panel/overlay.js";
import { SERVER_SETTINGS, SettingsBridge } from "../../web/settings.js";

const GiB = 2 ** 30;
const VIEW = { width: 200, height: 100, now_s: 1000, window_s: 100, zoom: 0.5 };

test("the badge turns at 85 and 95 percent", () => {
  const levels = [[0.5, "normal"], [0.85, "high"], [0.95, "full"], [1, "full"]];
  for (const [used, level] of levels) assert.equal(levelOf(used * 1000, 1000), level);
  assert.equal(levelOf(null, 1000), "unknown");
  assert.equal(levelOf(5, 0), "unknown");
});

test("the badge tells of the first card, else of the system", () => {
  assert.equal(mainDevice({ telemetry: { cpu: {}, "cuda:1": {} } }), "cuda:1");
  assert.equal(mainDevice({ telemetry: { cpu: {} } }), "cpu");
  assert.equal(mainDevice({}), null);
});

test("a level lies where its share of what is shown is", () => {
  assert.equal(levelY(0.25, VIEW), 50);
  assert.equal(levelY(0.6, VIEW), null, "above what is shown");
  assert.equal(levelY(null, VIEW), null);
});

test("a mark lies at its time and height, and leaves with the window", () => {
  const marker = { time_s: 950, device: "cuda:0", name: "K", bytes: 250 };
  assert.deepEqual(markPlace(marker, VIEW, 1000), [100, 50]);
  assert.equal(markPlace({ ...marker, time_s: 899 }, VIEW, 1000), null);
  assert.deepEqual(markPlace({ ...marker, bytes: 900 }, VIEW, 1000), [100, 0], "at the top");
});

test("a new marker is seen though the oldest left and their number stays", () => {
  const [first, second, third] = [1, 2, 3].map((time_s) => ({ time_s, device: "c", name: "K", bytes: 1 }));
  assert.ok(sameMarkers([first, second], [first, second]));
  assert.ok(!sameMarkers([first, second], [second, third]));
  assert.ok(!sameMarkers([first], [first, second]));
});

test("a running video tells which frames became final, anything else how many it has", () => {
  const decode = { frames: 33, outcome: "running", finished: [[0, 8, 0, 0, 9, 9], [8, 8, 0, 0, 9, 9]] };
  assert.equal(framesText(decode), "9–16 / 33");
  assert.equal(framesText({ ...decode, finished: [[4, 1, 0, 0, 9, 9]] }), "5 / 33");
  assert.equal(framesText({ ...decode, finished: [] }), "33");
  assert.equal(framesText({ ...decode, outcome: "done" }), "33");
  assert.equal(framesText({ ...decode, frames: 1 }), "1");
});

test("how much of a video is final", () => {
  const decode = { width: 10, height: 10, frames: 4, finished: [[0, 4, 0, 0, 5, 10]] };
  assert.equal(coverage(decode), 0.5);
  assert.equal(coverage({ ...decode, finished: [] }), 0);
  assert.equal(coverage({ ...decode, width: null }), null);
});

test("a row of the table: expected beside measured", () => {
  const record = {
    status: "success",
    started_s: 100,
    ended_s: 175,
    peaks: [{ device: "cuda:0", used_bytes: 9 * GiB }],
    decodes: [{ predicted_bytes: 4 * GiB, measured_bytes: 3.9 * GiB }],
  };
  const row = rowOf(record, translator());
  assert.equal(row.duration, "1 min 15 s");
  assert.equal(row.status, "Done");
  assert.equal(row.peak, "9.0 GiB");
  assert.equal(row.decodePredicted, "4.0 GiB");
  assert.match(row.decodeMeasured, /^3\.9 GiB \(.+%\)$/);
  const without = rowOf({ ...record, decodes: [], ended_s: null }, translator());
  assert.deepEqual([without.decodePredicted, without.duration], ["–", "–"]);
});

test("a message goes wherever this frontend shows messages", (context) => {
  const log = context.mock.method(console, "log", () => {});
  const shown = [];
  const newer = { success: (text, more) => shown.push(["newer", text, more.description]) };
  const older = { add: ({ severity, summary }) => shown.push(["older", summary, severity]) };
  toaster({ extensionManager: { toast: newer } })("success", "Freed", "3 GiB");
  toaster({ extensionManager: { toast: older } })("error", "No");
  toaster({})("info", "Somewhere", "else");
  assert.deepEqual(shown, [
    ["newer", "Freed", "3 GiB"],
    ["older", "No", "error"],
  ]);
  assert.equal(log.mock.callCount(), 1);
});

/** The bridge before a server that keeps what it is told, or refuses. */
function bridge({ refuses = false, answers = true } = {}) {
  const server = { history_days: 30, sampling_rate_hz: 10, default_quality: "exact" };
  const asked = [];
  const shown = new Map();
  const said = [];
  const api = {
    async fetchApi(_path, options = {}) {
      if (!answers) throw new TypeError("gone");
      if (options.method !== "POST") return reply(200, { settings: { ...server } });
      const change = JSON.parse(options.body);
      asked.push(change);
      if (refuses) return reply(400, { error: { message: "history_days is odd" } });
      Object.assign(server, change);
      return reply(200, { settings: { ...server }, problem: null });
    },
  };
  const app = {
    extensionManager: { setting: { set: async (id, value) => shown.set(id, value) } },
  };
  const toast = (severity, _summary, detail) => said.push([severity, detail]);
  const made = new SettingsBridge({ app, api, t: translator(), toast, onBadge: () => {} });
  return { made, asked, shown, said };
}

function reply(status, answer) {
  return { ok: status < 400, status, json: async () => answer };
}

const idOf = (field) => SERVER_SETTINGS.find((each) => each.field === field).id;

test("what holds on the server is what the dialogue shows", async () => {
  const { made, shown, asked } = bridge();
  await made.changed("history_days", 99);
  assert.deepEqual(asked, [], "what the dialogue remembered is no wish");
  await made.load();
  assert.equal(shown.get(idOf("history_days")), 30);
  assert.equal(made.defaultQuality(), "exact");
});

test("a change in the dialogue changes the server, once", async () => {
  const { made, asked } = bridge();
  await made.load();
  await made.changed("history_days", 7);
  await made.changed("history_days", 7);
  assert.deepEqual(asked, [{ history_days: 7 }]);
});

test("a change taken back before the server has answered is sent as well, and holds", async () => {
  const { made, asked } = bridge();
  await made.load();
  await Promise.all([made.changed("history_days", 7), made.changed("history_days", 30)]);
  assert.deepEqual(asked, [{ history_days: 7 }, { history_days: 30 }]);
  assert.equal(made.server.history_days, 30);
});

test("a refused change is said and taken back", async () => {
  const { made, shown, said } = bridge({ refuses: true });
  await made.load();
  await made.changed("history_days", 99);
  assert.equal(shown.get(idOf("history_days")), 30);
  assert.deepEqual(said, [["error", "The setting stays as it was: history_days is odd"]]);
});

test("without a server there is nothing to change", async (context) => {
  context.mock.method(console, "warn", () => {});
  const { made, asked } = bridge({ answers: false });
  await made.load();
  await made.changed("history_days", 7);
  assert.deepEqual(asked, []);
  assert.equal(made.defaultQuality(), null);
});

test("every setting has a text", () => {
  for (const { text } of SERVER_SETTINGS) assert.ok(TEXTS[text]);
  const { made } = bridge();
  assert.equal(made.definitions().length, SERVER_SETTINGS.length + 1);
});
