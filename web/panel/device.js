// A device: what is used, by whom, over the last two minutes.

import { formatBytes, formatPercent, formatTemperature, isKnown } from "../lib/format.js";
import { SEGMENT_LABELS, segments, usedBytes } from "../lib/segments.js";
import { Timeline } from "../lib/timeline.js";
import { element, setAttribute, setText } from "./dom.js";
import { drawLevels, placeMarks, sameMarkers } from "./overlay.js";

export const WINDOW_S = 120;
/** Figures that change ten times a second cannot be read. */
const FIGURES_MS = 1000;
/** A sample moves the picture by a third of a pixel. */
const DRAW_MS = 333;
const SUMMARY_MS = 10000;
const MOST_OTHERS = 5;
const COLORS_MS = 2000;
const COLORS = [...Object.keys(SEGMENT_LABELS), "busy", "reserve", "predicted"];

export class DeviceView {
  /**
   * @param {Document} page
   * @param {import("../lib/texts.js").Translate} t
   * @param {{now: () => number, frame: (run: () => void) => void}} world
   */
  constructor(page, t, world) {
    this.page = page;
    this.t = t;
    this.world = world;
    this.figuresAt = 0;
    this.drawAt = 0;
    this.summaryAt = 0;
    this.drawing = false;
    this.colorsAt = 0;
    /** @type {Record<string, string> | null} */
    this.palette = null;
    /** @type {{reserve: number | null, predicted: number | null}} */
    this.levels = { reserve: null, predicted: null };
    /** @type {import("../lib/model.js").Marker[]} */
    this.markers = [];
    /** @type {Map<string, {row: any, value: any}>} */
    this.parts = new Map();
    this.build();
    this.timeline = new Timeline(this.canvas, {
      windowSeconds: WINDOW_S,
      colors: () => this.colors(),
    });
  }

  build() {
    const make = (/** @type {string} */ tag, /** @type {any} */ attributes, /** @type {any[]} */ ...inner) =>
      element(this.page, tag, attributes, ...inner);
    this.title = make("h3", {});
    this.gauges = make("span", {});
    this.used = make("strong", {});
    this.total = make("span", {});
    this.canvas = make("canvas", { role: "img" });
    this.top = make("span", { class: "vsup-chart-top", "aria-hidden": "true" });
    this.marks = make("div", { class: "vsup-marks" });
    this.legend = make("ul", { class: "vsup-legend" });
    this.error = make("p", { class: "vsup-message", "data-kind": "warn", hidden: true });
    this.othersList = make("ul", {});
    this.othersTitle = make("summary", {});
    this.others = make("details", { class: "vsup-others", hidden: true }, this.othersTitle, this.othersList);
    this.element = make(
      "section",
      { class: "vsup-card" },
      make("div", { class: "vsup-card-head" }, this.title, this.gauges),
      make("p", { class: "vsup-headline" }, this.used, this.total),
      make("div", { class: "vsup-chart" }, this.canvas, this.top, this.marks),
      this.legend,
      this.others,
      this.error,
    );
  }

  /** @param {any} info */
  describe(info) {
    this.name = info.name ?? (info.kind === "cpu" ? this.t("systemMemory") : info.key);
    if (info.kind === "cpu") this.name = this.t("systemMemory");
    setText(this.title, this.name);
    setAttribute(this.title, "title", `${this.name} (${info.key})`);
    setAttribute(this.element, "aria-label", this.name);
    this.key = info.key;
  }

  /** @param {any} sample */
  push(sample) {
    this.timeline.push(sample);
    this.show(sample.reading);
    const now = this.world.now();
    if (now < this.drawAt) return;
    this.drawAt = now + DRAW_MS;
    this.requestDraw();
  }

  /**
   * @param {any} reading
   * @param {{force?: boolean}} [options]
   */
  show(reading, { force = false } = {}) {
    const now = this.world.now();
    if (!force && now < this.figuresAt) return;
    this.figuresAt = now + FIGURES_MS;
    setText(this.used, formatBytes(usedBytes(reading)));
    const total = formatBytes(reading.total_bytes);
    setText(this.total, isKnown(reading.total_bytes) ? this.t("of", { total }) : this.t("ofUnknown"));
    const gauges = [
      isKnown(reading.utilization_percent) ? formatPercent(reading.utilization_percent) : "",
      isKnown(reading.temperature_c) ? formatTemperature(reading.temperature_c) : "",
    ];
    setText(this.gauges, gauges.filter(Boolean).join(" · "));
    this.showParts(segments(reading), reading.total_bytes);
    this.showOthers(reading.processes ?? []);
    this.error.hidden = reading.error === null || reading.error === undefined;
    setText(this.error, reading.error ?? "");
    this.summarise(reading, now);
  }

