// What lies over the timeline: levels as lines, and the peaks of nodes.

import { formatBytes } from "../lib/format.js";
import { element, setAttribute } from "./dom.js";

/**
 * @typedef {import("../lib/timeline.js").View} View
 * @typedef {{share: number | null, color: string, dashed: boolean}} Level share of the total
 */

/**
 * Where a level lies, in pixels from the top; null outside of what is shown.
 * @param {number | null} share
 * @param {View} view
 */
export function levelY(share, view) {
  if (share === null) return null;
  const y = view.height * (1 - share / view.zoom);
  return y < 0 || y > view.height ? null : y;
}

/**
 * @param {CanvasRenderingContext2D | null} context
 * @param {View} view
 * @param {Level[]} levels
 */
export function drawLevels(context, view, levels) {
  if (!context) return;
  for (const { share, color, dashed } of levels) {
    const y = levelY(share, view);
    if (y === null) continue;
    context.save();
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.setLineDash(dashed ? [6, 4] : []);
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(view.width, y);
    context.stroke();
    context.restore();
  }
}

/**
 * Where a marker lies; null when it has left the window.
 * @param {import("../lib/model.js").Marker} marker
 * @param {View} view
 * @param {number} total bytes
 * @returns {[number, number] | null}
 */
export function markPlace(marker, view, total) {
  const x = view.width * (1 - (view.now_s - marker.time_s) / view.window_s);
  if (x < 0 || x > view.width) return null;
  const y = levelY(Math.min(marker.bytes / total, view.zoom), view);
  return y === null ? null : [x, y];
}

/**
 * Whether two lists hold the very same markers. Their number does not tell: it is bounded.
 * @param {import("../lib/model.js").Marker[]} one
 * @param {import("../lib/model.js").Marker[]} other
 */
export function sameMarkers(one, other) {
  return one.length === other.length && one.every((marker, index) => marker === other[index]);
}

/**
 * Marks are elements, so that they can be pointed at and reached by keyboard.
 * @param {Document} page
 * @param {HTMLElement} root
 * @param {View} view
 * @param {number} total
 * @param {import("../lib/model.js").Marker[]} markers
 * @param {import("../lib/texts.js").Translate} t
 */
export function placeMarks(page, root, view, total, markers, t) {
  const shown = markers.flatMap((marker) => {
    const place = markPlace(marker, view, total);
    return place ? [{ marker, place }] : [];
  });
  while (root.children.length > shown.length) root.lastElementChild?.remove();
  shown.forEach(({ marker, place: [x, y] }, index) => {
    const mark = /** @type {HTMLElement} */ (root.children[index] ?? add(page, root));
    mark.style.left = `${x.toFixed(1)}px`;
    mark.style.top = `${y.toFixed(1)}px`;
    const words = t("marker", { name: marker.name, bytes: formatBytes(marker.bytes) });
    setAttribute(mark, "aria-label", words);
    // The name opens towards the middle, where there is room for it.
    setAttribute(mark, "data-side", x > view.width / 2 ? "left" : "right");
  });
}

/**
 * @param {Document} page
 * @param {HTMLElement} root
 */
function add(page, root) {
  const mark = element(page, "button", { type: "button", class: "vsup-mark" });
  root.append(mark);
  return mark;
}
