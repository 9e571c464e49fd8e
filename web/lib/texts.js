// Every text of the panel, in English; translations come from the pack's locales.

export const PREFIX = "vramSupervisor";

/** @type {Record<string, string>} */
export const TEXTS = {
  title: "VRAM",
  panelLabel: "VRAM supervisor",
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  polling: "Polling every 2 seconds",
  paused: "Paused",
  closed: "Not connected",
  systemMemory: "System memory",
  of: "of {total} in use",
  ofUnknown: "in use, total unknown",
  torch: "ComfyUI, torch",
  outside: "ComfyUI, outside torch",
  process: "ComfyUI",
  external: "Other programs",
  unattributed: "Used, owner unknown",
  free: "Free",
  reserve: "Reserve",
  predicted: "Predicted peak",
  chart: "Memory of {device} over the last two minutes. Now: {parts}.",
  marker: "{name}: peak {bytes}",
  others: "Other programs on {device}",
  unnamed: "Process {pid}",
  noJob: "No job is running",
  job: "Job {job}",
  node: "Node {node}",
  showNode: "Show this node in the graph",
  runningFor: "for {time}",
  decode: "Decode",
  encode: "Encode",
  decodeOf: "{width} x {height} px, {frames} frames",
  parts: "{done} of {steps} parts",
  map: "Finished part of the pictures: {percent}",
  outcomeRunning: "Running",
  outcomeDone: "Done",
  outcomeFailed: "Failed",
  outcomeInterrupted: "Interrupted",
  measured: "measured {bytes}",
  expected: "expected {bytes}",
  jobs: "Last jobs",
  noJobs: "No job has finished yet. Queue a workflow and its peaks appear here.",
  when: "When",
  duration: "Took",
  status: "Status",
  peak: "Peak",
  decodePredicted: "Decode, predicted",
  decodeMeasured: "Measured",
  statusSuccess: "Done",
  statusError: "Failed",
  statusInterrupted: "Interrupted",
  freeNow: "Free memory now",
  freeing: "Freeing…",
  freed: "Freed {bytes}. {models}",
  freedNothing: "Nothing had to leave: the cache was emptied.",
  freedModels: "Unloaded: {names}.",
  stays: "Stays as it is: {reason}",
  unreachable: "The server does not answer; nothing was changed. Try again when it is back.",
  copyReport: "Copy report",
  copied: "The report is on the clipboard.",
  copyByHand: "The browser refused the clipboard. Select the text and copy it.",
  close: "Close",
  pause: "Pause",
  goOn: "Go on",
  badge: "VRAM {used} of {total} in use. Open the VRAM panel",
  badgeUnknown: "VRAM use unknown. Open the VRAM panel",
  settingRate: "Sampling rate while a job runs (Hz)",
  settingRateTip: "How often the card is read while a job runs or the panel is open.",
  settingBadge: "Show VRAM use in the top bar",
  settingBadgeTip: "Turns amber, then red, as the card fills up. A click opens the VRAM panel.",
  settingHistory: "Keep finished jobs for (days)",
  settingHistoryTip: "Older jobs are deleted from the history file in ComfyUI's user folder.",
  settingQuality: "Quality of new decode nodes",
  settingQualityTip: "Holds for decode nodes that are added from now on, and for ComfyUI's own while they are protected.",
  settingProtect: "Safe decodes in ComfyUI's own VAE Decode nodes",
  settingProtectTip: "VAE Decode and VAE Decode (Tiled) then decode as VAE Decode Tiled (safe) does. Samplers and other nodes stay as they are.",
  settingRefused: "The setting stays as it was: {reason}",
  commandPanel: "VRAM: show the panel",
  commandFree: "VRAM: free memory now",
  commandProbe: "VRAM: probe hardware and apply to all nodes",
};

/**
 * @callback Translate
 * @param {string} key
 * @param {Record<string, string | number>} [values] for the places in braces
 * @returns {string}
 */

/**
 * @param {Record<string, any>} [translated] texts of the reader's language, by key
 * @param {Record<string, string>} [english]
 * @returns {Translate}
 */
export function translator(translated = {}, english = TEXTS) {
  return (key, values = {}) => {
    const found = translated[key];
    const text = typeof found === "string" ? found : (english[key] ?? key);
    return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
  };
}

/**
 * The pack's texts in the frontend's language; English where there are none.
 * @param {{fetchApi: (path: string) => Promise<Response>}} api
 * @param {string | undefined} locale such as "it"
 * @returns {Promise<Record<string, any>>}
 */
export async function loadTexts(api, locale) {
  if (!locale || locale === "en") return {};
  try {
    const response = await api.fetchApi("/i18n");
    if (!response.ok) return {};
    const all = await response.json();
    return all?.[locale]?.[PREFIX] ?? {};
  } catch (error) {
    console.warn("[VRAM supervisor] Translations could not be read; texts are in English.", error);
    return {};
  }
}
