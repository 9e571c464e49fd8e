// The job that runs, and the table of the last ones: what was expected, what it took.

import { DASH, formatBytes, formatDeviation, formatDuration, formatTime, isKnown } from "../lib/format.js";
import { jobPeak, largestDecode } from "../lib/model.js";
import { element, setText } from "./dom.js";

const STATUSES = {
  success: "statusSuccess",
  error: "statusError",
  interrupted: "statusInterrupted",
};
const COLUMNS = ["when", "duration", "status", "peak", "decodePredicted", "decodeMeasured"];
const NUMBERS = new Set(["duration", "peak", "decodePredicted", "decodeMeasured"]);

/**
 * One row of the table, as texts by column.
 * @param {any} record
 * @param {import("../lib/texts.js").Translate} t
 */
export function rowOf(record, t) {
  const decode = largestDecode(record);
  const seconds = record.ended_s === null ? null : record.ended_s - record.started_s;
  const measured = decode?.measured ?? null;
  const deviation =
    isKnown(measured) && isKnown(decode?.predicted)
      ? ` (${formatDeviation(measured, decode.predicted)})`
      : "";
  return {
    when: formatTime(record.started_s),
    duration: formatDuration(seconds),
    status: t(STATUSES[/** @type {keyof STATUSES} */ (record.status)] ?? record.status),
    peak: formatBytes(jobPeak(record)),
    decodePredicted: decode ? formatBytes(decode.predicted) : DASH,
    decodeMeasured: decode ? `${formatBytes(measured)}${deviation}` : DASH,
  };
}

/** @param {string} name of a column */
function headClass(name) {
  if (name === "status") return "vsup-status-head";
  return NUMBERS.has(name) ? "vsup-number" : "";
}

export class JobsView {
  /**
   * @param {Document} page
   * @param {import("../lib/texts.js").Translate} t
   * @param {{showNode: ((id: string) => void) | null, time_s: () => number}} world
   */
  constructor(page, t, { showNode, time_s }) {
    this.page = page;
    this.t = t;
    this.time_s = time_s;
    this.current = element(page, "p", { "aria-live": "polite" });
    this.clock = element(page, "span", { class: "vsup-muted" });
    this.node = element(page, "button", {
      type: "button",
      hidden: true,
      title: t("showNode"),
      click: () => this.nodeId !== null && showNode?.(this.nodeId),
    });
    this.canShow = showNode !== null;
    /** @type {string | null} */
    this.nodeId = null;
    this.empty = element(page, "p", { class: "vsup-muted", text: t("noJobs") });
    this.body = element(page, "tbody");
    const heads = COLUMNS.map((name) =>
      element(page, "th", { scope: "col", text: t(name), class: headClass(name) }),
    );
    this.table = element(
      page,
      "div",
      { class: "vsup-table", role: "region", tabindex: "0", "aria-label": t("jobs"), hidden: true },
      element(page, "table", {}, element(page, "thead", {}, element(page, "tr", {}, ...heads)), this.body),
    );
    this.element = element(
      page,
      "section",
      { class: "vsup-card", "aria-label": t("jobs") },
      element(page, "div", { class: "vsup-job-line" }, this.current, this.node, this.clock),
      this.empty,
      this.table,
    );
    /** @type {any[] | null} */
    this.shown = null;
  }

  /** @param {import("../lib/model.js").Model["job"]} job */
  showCurrent(job) {
    const { t } = this;
    const id = job ? job.job_id.slice(0, 8) : "";
    // Spoken by screen readers, so touched only when it changes.
    setText(this.current, job ? t("job", { job: id }) : t("noJob"));
    this.nodeId = job?.node_id ?? null;
    this.node.hidden = !this.nodeId || !this.canShow;
    setText(this.node, this.nodeId ? t("node", { node: job?.node_type ?? this.nodeId }) : "");
    const running = job ? Math.max(0, this.time_s() - job.started_s) : null;
    setText(this.clock, running === null ? "" : t("runningFor", { time: formatDuration(running) }));
  }

  /** @param {any[]} jobs newest first; a new array where something changed */
  showTable(jobs) {
    if (jobs === this.shown) return;
    this.shown = jobs;
    this.empty.hidden = jobs.length > 0;
    this.table.hidden = jobs.length === 0;
    this.body.replaceChildren(...jobs.map((record) => this.row(record)));
  }

  /** @param {any} record */
  row(record) {
    const texts = rowOf(record, this.t);
    const cells = COLUMNS.map((name) => {
      const cell = element(this.page, "td", { class: NUMBERS.has(name) ? "vsup-number" : "" });
      if (name === "status") {
        cell.className = "vsup-status";
        cell.dataset.status = record.status;
        cell.title = texts.status;
      }
      cell.textContent = texts[/** @type {keyof typeof texts} */ (name)];
      return cell;
    });
    return element(this.page, "tr", { title: record.job_id }, ...cells);
  }
}
