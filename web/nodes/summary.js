// The line in a node: what is free, what is planned, what the last run took. Pure.

import { formatBytes, isKnown } from "../lib/format.js";

/**
 * @typedef {object} Known
 * @property {any} report the probe's newest answer for this node, null before the first
 * @property {any} reading of the main device, null before the first sample
 * @property {any} decode of this node: the one that runs, or the last one
 * @property {import("./context.js").Context | null} context
 */

/**
 * @param {Known} known
 * @param {import("../lib/texts.js").Translate} t
 * @returns {string}
 */
export function summaryText({ report, reading, decode }, t) {
  const parts = [];
  if (isKnown(reading?.free_bytes)) parts.push(t("lineFree", { free: formatBytes(reading.free_bytes) }));
  if (decode?.outcome === "running") parts.push(...running(decode, t));
  else {
    const plan = report?.plan;
    if (plan) parts.push(t("linePlan", { plan: planWords(plan) }));
    if (plan?.evict_bytes > 0) parts.push(t("lineEvict", { bytes: formatBytes(plan.evict_bytes) }));
    if (isKnown(plan?.predicted_peak_bytes)) {
      parts.push(t("linePredicted", { bytes: formatBytes(plan.predicted_peak_bytes) }));
    }
    if (isKnown(decode?.measured_bytes)) {
      parts.push(t("lineMeasured", { bytes: formatBytes(decode.measured_bytes) }));
    }
  }
  return parts.join(" · ");
}

/**
 * @param {any} decode
 * @param {import("../lib/texts.js").Translate} t
 */
function running(decode, t) {
  const parts = [];
  if (decode.steps) parts.push(t("lineParts", { done: decode.done, steps: decode.steps }));
  if (isKnown(decode.predicted_bytes)) {
    parts.push(t("linePredicted", { bytes: formatBytes(decode.predicted_bytes) }));
  }
  return parts;
}

/** @param {any} plan */
export function planWords(plan) {
  if (plan.kind !== "tiled" && plan.kind !== "streamed") return plan.kind;
  const size = plan.tile_size ? ` ${plan.tile_size} px` : "";
  return `${plan.kind}${size}`;
}

/**
 * Where the size came from, for the tooltip.
 * @param {import("./context.js").Context | null} context
 * @param {import("../lib/texts.js").Translate} t
 */
export function contextText(context, t) {
  const { width, height, frames } = context?.size ?? {};
  if (!width || !height) return t("contextUnknown");
  const size = frames
    ? t("sizeClip", { width, height, frames })
    : t("sizeStill", { width, height });
  if (context?.override) return t("contextOverride", { size });
  return t("context", { size, source: context?.sources.width ?? "?" });
}
