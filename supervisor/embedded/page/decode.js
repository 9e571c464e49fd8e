// The decode form, its tile map filling up, and the result.

import { formatBytes, formatDeviation, formatDuration, formatPercent } from "./web/lib/format.js";

/**
 * @typedef {object} Tile pixels, and decoded frames from `t0` up to but not including `t1`
 * @property {number} x
 * @property {number} y
 * @property {number} w
 * @property {number} h
 * @property {number} t0
 * @property {number} t1
 * @property {number} [share_done] 0 to 1
 * @property {boolean} done
 */

const DECODE_URL = "iamccs/embedded/decode";
const PREVIEW_URL = "iamccs/embedded/preview.png";
const POLL_MS = 300;
const SVG = "http://www.w3.org/2000/svg";

const KIND_TEXTS = {
  whole: "in one piece",
  evict: "in one piece, after freeing memory",
  tiled: "in tiles",
  streamed: "in tiles, streamed through time",
  cpu: "on the CPU",
};

export class DecodeView {
  /**
   * @param {Document} page
   * @param {{onResults: (results: any[]) => void}} handlers
   */
  constructor(page, handlers) {
    this.page = page;
    this.handlers = handlers;
    this.awake = true;
    this.timer = null;
    this.busy = false;
    this.previewOf = null;
    this.mapOf = "";
    this.form = /** @type {HTMLFormElement} */ (this.find("decode-form"));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
  }

  /** @param {boolean} awake a hidden page does not ask */
  setAwake(awake) {
    this.awake = awake;
    if (!awake) {
      clearTimeout(this.timer);
      this.timer = null;
    }
  }

