// Used and total memory in the top bar, once a second.

import { formatBytes, isKnown } from "./lib/format.js";
import { usedBytes } from "./lib/segments.js";
import { addStyle } from "./panel/style.js";

/** From these shares of the total on the badge turns amber and red. */
export const HIGH = 0.85;
export const FULL = 0.95;
/** Where to put it: the first that is there. From newer to older frontends. */
const PLACES = [".actionbar-container", ".comfyui-menu-right", ".comfyui-menu"];

/** While the server does not answer, nobody knows. */
const UNKNOWN = { used_bytes: null, total_bytes: null };

/**
 * @param {number | null} used
 * @param {number | null} total
 * @returns {"normal" | "high" | "full" | "unknown"}
 */
export function levelOf(used, total) {
  if (!isKnown(used) || !isKnown(total) || total <= 0) return "unknown";
  const share = used / total;
  if (share >= FULL) return "full";
  return share >= HIGH ? "high" : "normal";
}

/**
 * The first device that is not the CPU, else the CPU.
 * @param {any} report
 * @returns {string | null}
 */
export function mainDevice(report) {
  const keys = Object.keys(report?.telemetry ?? {});
  return keys.find((key) => key !== "cpu") ?? keys[0] ?? null;
}

export class Badge {
  /**
   * @param {{page: Document, hub: import("./lib/live.js").Hub,
   *   t: import("./lib/texts.js").Translate, open: () => void}} world
   */
  constructor({ page, hub, t, open }) {
    this.page = page;
    this.hub = hub;
    this.t = t;
    this.open = open;
    /** @type {HTMLButtonElement | null} */
    this.button = null;
    /** @type {(() => void) | null} */
    this.leave = null;
    /** @type {string | null} */
    this.device = null;
  }

  /** @param {boolean} wanted */
  set(wanted) {
    if (wanted && !this.button) this.show();
    if (!wanted) this.hide();
  }

  show() {
    addStyle(this.page);
    this.button = this.page.createElement("button");
    this.button.type = "button";
    this.button.className = "vsup-badge";
    this.button.addEventListener("click", this.open);
    this.place();
    this.leave = this.hub.subscribe({
      rate: "slow",
      onSnapshot: (report) => {
        this.device = mainDevice(report);
        if (this.device) this.paint(report.telemetry[this.device].reading);
      },
      onTelemetry: (sample) => sample.device === this.device && this.paint(sample.reading),
      onConnection: (state) => state === "reconnecting" && this.paint(UNKNOWN),
    });
  }

  /** The bar comes after the extensions, and the frontend may make it anew. */
  place() {
    if (this.button === null || this.button.isConnected) return;
    const bar = PLACES.map((selector) => this.page.querySelector(selector)).find(Boolean);
    bar?.prepend(this.button);
  }

  hide() {
    this.leave?.();
    this.leave = null;
    this.button?.remove();
    this.button = null;
  }

  /** @param {any} reading */
  paint(reading) {
    if (!this.button) return;
    this.place();
    const [used, total] = [usedBytes(reading), reading.total_bytes];
    const level = levelOf(used, total);
    const text = level === "unknown" ? this.t("title") : short(used, total);
    if (this.button.textContent !== text) this.button.textContent = text;
    this.button.dataset.level = level;
    const words =
      level === "unknown"
        ? this.t("badgeUnknown")
        : this.t("badge", { used: formatBytes(used), total: formatBytes(total) });
    if (this.button.title !== words) {
      this.button.title = words;
      this.button.setAttribute("aria-label", words);
    }
  }
}

/**
 * `6.2 / 11.6 GiB`
 * @param {number | null} used
 * @param {number | null} total
 */
function short(used, total) {
  const [all, unit] = formatBytes(total).split(" ");
  const [part, partUnit] = formatBytes(used).split(" ");
  return unit === partUnit ? `${part} / ${all} ${unit}` : `${part} ${partUnit} / ${all} ${unit}`;
}
