// Wires the page: one stream in, three views out.

import { openStream } from "./web/lib/stream.js";
import { DecodeView } from "./decode.js";
import { DevicesView } from "./devices.js";
import { JobsView } from "./jobs.js";

const PROBE_URL = "iamccs/hw_probe";
/** A minute of samples at the full rate, for one device and for one more. */
const BACKFILL_EVENTS = 1200;

const CONNECTION_TEXTS = {
  connecting: ["Connecting", "Asking the server for its figures"],
  live: ["Live", "Samples arrive as they are taken"],
  reconnecting: ["Reconnecting", "The server does not answer; trying again"],
  polling: ["Polling", "No event stream is free; figures are asked for every two seconds"],
  paused: ["Paused", "The page is hidden and asks for nothing"],
  closed: ["Closed", "The connection was closed"],
};

const connection = document.getElementById("connection");
const devices = new DevicesView(document.getElementById("devices"), reducedMotion());
const jobs = new JobsView(document);
const decode = new DecodeView(document, {
  onResults: (results) => jobs.setPredictions(results),
});

/** @returns {boolean} */
function reducedMotion() {
  return globalThis.matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/** @param {import("../../../web/lib/stream.js").StreamState} state */
function showConnection(state) {
  const [text, title] = CONNECTION_TEXTS[state];
  connection.dataset.state = state;
  connection.textContent = text;
  connection.title = title;
  decode.setAwake(state !== "paused" && state !== "closed");
}

/** @param {Record<string, string | null>} versions */
function showVersions(versions) {
  const known = [
    ["", versions.vram_supervisor],
    ["torch ", versions.torch],
    ["Python ", versions.python],
  ].filter(([, version]) => version);
  document.getElementById("versions").textContent = known
    .map(([name, version]) => `${name}${version}`)
    .join(" · ");
}

openStream(
  PROBE_URL,
  {
    onSnapshot(report) {
      showVersions(report.versions ?? {});
      devices.setSnapshot(report.telemetry);
      jobs.setSnapshot(report.jobs);
      jobs.loadHistory();
      decode.refresh();
    },
    onTelemetry: (sample) => devices.push(sample),
    onJob(change) {
      jobs.follow(change);
      decode.refresh();
    },
    onState: showConnection,
  },
  { backfill: BACKFILL_EVENTS },
);
