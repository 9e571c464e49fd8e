// What a probe's answer sets in a node's widgets. Pure.

import { FACES } from "./faces.js";

/**
 * @typedef {"overwrite" | "fill_missing"} ApplyMode
 * @typedef {{name: string, value: any, options?: {values?: any, default?: any}}} Widget
 */

/** @type {ApplyMode[]} */
export const APPLY_MODES = ["overwrite", "fill_missing"];

/**
 * The values to set, by widget name; only those that differ and that the widget takes.
 * @param {string} type node id
 * @param {Widget[]} widgets
 * @param {any} recommendations of the probe
 * @param {{mode: ApplyMode, defaults?: Record<string, unknown>}} how `defaults` of a new node
 * @returns {Record<string, unknown>}
 */
export function valuesFor(type, widgets, recommendations, { mode, defaults = {} }) {
  const face = FACES[type];
  if (!face?.advice || plansByItself(type, widgets)) return {};
  const advice = recommendations?.[face.advice] ?? {};
  return pick(widgets, advice, face.widgets, mode, defaults);
}

/**
 * Whether a node plans when it runs, so that its widgets stay as they are.
 * @param {string} type
 * @param {Widget[]} widgets
 */
export function plansByItself(type, widgets) {
  const planned = FACES[type]?.planned;
  if (!planned) return false;
  return widgets.some(({ name, value }) => name === planned.widget && value === planned.value);
}

/**
 * The values that a profile fills in.
 * @param {Widget[]} widgets
 * @param {any} report the probe's answer
 * @param {string} profile
 * @returns {Record<string, unknown>}
 */
export function presetValues(widgets, report, profile) {
  const preset = report?.presets?.[profile] ?? null;
  const advice = preset ?? (profile === "auto" ? report?.recommendations?.hw_supporter : null);
  if (!advice) return {};
  const names = Object.keys(advice).filter((name) => name !== "profile");
  return pick(widgets, advice, names, "overwrite", {});
}

/**
 * @param {Widget[]} widgets
 * @param {any} advice
 * @param {string[]} names
 * @param {ApplyMode} mode
 * @param {Record<string, unknown>} defaults
 */
function pick(widgets, advice, names, mode, defaults) {
  /** @type {Record<string, unknown>} */
  const found = {};
  for (const widget of widgets) {
    const { name, value } = widget;
    const wanted = advice[name];
    if (!names.includes(name) || wanted === undefined || wanted === null) continue;
    if (wanted === value || !takes(widget, wanted)) continue;
    if (mode === "fill_missing" && !isMissing(value, defaults[name])) continue;
    found[name] = wanted;
  }
  return found;
}

/**
 * A drop-down takes its own entries only.
 * @param {Widget} widget
 * @param {unknown} value
 */
function takes(widget, value) {
  const values = widget.options?.values;
  return !Array.isArray(values) || values.includes(value);
}

/**
 * Nobody has said anything yet: empty, 0, or as a new node has it.
 * @param {unknown} value
 * @param {unknown} initial
 */
function isMissing(value, initial) {
  return value === null || value === undefined || value === "" || value === 0 || value === initial;
}