  /**
   * @param {{id: string, bytes: number}[]} shown
   * @param {number | null} total
   */
  showParts(shown, total) {
    const figures = new Map(shown.map(({ id, bytes }) => [id, bytes]));
    const { reserve, predicted } = this.levels;
    // The line lies where the reserve begins; the figure says how much that leaves free.
    if (reserve !== null && isKnown(total)) figures.set("reserve", total - reserve);
    if (predicted !== null) figures.set("predicted", predicted);
    for (const [id, { row }] of this.parts) row.hidden = !figures.has(id);
    for (const [id, bytes] of figures) {
      const { value } = this.parts.get(id) ?? this.addPart(id);
      setText(value, formatBytes(bytes));
    }
  }

  /** @param {string} id */
  addPart(id) {
    const value = element(this.page, "b");
    const row = element(
      this.page,
      "li",
      {},
      element(this.page, "span", { class: "vsup-swatch", "data-part": id, "aria-hidden": "true" }),
      element(this.page, "span", { text: this.t(id) }),
      value,
    );
    this.parts.set(id, { row, value });
    // In the order of stacking, whichever became known first.
    for (const known of [...Object.keys(SEGMENT_LABELS), "reserve", "predicted"]) {
      const part = this.parts.get(known);
      if (part) this.legend.append(part.row);
    }
    return { row, value };
  }

  /** @param {{pid: number, name: string | null, used_bytes: number | null}[]} processes */
  showOthers(processes) {
    const known = processes.filter(({ used_bytes }) => isKnown(used_bytes));
    const largest = known.sort((one, other) => (other.used_bytes ?? 0) - (one.used_bytes ?? 0));
    this.others.hidden = largest.length === 0;
    setText(this.othersTitle, this.t("others", { device: this.name ?? "" }));
    const rows = largest.slice(0, MOST_OTHERS);
    while (this.othersList.children.length > rows.length) this.othersList.lastChild.remove();
    rows.forEach(({ pid, name, used_bytes }, index) => {
      const row = this.othersList.children[index] ?? this.addOther();
      setText(row.children[0], name ?? this.t("unnamed", { pid }));
      setText(row.children[1], formatBytes(used_bytes));
    });
  }

  addOther() {
    const row = element(this.page, "li", {}, element(this.page, "span"), element(this.page, "span"));
    this.othersList.append(row);
    return row;
  }

  /**
   * What the picture shows, in words, calm enough to be read out.
   * @param {any} reading
   * @param {number} now
   */
  summarise(reading, now) {
    if (now < this.summaryAt) return;
    this.summaryAt = now + SUMMARY_MS;
    const parts = segments(reading).map(({ id, bytes }) => `${this.t(id)} ${formatBytes(bytes)}`);
    const text = this.t("chart", { device: this.name ?? "", parts: parts.join(", ") });
    setAttribute(this.canvas, "aria-label", text);
  }

  /**
   * @param {{reserve: number | null, predicted: number | null}} levels bytes from the bottom
   * @param {import("../lib/model.js").Marker[]} markers
   */
  overlay(levels, markers) {
    const same =
      levels.reserve === this.levels.reserve &&
      levels.predicted === this.levels.predicted &&
      sameMarkers(markers, this.markers);
    if (same) return;
    this.levels = levels;
    this.markers = markers;
    this.requestDraw();
  }

  requestDraw() {
    if (this.drawing) return;
    this.drawing = true;
    this.world.frame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  draw() {
    const view = this.timeline.draw();
    const total = this.timeline.points.at(-1)?.total;
    const top = this.timeline.topBytes();
    setText(this.top, top === null ? "" : formatBytes(top));
    if (!view || !total) return;
    const colors = this.colors();
    drawLevels(this.canvas.getContext("2d"), view, [
      { share: share(this.levels.reserve, total), color: colors.reserve, dashed: false },
      { share: share(this.levels.predicted, total), color: colors.predicted, dashed: true },
    ]);
    placeMarks(this.page, this.marks, view, total, this.markers, this.t);
  }

  /** The theme's colours; read seldom, for that makes the browser lay out the page. */
  colors() {
    const now = this.world.now();
    if (!this.palette || now >= this.colorsAt) {
      this.palette = this.readColors();
      this.colorsAt = now + COLORS_MS;
    }
    return this.palette;
  }

  /** @returns {Record<string, string>} */
  readColors() {
    const style = globalThis.getComputedStyle(this.element);
    const read = (/** @type {string} */ name) => style.getPropertyValue(`--vsup-${name}`).trim();
    const found = Object.fromEntries(COLORS.map((name) => [name, read(name)]));
    return { ...found, grid: "rgb(128 128 128 / 22%)" };
  }
}

/**
 * @param {number | null} bytes
 * @param {number} total
 */
function share(bytes, total) {
  return bytes === null ? null : bytes / total;
}