  /** Ask where the decode stands, and go on asking while one runs. */
  async refresh() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!this.awake) return;
    let running = this.busy;
    try {
      const response = await fetch(DECODE_URL, { cache: "no-store" });
      if (response.ok) {
        const state = await response.json();
        this.show(state);
        running = state.state === "running";
      }
    } catch (error) {
      // The stream notices a lost server too, and its return asks here again.
      console.warn("The decode's state could not be read.", error);
      return;
    }
    if (running && this.awake && this.timer === null) {
      this.timer = setTimeout(() => this.refresh(), POLL_MS);
    }
  }

  async start() {
    if (this.busy) return;
    this.showProblem(null, null);
    this.setBusy(true);
    try {
      const response = await fetch(DECODE_URL, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(this.wish()),
      });
      if (!response.ok) {
        const { error } = await response.json();
        this.showProblem(error.field, error.message);
        this.setBusy(false);
      }
    } catch (error) {
      console.warn("The decode could not be started.", error);
      this.showProblem(null, "The server does not answer. Nothing was started; try again.");
      this.setBusy(false);
      return;
    }
    this.refresh();
  }

  /** Numbers where they are numbers; the server names the field of anything else. */
  wish() {
    const value = (/** @type {string} */ name) => {
      const text = /** @type {HTMLInputElement} */ (this.form.elements.namedItem(name)).value
        .trim()
        .replace(",", ".");
      if (text === "") return null;
      return Number.isFinite(Number(text)) ? Number(text) : text;
    };
    return {
      width: value("width"),
      height: value("height"),
      frames: value("frames"),
      budget_gib: value("budget_gib"),
    };
  }

  /** @param {any} state */
  show(state) {
    this.handlers.onResults(state.results ?? []);
    this.setBusy(state.state === "running");
    this.find("decode-view").hidden = state.state === "idle";
    if (state.state === "idle") return;
    const progress = state.state === "done" ? 1 : (state.progress ?? 0);
    this.find("decode-progress").value = progress;
    this.find("decode-percent").textContent = formatPercent(progress * 100);
    this.showMap(state.tiles ?? []);
    this.showFacts(state);
    this.showPreview(state);
    if (state.state === "error") this.showProblem(null, state.error);
  }

  /**
   * Tiles at their place, each filling from below as its frames are decoded.
   * @param {Tile[]} tiles
   */
  showMap(tiles) {
    const map = this.find("tile-map");
    map.toggleAttribute("hidden", tiles.length === 0);
    const places = byPlace(tiles);
    const layout = JSON.stringify([...places.keys()]);
    if (layout !== this.mapOf) {
      this.mapOf = layout;
      drawMap(map, places);
    }
    [...places.values()].forEach(({ y, h, share }, index) => {
      const filled = map.querySelectorAll(".tile-done")[index];
      filled.setAttribute("y", String(y + h * (1 - share)));
      filled.setAttribute("height", String(h * share));
    });
    const done = tiles.filter((tile) => tile.done).length;
    const text = tiles.length === 0 ? "Planning" : `${done} of ${tiles.length} ${tiles.length === 1 ? "tile" : "tiles"} decoded`;
    this.find("tile-caption").textContent = text;
    map.setAttribute("aria-label", `Tile map: ${text}`);
  }

  /** @param {any} state */
  showFacts(state) {
    const facts = [
      ["Predicted peak", formatBytes(state.predicted_peak_bytes)],
      ["Measured peak", formatBytes(state.measured_peak_bytes)],
      ["Off by", formatDeviation(state.measured_peak_bytes, state.predicted_peak_bytes)],
      ["Took", formatDuration(state.seconds)],
    ];
    this.find("decode-facts").replaceChildren(
      ...facts.map(([name, value]) => {
        const entry = document.createElement("div");
        const term = document.createElement("dt");
        const data = document.createElement("dd");
        term.textContent = name;
        data.textContent = value;
        entry.append(term, data);
        return entry;
      }),
    );
    const plan = state.plan;
    this.find("decode-reason").textContent = plan
      ? `Plan: ${KIND_TEXTS[plan.kind] ?? plan.kind}. ${plan.reason}`
      : "";
  }

  /**
   * A finished decode shows a frame of the video under the outlines of its tiles.
   * @param {any} state
   */
  showPreview(state) {
    const map = this.find("tile-map");
    if (state.state !== "done") {
      map.classList.remove("with-picture");
      map.querySelector("image")?.remove();
      this.previewOf = null;
      return;
    }
    if (this.previewOf === state.job_id) return;
    this.previewOf = state.job_id;
    const picture = document.createElementNS(SVG, "image");
    picture.setAttribute("width", "100%");
    picture.setAttribute("height", "100%");
    picture.addEventListener("load", () => map.classList.add("with-picture"));
    picture.setAttribute("href", `${PREVIEW_URL}?job=${encodeURIComponent(state.job_id)}`);
    map.prepend(picture);
  }

  /**
   * @param {string | null} field
   * @param {string | null} message
   */
  showProblem(field, message) {
    const line = this.find("form-error");
    line.hidden = message === null;
    line.textContent = message ?? "";
    for (const input of this.form.querySelectorAll("input")) {
      const wrong = input.name === field;
      input.toggleAttribute("aria-invalid", wrong);
      if (wrong) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", "form-error");
        input.focus();
      } else {
        input.removeAttribute("aria-describedby");
      }
    }
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.busy = busy;
    const button = this.find("decode-button");
    button.setAttribute("aria-disabled", String(busy));
    button.textContent = busy ? "Decoding…" : "Start decode";
  }

  /**
   * @param {string} id
   * @returns {any}
   */
  find(id) {
    return this.page.getElementById(id);
  }
}

/**
 * One entry per rectangle, with the share of its frames that is decoded.
 * @param {Tile[]} tiles
 */
function byPlace(tiles) {
  const places = new Map();
  for (const { x, y, w, h, t0, t1, done, share_done } of tiles) {
    const key = [x, y, w, h].join(" ");
    const place = places.get(key) ?? { x, y, w, h, frames: 0, decoded: 0, share: 0 };
    place.frames += t1 - t0;
    place.decoded += (t1 - t0) * (done ? 1 : (share_done ?? 0));
    place.share = place.frames ? place.decoded / place.frames : 0;
    places.set(key, place);
  }
  return places;
}

/**
 * @param {SVGElement} map
 * @param {Map<string, {x: number, y: number, w: number, h: number}>} places
 */
function drawMap(map, places) {
  const all = [...places.values()];
  const width = Math.max(1, ...all.map(({ x, w }) => x + w));
  const height = Math.max(1, ...all.map(({ y, h }) => y + h));
  map.setAttribute("viewBox", `0 0 ${width} ${height}`);
  map.replaceChildren(
    ...all.flatMap(({ x, y, w, h }) => [
      rectangle("tile", x, y, w, h),
      rectangle("tile tile-done", x, y + h, w, 0),
    ]),
  );
}

/**
 * @param {string} className
 * @param {number[]} box
 */
function rectangle(className, ...box) {
  const element = document.createElementNS(SVG, "rect");
  element.setAttribute("class", className);
  ["x", "y", "width", "height"].forEach((name, index) => {
    element.setAttribute(name, String(box[index]));
  });
  return element;
}
