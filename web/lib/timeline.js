// A stacked live timeline on a canvas. The geometry is pure; the class only paints it.

import { isKnown } from "./format.js";
import { SEGMENT_LABELS, segments } from "./segments.js";

/**
 * @typedef {import("./segments.js").Reading} Reading
 * @typedef {import("./segments.js").SegmentId} SegmentId
 * @typedef {{time_s: number, job_id: string | null, reading: Reading}} Sample
 * @typedef {{time_s: number, busy: boolean, total: number, tops: Map<SegmentId, number>}} Point
 *   `tops` holds each part's upper edge as a share of the total, 0 to 1
 * @typedef {{id: SegmentId, outline: [number, number][]}} Area pixels, clockwise
 * @typedef {{width: number, height: number, now_s: number, window_s: number, zoom: number}} View
 */

/** Samples come at least once a second; a longer silence is a gap, not a line. */
export const GAP_S = 3;
const MAX_POINTS = 4096;
/** Shares of the total that the chart's height may stand for. */
const ZOOMS = [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16];
/** Room kept above the highest point when zooming in, as a factor of it. */
const HEADROOM = 1.25;

/** @type {SegmentId[]} */
const ORDER = /** @type {SegmentId[]} */ (Object.keys(SEGMENT_LABELS)).filter(
  (id) => id !== "free",
);

/**
 * @param {Sample} sample
 * @returns {Point | null} null where the device's total is unknown
 */
export function toPoint(sample) {
  const total = sample.reading.total_bytes;
  if (!isKnown(total) || total <= 0) return null;
  const held = new Map(segments(sample.reading).map(({ id, bytes }) => [id, bytes]));
  const tops = new Map();
  let edge = 0;
  for (const id of ORDER) {
    edge += (held.get(id) ?? 0) / total;
    tops.set(id, Math.min(1, edge));
  }
  return { time_s: sample.time_s, busy: sample.job_id !== null, total, tops };
}

/**
 * Cut points into runs without gaps.
 * @param {Point[]} points
 * @returns {Point[][]}
 */
export function runs(points) {
  /** @type {Point[][]} */
  const found = [];
  for (const point of points) {
    const run = found.at(-1);
    const last = run?.at(-1);
    if (run && last && point.time_s - last.time_s <= GAP_S) run.push(point);
    else found.push([point]);
  }
  return found;
}

/**
 * The share of the total that fills the chart: all of it, or the smallest power-of-two part
 * that leaves room above what is shown, so that a small job shows on a large device.
 * @param {Point[]} points
 * @returns {number}
 */
export function zoom(points) {
  const top = ORDER[ORDER.length - 1];
  const highest = Math.max(0, ...points.map(({ tops }) => tops.get(top) ?? 0));
  return ZOOMS.findLast((share) => share >= highest * HEADROOM) ?? 1;
}

/**
 * The areas of one run, bottom up. x grows with time, the newest moment at `width`.
 * @param {Point[]} run
 * @param {{width: number, height: number, now_s: number, window_s: number, zoom?: number}} view
 *   `zoom` is the share of the total at the top edge
 * @returns {Area[]}
 */
export function areas(run, view) {
  const x = (/** @type {Point} */ point) =>
    view.width * (1 - (view.now_s - point.time_s) / view.window_s);
  const y = (/** @type {number} */ share) => view.height * (1 - share / (view.zoom ?? 1));
  return ORDER.map((id, index) => {
    const below = ORDER[index - 1];
    const upper = run.map((point) => [x(point), y(point.tops.get(id) ?? 0)]);
    const lower = run.map((point) => [x(point), y(below ? (point.tops.get(below) ?? 0) : 0)]);
    return { id, outline: /** @type {[number, number][]} */ ([...upper, ...lower.reverse()]) };
  });
}

export class Timeline {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {{windowSeconds?: number, colors: () => Record<string, string>}} options
   *   `colors` gives a CSS colour per segment id, `grid` and `busy`; asked at every drawing,
   *   so that a change of theme shows at once
   */
  constructor(canvas, { windowSeconds = 60, colors }) {
    this.canvas = canvas;
    this.windowSeconds = windowSeconds;
    this.colors = colors;
    /** @type {Point[]} */
    this.points = [];
  }

  /**
   * Remember a sample; one that is a little older than the last is a repeat and ignored, one
   * that is much older means the clock was set back: the line starts anew.
   * @param {Sample} sample
   */
  push(sample) {
    const point = toPoint(sample);
    const last = this.points.at(-1);
    if (!point) return;
    if (last && point.time_s <= last.time_s) {
      if (last.time_s - point.time_s < this.windowSeconds) return;
      this.points = [];
    }
    this.points.push(point);
    // One point before the window stays, so that the line enters from the left edge.
    const start = point.time_s - this.windowSeconds;
    const firstInside = this.points.findIndex(({ time_s }) => time_s >= start);
    this.points.splice(0, Math.max(firstInside - 1, this.points.length - MAX_POINTS, 0));
  }

  /** Bytes that the chart's top edge stands for; null before the first sample. */
  topBytes() {
    const last = this.points.at(-1);
    return last ? last.total * zoom(this.points) : null;
  }

  /**
   * Paint; `now_s` defaults to the newest sample, so a stopped stream stands still.
   * @returns {View | null} how it was painted, for what is drawn over it
   */
  draw(now_s = this.points.at(-1)?.time_s ?? 0) {
    const context = this.canvas.getContext("2d");
    if (!context) return null;
    const { width, height } = this.fit(context);
    const colors = this.colors();
    context.clearRect(0, 0, width, height);
    drawGrid(context, width, height, colors.grid);
    const view = { width, height, now_s, window_s: this.windowSeconds, zoom: zoom(this.points) };
    for (const run of runs(this.points)) {
      for (const { id, outline } of areas(run, view)) fill(context, outline, colors[id]);
      drawBusy(context, run, view, colors.busy);
    }
    return view;
  }

  /**
   * Give the canvas as many pixels as the screen has under it.
   * @param {CanvasRenderingContext2D} context
   */
  fit(context) {
    const scale = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== wide) this.canvas.width = wide;
    if (this.canvas.height !== high) this.canvas.height = high;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    return { width, height };
  }
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number][]} outline
 * @param {string} color
 */
function fill(context, outline, color) {
  context.beginPath();
  for (const [x, y] of outline) context.lineTo(x, y);
  context.closePath();
  context.fillStyle = color;
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} width
 * @param {number} height
 * @param {string} color
 */
function drawGrid(context, width, height, color) {
  context.fillStyle = color;
  for (const share of [0.25, 0.5, 0.75]) {
    context.fillRect(0, Math.round(height * share), width, 1);
  }
}

/**
 * A thin strip along the top where a job was running.
 * @param {CanvasRenderingContext2D} context
 * @param {Point[]} run
 * @param {{width: number, now_s: number, window_s: number}} view
 * @param {string} color
 */
function drawBusy(context, run, view, color) {
  context.fillStyle = color;
  for (let index = 1; index < run.length; index += 1) {
    if (!run[index].busy) continue;
    const [from, to] = [run[index - 1], run[index]].map(
      ({ time_s }) => view.width * (1 - (view.now_s - time_s) / view.window_s),
    );
    context.fillRect(from, 0, to - from + 0.5, 3);
  }
}
