// A card per device: figures, a bar of who holds what, and the timeline.

import {
  DASH,
  formatBytes,
  formatPercent,
  formatPower,
  formatTemperature,
  isKnown,
} from "./web/lib/format.js";
import { SEGMENT_LABELS, segments, usedBytes } from "./web/lib/segments.js";
import { Timeline } from "./web/lib/timeline.js";

const COLOR_NAMES = [...Object.keys(SEGMENT_LABELS).map((id) => `seg-${id}`), "grid", "busy"];
const SUMMARY_MS = 10000;
const CALM_DRAW_MS = 1000;

const GAUGES = {
  utilization: ["utilization_percent", formatPercent],
  temperature: ["temperature_c", formatTemperature],
  power: ["power_w", formatPower],
};

export class DevicesView {
  /**
   * @param {HTMLElement} root
   * @param {boolean} calm draw once a second instead of at every sample
   */
  constructor(root, calm) {
    this.root = root;
    this.calm = calm;
    /** @type {Map<string, DeviceCard>} */
    this.cards = new Map();
    const redraw = () => this.cards.forEach((card) => card.requestDraw());
    globalThis.addEventListener("resize", redraw);
    globalThis.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      colors.forget();
      redraw();
    });
  }

  /** @param {Record<string, any>} telemetry per device key: info and latest sample */
  setSnapshot(telemetry) {
    for (const [key, entry] of Object.entries(telemetry)) {
      if (!this.cards.has(key)) this.add(key);
      this.cards.get(key).describe(entry.info);
      this.cards.get(key).show(entry.reading);
    }
    for (const [key, card] of this.cards) {
      if (key in telemetry) continue;
      card.element.remove();
      this.cards.delete(key);
    }
  }

  /** @param {any} sample */
  push(sample) {
    this.cards.get(sample.device)?.push(sample);
  }

  /** @param {string} key */
  add(key) {
    const card = new DeviceCard(this.calm);
    this.cards.set(key, card);
    this.root.append(card.element);
  }
}

class DeviceCard {
  /** @param {boolean} calm */
  constructor(calm) {
    const template = /** @type {HTMLTemplateElement} */ (
      document.getElementById("device-template")
    );
    const content = /** @type {DocumentFragment} */ (template.content.cloneNode(true));
    this.element = content.querySelector(".device");
    this.canvas = this.element.querySelector("canvas");
    this.timeline = new Timeline(this.canvas, { colors: () => colors.read() });
    this.calm = calm;
    this.drawAt = 0;
    this.summaryAt = 0;
    this.drawing = false;
    /** @type {Map<string, {part: HTMLElement, row: HTMLElement, value: HTMLElement}>} */
    this.parts = new Map();
  }

  /** @param {any} info */
  describe(info) {
    this.name = info.name ?? (info.kind === "cpu" ? "System memory" : info.key);
    this.find(".device-name").textContent = this.name;
    this.find(".device-key").textContent = info.unified ? `${info.key} · unified` : info.key;
    this.element.dataset.device = info.key;
  }

  /** @param {any} sample */
  push(sample) {
    this.timeline.push(sample);
    this.show(sample.reading);
    const now = performance.now();
    if (this.calm && now < this.drawAt) return;
    this.drawAt = now + CALM_DRAW_MS;
    this.requestDraw();
  }

  /** @param {any} reading */
  show(reading) {
    this.find(".headline-value").textContent = formatBytes(usedBytes(reading));
    this.find(".headline-total").textContent = isKnown(reading.total_bytes)
      ? `of ${formatBytes(reading.total_bytes)} in use`
      : "in use, total unknown";
    for (const [name, [field, format]] of Object.entries(GAUGES)) {
      this.gauge(name, format(reading[field]), reading.error);
    }
    this.showParts(segments(reading), reading.total_bytes);
    const notice = this.find(".device-error");
    notice.hidden = reading.error === null;
    notice.textContent = reading.error ?? "";
    this.summarise(reading);
  }

  /**
   * @param {string} name
   * @param {string} text
   * @param {string | null} error
   */
  gauge(name, text, error) {
    const value = this.find(`[data-gauge="${name}"]`);
    if (value.textContent === text) return;
    const unknown = text === DASH;
    value.textContent = text;
    value.classList.toggle("unknown", unknown);
    if (unknown) {
      value.title = error ?? "This device does not tell";
      value.setAttribute("aria-label", "unknown");
    } else {
      value.removeAttribute("title");
      value.removeAttribute("aria-label");
    }
  }

  /**
   * @param {{id: string, bytes: number}[]} shown
   * @param {number | null} total
   */
  showParts(shown, total) {
    const ids = new Set(shown.map(({ id }) => id));
    for (const [id, { part, row }] of this.parts) {
      part.hidden = row.hidden = !ids.has(id);
    }
    for (const { id, bytes } of shown) {
      const { part, value } = this.parts.get(id) ?? this.addPart(id);
      const share = isKnown(total) && total > 0 ? bytes / total : 0;
      part.style.width = id === "free" ? "0" : `${(share * 100).toFixed(2)}%`;
      value.textContent = formatBytes(bytes);
    }
  }

  /** @param {string} id */
  addPart(id) {
    const part = document.createElement("span");
    part.dataset.segment = id;
    const row = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.dataset.segment = id;
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = SEGMENT_LABELS[id];
    const value = document.createElement("span");
    value.className = "value";
    row.append(swatch, name, value);
    const added = { part, row, value };
    this.parts.set(id, added);
    // Stacked in the order of the labels, whichever part became known first.
    for (const known of Object.keys(SEGMENT_LABELS)) {
      const existing = this.parts.get(known);
      if (!existing) continue;
      this.find(".bar").append(existing.part);
      this.find(".legend").append(existing.row);
    }
    return added;
  }

  /** What the picture shows, in words, for those who do not see it; calm enough to be read. */
  summarise(reading) {
    const now = performance.now();
    if (now < this.summaryAt) return;
    this.summaryAt = now + SUMMARY_MS;
    const parts = segments(reading).map(({ id, bytes }) => `${SEGMENT_LABELS[id]} ${formatBytes(bytes)}`);
    this.canvas.setAttribute(
      "aria-label",
      `Memory of ${this.name} over the last minute. Now: ${parts.join(", ") || "unknown"}.`,
    );
  }

  requestDraw() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.timeline.draw();
      const top = this.timeline.topBytes();
      this.find(".chart-top").textContent = top === null ? "" : formatBytes(top);
    });
  }

  /**
   * @param {string} selector
   * @returns {any}
   */
  find(selector) {
    return this.element.querySelector(selector);
  }
}

/** The theme's colours, read from the style sheet once per theme. */
const colors = {
  /** @type {Record<string, string> | null} */
  cached: null,
  read() {
    if (this.cached) return this.cached;
    const style = getComputedStyle(document.documentElement);
    const entries = COLOR_NAMES.map((name) => [
      name.replace("seg-", ""),
      style.getPropertyValue(`--${name}`).trim(),
    ]);
    this.cached = Object.fromEntries(entries);
    return this.cached;
  },
  forget() {
    this.cached = null;
  },
};
