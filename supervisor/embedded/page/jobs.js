// The current job and the table of finished ones.

import {
  DASH,
  formatBytes,
  formatDeviation,
  formatDuration,
  formatTime,
  isKnown,
} from "./web/lib/format.js";

const HISTORY_URL = "iamccs/supervisor/history?limit=20";
const SHOWN = 20;
const TICK_MS = 500;

const STATUS_TEXTS = {
  running: "Running",
  success: "Done",
  error: "Failed",
  interrupted: "Interrupted",
};

export class JobsView {
  /** @param {Document} page */
  constructor(page) {
    this.page = page;
    /** @type {Map<string, any>} by job id */
    this.records = new Map();
    /** @type {Map<string, any>} by job id */
    this.predictions = new Map();
    this.startedAt = null;
    this.ticker = null;
  }

  /** @param {{current: any, recent: any[]}} jobs */
  setSnapshot(jobs) {
    for (const record of jobs.recent) this.remember(record);
    const current = jobs.current;
    if (current) {
      const node = current.nodes.findLast(({ ended_s }) => ended_s === null);
      this.showRunning(current.job_id, current.started_s, node ?? null);
    } else {
      this.showIdle();
    }
    this.showTable();
  }

  /** Finished jobs of earlier runs; the table stays as it is when they cannot be had. */
  async loadHistory() {
    try {
      const response = await fetch(HISTORY_URL, { cache: "no-store" });
      if (!response.ok) return;
      const { jobs, problem } = await response.json();
      for (const record of jobs) this.remember(record);
      const notice = this.find("history-problem");
      notice.hidden = problem === null;
      notice.textContent = problem ?? "";
      this.showTable();
    } catch (error) {
      console.warn("The history could not be read; the table shows what the stream brings.", error);
    }
  }

  /** @param {any} change a job event of the stream */
  follow(change) {
    if (change.phase === "end") {
      if (change.record) this.remember(change.record);
      this.showIdle();
      this.showTable();
      return;
    }
    const startedAt = change.phase === "start" ? change.time_s : (this.startedAt ?? change.time_s);
    const node = change.node_id === null ? null : change;
    this.showRunning(change.job_id, startedAt, node);
  }

  /** @param {any[]} results predicted and measured peaks of decode jobs */
  setPredictions(results) {
    for (const result of results) this.predictions.set(result.job_id, result);
    this.showTable();
  }

  /** @param {any} record */
  remember(record) {
    if (record.status !== "running") this.records.set(record.job_id, record);
  }

  /**
   * @param {string} jobId
   * @param {number} startedAt seconds since the epoch
   * @param {{node_id: string, node_type: string | null} | null} node
   */
  showRunning(jobId, startedAt, node) {
    this.startedAt = startedAt;
    this.say(`Running ${jobId}`, true);
    this.find("job-facts").hidden = false;
    this.find("job-node").textContent = node ? describeNode(node) : DASH;
    this.tick();
    this.ticker ??= setInterval(() => this.tick(), TICK_MS);
  }

  showIdle() {
    clearInterval(this.ticker);
    this.ticker = null;
    this.startedAt = null;
    this.find("job-facts").hidden = true;
    this.say("No job is running", false);
  }

  /**
   * Spoken by screen readers, so touched only when it changes.
   * @param {string} text
   * @param {boolean} running
   */
  say(text, running) {
    const line = this.find("job-line");
    line.classList.toggle("running", running);
    if (line.textContent !== text) line.textContent = text;
  }

  tick() {
    const elapsed_s = Math.max(0, Date.now() / 1000 - this.startedAt);
    this.find("job-time").textContent = formatDuration(elapsed_s);
  }

  showTable() {
    const newest = [...this.records.values()]
      .sort((a, b) => b.started_s - a.started_s)
      .slice(0, SHOWN);
    this.records = new Map(newest.map((record) => [record.job_id, record]));
    const open = new Set(
      [...this.page.querySelectorAll("#jobs-body details[open]")].map((node) => node.dataset.job),
    );
    const rows = newest.map((record) => this.row(record, open.has(record.job_id)));
    this.find("jobs-body").replaceChildren(...rows);
    this.find("jobs-empty").hidden = rows.length > 0;
    this.find("jobs-wrap").hidden = rows.length === 0;
  }

