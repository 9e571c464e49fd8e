// Numbers for people. Unknown is null and shown as an en dash, never as 0.

export const DASH = "–";

/** @type {[string, number][]} */
const UNITS = [
  ["TiB", 2 ** 40],
  ["GiB", 2 ** 30],
  ["MiB", 2 ** 20],
  ["KiB", 2 ** 10],
];

/**
 * @param {unknown} value
 * @returns {value is number}
 */
export function isKnown(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/**
 * Bytes in binary units with one decimal: `1536` -> `"1.5 KiB"`.
 * @param {number | null | undefined} bytes
 * @returns {string}
 */
export function formatBytes(bytes) {
  if (!isKnown(bytes)) return DASH;
  for (const [name, size] of UNITS) {
    if (Math.abs(bytes) >= size) return `${(bytes / size).toFixed(1)} ${name}`;
  }
  return `${Math.round(bytes)} B`;
}

/**
 * @param {number | null | undefined} value 0 to 100
 * @returns {string}
 */
export function formatPercent(value) {
  return isKnown(value) ? `${Math.round(value)} %` : DASH;
}

/**
 * @param {number | null | undefined} celsius
 * @returns {string}
 */
export function formatTemperature(celsius) {
  return isKnown(celsius) ? `${Math.round(celsius)} °C` : DASH;
}

/**
 * @param {number | null | undefined} watts
 * @returns {string}
 */
export function formatPower(watts) {
  return isKnown(watts) ? `${Math.round(watts)} W` : DASH;
}

/**
 * `0.42` -> `"0.4 s"`, `75` -> `"1 min 15 s"`, `3700` -> `"1 h 1 min"`.
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function formatDuration(seconds) {
  if (!isKnown(seconds) || seconds < 0) return DASH;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/**
 * Time of day in the reader's own way.
 * @param {number | null | undefined} epochSeconds
 * @param {string} [locale]
 * @returns {string}
 */
export function formatTime(epochSeconds, locale) {
  if (!isKnown(epochSeconds)) return DASH;
  return new Date(epochSeconds * 1000).toLocaleTimeString(locale, {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
}

/**
 * How far a measurement lies from its prediction: `"+3 %"`, `"-1 %"`, `"±0 %"`.
 * @param {number | null | undefined} measured
 * @param {number | null | undefined} predicted
 * @returns {string}
 */
export function formatDeviation(measured, predicted) {
  if (!isKnown(measured) || !isKnown(predicted) || predicted === 0) return DASH;
  const percent = Math.round((measured / predicted - 1) * 100);
  if (percent === 0) return "±0 %";
  return percent > 0 ? `+${percent} %` : `−${-percent} %`;
}
