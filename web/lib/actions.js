// What the page asks the server to do.

import { formatBytes } from "./format.js";

/**
 * @typedef {{fetchApi: (path: string, options?: RequestInit) => Promise<Response>}} Api
 * @typedef {import("./texts.js").Translate} Translate
 */

export const PROBE = "/iamccs/hw_probe";
export const CLEANUP = "/iamccs/supervisor/cleanup";
export const SETTINGS = "/iamccs/supervisor/settings";

/**
 * Unload every model and empty the cache; in words, what came of it.
 * @param {Api} api
 * @param {Translate} t
 * @returns {Promise<{done: boolean, text: string}>}
 */
export async function freeMemory(api, t) {
  const answer = await post(api, CLEANUP, { unload_all_models: true, soft_empty_cache: true });
  if (answer === null) return { done: false, text: t("unreachable") };
  if (answer.error) return { done: false, text: t("stays", { reason: answer.error.message }) };
  return { done: true, text: freedText(answer.eviction, t) };
}

/**
 * @param {any} eviction
 * @param {Translate} t
 */
export function freedText(eviction, t) {
  const bytes = eviction?.freed_bytes ?? 0;
  if (bytes <= 0) return t("freedNothing");
  const names = (eviction.left ?? []).map((/** @type {any} */ each) => each.name);
  const models = names.length ? t("freedModels", { names: names.join(", ") }) : "";
  return t("freed", { bytes: formatBytes(bytes), models }).trim();
}

/**
 * The probe's answer for a decode; null where the server does not answer.
 * @param {Api} api
 * @param {Record<string, number | null>} [context] width, height, frames, fps
 * @returns {Promise<any>}
 */
export async function probe(api, context = {}) {
  const known = Object.entries(context).filter(([, value]) => value);
  const query = new URLSearchParams(known.map(([name, value]) => [name, String(value)]));
  return ask(api, `${PROBE}?${query}`, { cache: "no-store" });
}

/**
 * @param {Api} api
 * @returns {Promise<any>}
 */
export async function readSettings(api) {
  return ask(api, SETTINGS, { cache: "no-store" });
}

/**
 * @param {Api} api
 * @param {Record<string, unknown>} changed
 * @returns {Promise<any>} the settings' answer, `{error}`, or null
 */
export async function changeSettings(api, changed) {
  return post(api, SETTINGS, changed);
}

/**
 * @param {Api} api
 * @param {string} path
 * @param {unknown} body
 */
function post(api, path, body) {
  const headers = { "Content-Type": "application/json" };
  return ask(api, path, { method: "POST", headers, body: JSON.stringify(body) });
}

/**
 * The JSON answer, refusals included; null where there is none.
 * @param {Api} api
 * @param {string} path
 * @param {RequestInit} options
 */
async function ask(api, path, options) {
  try {
    const response = await api.fetchApi(path, options);
    const answer = await response.json();
    if (response.ok || answer?.error) return answer;
  } catch (error) {
    console.warn(`[VRAM supervisor] ${path} did not answer.`, error);
  }
  return null;
}