  /**
   * @param {any} record
   * @param {boolean} open
   */
  row(record, open) {
    const prediction = this.predictions.get(record.job_id);
    const predicted = prediction?.predicted_peak_bytes ?? null;
    const measured = prediction?.measured_peak_bytes ?? null;
    const peak = measured === null ? mainPeak(record.peaks) : { text: formatBytes(measured) };
    const row = document.createElement("tr");
    row.dataset.job = record.job_id;
    row.append(
      cell(jobDetails(record, open)),
      cell(status(record.status)),
      cell(formatTime(record.started_s)),
      cell(isKnown(record.ended_s) ? formatDuration(record.ended_s - record.started_s) : DASH, true),
      cell(unknownAware(formatBytes(predicted), "Nothing was predicted for this job"), true),
      cell(unknownAware(peak.text, "This job's peak is not known", peak.title), true),
      cell(unknownAware(formatDeviation(measured, predicted), "Needs a prediction and a measurement"), true),
    );
    return row;
  }

  /**
   * @param {string} id
   * @returns {any}
   */
  find(id) {
    return this.page.getElementById(id);
  }
}

/**
 * The peak worth a line: an accelerator's before the CPU's, torch's own before the process's.
 * @param {any[]} peaks
 * @returns {{text: string, title?: string}}
 */
function mainPeak(peaks) {
  const peak = peaks.find(({ device }) => device !== "cpu") ?? peaks[0];
  if (!peak) return { text: DASH };
  if (isKnown(peak.torch_bytes)) {
    const text = formatBytes(peak.torch_bytes);
    return peak.torch_exact
      ? { text, title: `${peak.device}: torch's own peak` }
      : { text: `≥ ${text}`, title: `${peak.device}: largest sample; the truth may lie higher` };
  }
  return isKnown(peak.process_bytes)
    ? { text: formatBytes(peak.process_bytes), title: `${peak.device}: whole process` }
    : { text: DASH };
}

/** @param {{node_id: string, node_type: string | null}} node */
function describeNode(node) {
  return node.node_type ? `${node.node_type} (${node.node_id})` : node.node_id;
}

/**
 * @param {any} record
 * @param {boolean} open
 */
function jobDetails(record, open) {
  const name = document.createElement("span");
  name.className = "job-id";
  name.textContent = record.job_id.length > 18 ? `${record.job_id.slice(0, 17)}…` : record.job_id;
  name.title = record.job_id;
  if (record.nodes.length === 0) return name;
  const details = document.createElement("details");
  details.dataset.job = record.job_id;
  details.open = open;
  const summary = document.createElement("summary");
  summary.append(name);
  const list = document.createElement("ul");
  for (const node of record.nodes) {
    const item = document.createElement("li");
    item.textContent = `${describeNode(node)}: ${mainPeak(node.peaks).text}`;
    list.append(item);
  }
  details.append(summary, list);
  return details;
}

/** @param {string} name */
function status(name) {
  const element = document.createElement("span");
  element.className = "status";
  element.dataset.status = name;
  element.textContent = STATUS_TEXTS[name] ?? name;
  return element;
}

/**
 * @param {string} text
 * @param {string} why
 * @param {string} [title]
 */
function unknownAware(text, why, title) {
  const element = document.createElement("span");
  element.textContent = text;
  if (title) element.title = title;
  if (text === DASH) {
    element.className = "unknown";
    element.title = why;
    element.setAttribute("aria-label", "unknown");
  }
  return element;
}

/**
 * @param {string | Node} content
 * @param {boolean} [number]
 */
function cell(content, number = false) {
  const element = document.createElement("td");
  if (number) element.className = "number";
  element.append(content);
  return element;
}
