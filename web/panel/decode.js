// The decode that runs, or ran last: its plan, and a small map that fills up.

import { formatBytes, formatDuration, isKnown } from "../lib/format.js";
import { element, setAttribute, setText } from "./dom.js";

const MAP_WIDTH = 320;
const OUTCOMES = {
  running: "outcomeRunning",
  done: "outcomeDone",
  failed: "outcomeFailed",
  interrupted: "outcomeInterrupted",
};

/**
 * How much of the pictures is final, over space and time: 0 to 1.
 * @param {any} decode
 */
export function coverage(decode) {
  const { width, height, frames, finished } = decode;
  if (!width || !height || !frames) return null;
  const area = finished.reduce(
    (/** @type {number} */ sum, /** @type {number[]} */ [, count, left, top, right, bottom]) =>
      sum + count * (right - left) * (bottom - top),
    0,
  );
  return Math.min(1, area / (width * height * frames));
}

/**
 * Of a video that is being made, which frames became final last: `9–16 / 33`; else how many.
 * @param {any} decode
 * @returns {string}
 */
export function framesText({ frames, finished, outcome }) {
  const last = finished.at(-1);
  if (outcome !== "running" || !last || !(frames > 1)) return String(frames);
  const [first, count] = last;
  const range = count > 1 ? `${first + 1}–${first + count}` : String(first + 1);
  return `${range} / ${frames}`;
}

export class DecodeView {
  /**
   * @param {Document} page
   * @param {import("../lib/texts.js").Translate} t
   */
  constructor(page, t) {
    this.page = page;
    this.t = t;
    this.number = null;
    this.painted = 0;
    this.title = element(page, "h3");
    this.outcome = element(page, "span");
    this.size = element(page, "p", { class: "vsup-muted" });
    this.canvas = element(page, "canvas", { class: "vsup-map", role: "img", hidden: true });
    this.progress = element(page, "progress", { max: 1, value: 0 });
    this.line = element(page, "p");
    this.plan = element(page, "p", { class: "vsup-muted" });
    this.retries = element(page, "ul", { class: "vsup-muted" });
    this.element = element(
      page,
      "section",
      { class: "vsup-card", hidden: true },
      element(page, "div", { class: "vsup-card-head" }, this.title, this.outcome),
      this.size,
      this.canvas,
      this.progress,
      this.line,
      this.plan,
      this.retries,
    );
  }

  /** @param {any | null} decode */
  show(decode) {
    this.element.hidden = decode === null;
    if (decode === null) return;
    const { t } = this;
    const name = t(decode.what === "encode" ? "encode" : "decode");
    setText(this.title, decode.family ? `${name}: ${decode.family}` : name);
    setAttribute(this.element, "aria-label", name);
    setText(this.outcome, t(OUTCOMES[/** @type {keyof OUTCOMES} */ (decode.outcome)] ?? "closed"));
    const { width, height } = decode;
    const size = { width, height, frames: framesText(decode) };
    setText(this.size, isKnown(width) ? t("decodeOf", size) : "");
    this.showProgress(decode);
    setText(this.line, this.figures(decode));
    setText(this.plan, decode.plan ?? "");
    this.showRetries(decode.retries);
    this.paint(decode);
  }

  /** @param {any} decode */
  showProgress({ done, steps, outcome }) {
    this.progress.hidden = outcome !== "running";
    if (steps) this.progress.value = Math.min(1, done / steps);
    else this.progress.removeAttribute("value");
    setAttribute(this.progress, "aria-label", this.t("parts", { done, steps: steps ?? "?" }));
  }

  /** @param {any} decode */
  figures(decode) {
    const { t } = this;
    const parts = decode.steps ? t("parts", { done: decode.done, steps: decode.steps }) : "";
    const expected = t("expected", { bytes: formatBytes(decode.predicted_bytes) });
    const measured = isKnown(decode.measured_bytes)
      ? t("measured", { bytes: formatBytes(decode.measured_bytes) })
      : "";
    const seconds = isKnown(decode.seconds) ? formatDuration(decode.seconds) : "";
    return [parts, expected, measured, seconds].filter(Boolean).join(" · ");
  }

  /** @param {string[]} lines the newest few */
  showRetries(lines) {
    const shown = lines.slice(-4);
    const before = [...this.retries.children].map((each) => each.textContent);
    if (shown.join("\n") === before.join("\n")) return;
    this.retries.replaceChildren(...shown.map((text) => element(this.page, "li", { text })));
  }

  /**
   * Paint what is new of the map; frames shade it, so that a video fills up too.
   * @param {any} decode
   */
  paint(decode) {
    const { width, height, frames, finished } = decode;
    this.canvas.hidden = !width || !height || finished.length === 0;
    if (this.canvas.hidden) return;
    const context = this.canvas.getContext("2d");
    const scale = MAP_WIDTH / width;
    if (this.number !== decode.number || this.painted > finished.length) {
      this.canvas.width = MAP_WIDTH;
      this.canvas.height = Math.max(8, Math.round(height * scale));
      this.number = decode.number;
      this.painted = 0;
    }
    if (!context || this.painted === finished.length) return;
    const style = globalThis.getComputedStyle(this.element);
    context.fillStyle = style.getPropertyValue("--vsup-busy").trim() || "#2bb58c";
    for (const [, count, left, top, right, bottom] of finished.slice(this.painted)) {
      context.globalAlpha = Math.min(1, count / frames);
      context.fillRect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
      context.globalAlpha = 0.35;
      context.strokeRect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
    }
    this.painted = finished.length;
    const percent = `${Math.round(100 * (coverage(decode) ?? 0))} %`;
    setAttribute(this.canvas, "aria-label", this.t("map", { percent }));
  }
}
