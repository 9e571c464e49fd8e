// The live panel: everything the supervisor knows, for a sidebar or a wide bottom panel.

import {
  applyDecode,
  applyJob,
  applySample,
  applySnapshot,
  createModel,
  predictedLevel,
  reserveLevel,
} from "../lib/model.js";
import { DecodeView } from "./decode.js";
import { DeviceView } from "./device.js";
import { element, setText } from "./dom.js";
import { JobsView } from "./jobs.js";
import { addStyle } from "./style.js";

const CLOCK_MS = 1000;

/**
 * @typedef {object} PanelWorld
 * @property {Document} page
 * @property {import("../lib/live.js").Hub} hub
 * @property {import("../lib/texts.js").Translate} t
 * @property {() => Promise<{done: boolean, text: string}>} free frees memory, in words
 * @property {() => Promise<string>} copy copies the report, in words
 * @property {((id: string) => void) | null} showNode selects a node in the graph, where that works
 */

/**
 * Fill `root` with a panel that lives until what is returned is called.
 * @param {HTMLElement} root
 * @param {PanelWorld} world
 * @returns {() => void}
 */
export function mountPanel(root, world) {
  const panel = new Panel(root, world);
  panel.start();
  return () => panel.stop();
}

class Panel {
  /**
   * @param {HTMLElement} root
   * @param {PanelWorld} world
   */
  constructor(root, world) {
    this.root = root;
    this.world = world;
    this.model = createModel();
    /** @type {Map<string, DeviceView>} */
    this.devices = new Map();
    /** @type {(() => void) | null} */
    this.leave = null;
    const { page, t } = world;
    addStyle(page);
    this.connection = element(page, "span", { class: "vsup-connection", role: "status" });
    this.message = element(page, "p", { class: "vsup-message", role: "status", hidden: true });
    this.warning = element(page, "p", { class: "vsup-message", "data-kind": "warn", role: "alert", hidden: true });
    this.freeButton = element(page, "button", { type: "button", text: t("freeNow"), click: () => this.free() });
    this.copyButton = element(page, "button", { type: "button", text: t("copyReport"), click: () => this.copy() });
    this.pauseButton = element(page, "button", { type: "button", text: t("pause"), click: () => this.toggle() });
    this.jobs = new JobsView(page, t, {
      showNode: this.world.showNode,
      time_s: () => Date.now() / 1000,
    });
    this.decode = new DecodeView(page, t);
    this.grid = element(page, "div", { class: "vsup-grid" }, this.jobs.element, this.decode.element);
    this.element = element(
      page,
      "div",
      { class: "vsup", role: "region", "aria-label": t("panelLabel") },
      element(
        page,
        "div",
        { class: "vsup-head" },
        this.connection,
        this.freeButton,
        this.copyButton,
        this.pauseButton,
      ),
      this.warning,
      this.message,
      this.grid,
    );
    root.classList.add("vsup-root");
    root.replaceChildren(this.element);
  }

  start() {
    const { hub } = this.world;
    this.leave = hub.subscribe({
      rate: "live",
      onSnapshot: (report) => this.take(() => applySnapshot(this.model, report)),
      onTelemetry: (sample) => this.hear(sample),
      onJob: (change) => this.take(() => applyJob(this.model, change)),
      onDecode: (progress) => this.take(() => applyDecode(this.model, progress)),
      onProcess: (state) => this.take(() => (this.model.process = state)),
      onConnection: (state) => this.showConnection(state),
    });
    this.clock = globalThis.setInterval(() => this.jobs.showCurrent(this.model.job), CLOCK_MS);
    setText(this.pauseButton, this.world.t("pause"));
  }

  stop() {
    this.leave?.();
    this.leave = null;
    globalThis.clearInterval(this.clock);
  }

  /** Pause means no request at all; going on catches up. */
  toggle() {
    if (this.leave) {
      this.stop();
      this.showConnection("paused");
      setText(this.pauseButton, this.world.t("goOn"));
    } else this.start();
  }

  /** @param {() => void} change */
  take(change) {
    change();
    this.show();
  }

  /** @param {any} sample */
  hear(sample) {
    applySample(this.model, sample);
    this.devices.get(sample.device)?.push(sample);
  }

  show() {
    const { model } = this;
    this.showDevices();
    this.jobs.showCurrent(model.job);
    this.jobs.showTable(model.jobs);
    this.decode.show(model.decode);
    const warnings = model.process?.warnings ?? [];
    this.warning.hidden = warnings.length === 0;
    setText(this.warning, warnings.join(" "));
  }

  showDevices() {
    for (const [key, { info, reading }] of this.model.devices) {
      const view = this.devices.get(key) ?? this.addDevice(key, info);
      view.overlay(
        {
          reserve: reserveLevel(this.model, key),
          predicted: predictedLevel(this.model, key),
        },
        this.model.markers.filter(({ device }) => device === key),
      );
      view.show(reading);
    }
    for (const [key, view] of this.devices) {
      if (this.model.devices.has(key)) continue;
      view.element.remove();
      this.devices.delete(key);
    }
  }

  /**
   * @param {string} key
   * @param {any} info
   */
  addDevice(key, info) {
    const view = new DeviceView(this.world.page, this.world.t, {
      now: () => performance.now(),
      frame: (run) => globalThis.requestAnimationFrame(run),
    });
    view.describe(info);
    this.devices.set(key, view);
    this.grid.insertBefore(view.element, this.jobs.element);
    return view;
  }

  /** @param {import("../lib/stream.js").StreamState} state */
  showConnection(state) {
    this.connection.dataset.state = state;
    setText(this.connection, this.world.t(state));
  }

  async free() {
    if (this.freeButton.getAttribute("aria-disabled") === "true") return;
    this.freeButton.setAttribute("aria-disabled", "true");
    setText(this.freeButton, this.world.t("freeing"));
    const { done, text } = await this.world.free();
    this.freeButton.removeAttribute("aria-disabled");
    setText(this.freeButton, this.world.t("freeNow"));
    this.say(text, done ? "info" : "warn");
  }

  async copy() {
    this.say(await this.world.copy(), "info");
  }

  /**
   * @param {string} text
   * @param {"info" | "warn"} kind
   */
  say(text, kind) {
    this.message.dataset.kind = kind;
    this.message.hidden = false;
    setText(this.message, text);
  }
}
