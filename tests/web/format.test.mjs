import assert from "node:assert/strict";
import { test } from "node:test";

import {
  DASH,
  formatBytes,
  formatDeviation,
  formatDuration,
  formatPercent,
  formatPower,
  formatTemperature,
  formatTime,
} from "../../web/lib/format.js";

const GIB = 2 ** 30;

const bytes = [
  ["unknown", null, DASH],
  ["missing", undefined, DASH],
  ["not a number", Number.NaN, DASH],
  ["nothing", 0, "0 B"],
  ["a few", 512, "512 B"],
  ["one and a half KiB", 1536, "1.5 KiB"],
  ["just under a GiB", GIB - 1, "1024.0 MiB"],
  ["a card", 24 * GIB, "24.0 GiB"],
  ["a server", 2 ** 40, "1.0 TiB"],
  ["a loss", -GIB, "-1.0 GiB"],
];
for (const [name, value, text] of bytes) {
  test(`bytes: ${name}`, () => assert.equal(formatBytes(value), text));
}

const durations = [
  ["unknown", null, DASH],
  ["a clock set back", -1, DASH],
  ["an instant", 0.04, "0.0 s"],
  ["seconds", 12.34, "12.3 s"],
  ["what would round to 60 s", 59.97, "1 min 0 s"],
  ["minutes", 75, "1 min 15 s"],
  ["what would round to 60 min", 3599.7, "1 h 0 min"],
  ["hours", 3700, "1 h 1 min"],
];
for (const [name, value, text] of durations) {
  test(`duration: ${name}`, () => assert.equal(formatDuration(value), text));
}

const deviations = [
  ["unknown measurement", null, 1, DASH],
  ["unknown prediction", 1, null, DASH],
  ["a prediction of nothing", 1, 0, DASH],
  ["more than predicted", 103, 100, "+3 %"],
  ["less than predicted", 99, 100, "−1 %"],
  ["as predicted", 1000, 1001, "±0 %"],
];
for (const [name, measured, predicted, text] of deviations) {
  test(`deviation: ${name}`, () => assert.equal(formatDeviation(measured, predicted), text));
}

test("gauges show unknown as a dash and a true zero as zero", () => {
  assert.deepEqual([formatPercent(null), formatTemperature(null), formatPower(null)], [DASH, DASH, DASH]);
  assert.deepEqual([formatPercent(0), formatTemperature(0), formatPower(0)], ["0 %", "0 °C", "0 W"]);
});

test("an unknown time is a dash, a known one has minutes", () => {
  assert.equal(formatTime(null), DASH);
  assert.match(formatTime(0, "de-DE"), /^\d\d:\d\d:00$/);
});
