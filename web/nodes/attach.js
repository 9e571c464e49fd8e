// Gives a node its controls, keeps its choices in the workflow, and lets go when it is removed.

import { probe as askProbe } from "../lib/actions.js";
import { copyText } from "../lib/clipboard.js";
import { mainDevice } from "../badge.js";
import { plansByItself, presetValues, valuesFor } from "./apply.js";
import { contextOf } from "./context.js";
import { NodeControls } from "./controls.js";
import { FACES } from "./faces.js";
import { PlanWatch } from "./replan.js";
import { planWords } from "./summary.js";
import { serverId } from "./walk.js";

/** Where a node's choices are kept in the workflow. */
export const PROPERTY = "vram_supervisor";
const WIDGET = "vram_supervisor_controls";
const LOOK_EVERY_S = 1;
/** Buttons of the public pack's script have these names. */
const FOREIGN = ["Probe HW & Apply", "Copy HW report"];

/**
 * @typedef {object} NodeWorld
 * @property {any} app
 * @property {any} api
 * @property {Document} page
 * @property {import("../lib/live.js").Hub} hub
 * @property {import("../lib/texts.js").Translate} t
 * @property {ReturnType<typeof import("../lib/toast.js").toaster>} toast
 * @property {Set<{node: any, release: () => void}>} listening those that are in a graph
 */

/**
 * The choices of a node, with what holds where nothing was chosen.
 * @param {any} node
 */
export function stateOf(node) {
  const kept = node.properties?.[PROPERTY] ?? {};
  return {
    apply_mode: kept.apply_mode === "fill_missing" ? "fill_missing" : "overwrite",
    preset_sync: kept.preset_sync !== false,
    context: kept.context ?? {},
  };
}

/**
 * @param {any} node
 * @param {Record<string, unknown>} changed
 */
export function keep(node, changed) {
  node.properties ??= {};
  node.properties[PROPERTY] = { ...node.properties[PROPERTY], ...changed };
}

/**
 * @param {any} node
 * @param {NodeWorld} world
 * @returns {Attached | null} null for nodes without a face of ours
 */
export function attach(node, world) {
  const type = node.comfyClass ?? node.type;
  if (!FACES[type] || typeof node.addDOMWidget !== "function") return null;
  if (node.widgets?.some((/** @type {any} */ { name }) => name === WIDGET)) return null;
  return new Attached(node, type, world);
}

/**
 * The frontend shows as many decimals as a step has digits: 1.25 would read 1.3.
 * @param {any} node
 */
export function showQuarters(node) {
  for (const { name, options } of node.widgets ?? []) {
    if (options && name.endsWith("_gb")) options.precision = 2;
  }
}

/**
 * Do something more whenever the frontend calls this method of the node.
 * @param {any} node
 * @param {"onAdded" | "onRemoved" | "onConfigure"} name
 * @param {() => void} run
 */
function after(node, name, run) {
  const before = node[name];
  node[name] = (/** @type {any[]} */ ...given) => {
    const result = before?.apply(node, given);
    run();
    return result;
  };
}

class Attached {
  /**
   * @param {any} node
   * @param {string} type
   * @param {NodeWorld} world
   */
  constructor(node, type, world) {
    this.node = node;
    this.type = type;
    this.world = world;
    /** @type {import("./summary.js").Known} */
    this.known = { report: null, reading: null, decode: null, context: null };
    const foreign = (node.widgets ?? []).some((/** @type {any} */ { name, label }) =>
      FOREIGN.includes(label ?? name),
    );
    this.plans = foreign ? null : new PlanWatch((size) => askProbe(world.api, size));
    this.looked_s = Number.NEGATIVE_INFINITY;
    this.defaults = Object.fromEntries(
      (node.widgets ?? []).map((/** @type {any} */ { name, value }) => [name, value]),
    );
    this.profile = node.widgets?.find((/** @type {any} */ { name }) => name === "profile") ?? null;
    this.controls = new NodeControls(
      world.page,
      world.t,
      {
        probe: () => this.probe(),
        copy: () => this.copy(),
        changed: (change) => keep(node, change),
      },
      {
        buttons: !foreign,
        applies: FACES[type].advice !== null && !foreign,
        profiles: this.profile !== null && !foreign,
      },
    );
    showQuarters(node);
    this.addWidget();
    this.followProfile();
    this.restore();
    /** @type {(() => void) | null} */
    this.leave = null;
    this.followGraph();
  }

  addWidget() {
    const { element, height } = this.controls;
    const options = {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => height,
      getMaxHeight: () => height,
      getValue: () => "",
      setValue: () => {},
    };
    const widget = this.node.addDOMWidget(WIDGET, "vram-supervisor", element, options);
    // Both: the one is asked for workflows, the other for prompts.
    widget.serialize = false;
    widget.computeLayoutSize ??= () => ({ minHeight: height, maxHeight: height, minWidth: 0 });
  }

  /** What was chosen is known once the workflow's values are in. */
  restore() {
    this.controls.setState(stateOf(this.node));
    this.look();
  }

  /** A profile picked by hand fills the widgets it is about. */
  followProfile() {
    const { profile } = this;
    if (!profile) return;
    const before = profile.callback;
    profile.callback = (/** @type {any[]} */ ...given) => {
      const result = before?.apply(profile, given);
      if (stateOf(this.node).preset_sync) this.fillFrom(String(profile.value));
      return result;
    };
  }

  /** @param {string} name of a profile */
  fillFrom(name) {
    const report = this.known.report ?? this.world.hub.report();
    const values = presetValues(this.node.widgets, report, name);
    this.set(values);
  }

  /** A copy for the clipboard is in no graph, and nobody says when it is thrown away. */
  followGraph() {
    const { node } = this;
    after(node, "onAdded", () => this.listen());
    after(node, "onRemoved", () => this.release());
    // Also what is pasted comes with its choices.
    after(node, "onConfigure", () => this.controls.setState(stateOf(node)));
    if (node.graph) this.listen();
  }

  listen() {
    this.world.listening.add(this);
    this.leave ??= this.world.hub.subscribe({
      rate: "slow",
      onSnapshot: (report) => this.takeSnapshot(report),
      onTelemetry: (sample) => this.takeSample(sample),
      onDecode: (progress) => this.takeDecode(progress),
      onConnection: (state) => state === "reconnecting" && this.forget(),
    });
  }

  /** While the server does not answer, what is free is not known. */
  forget() {
    this.known.reading = null;
    this.show();
  }

  release() {
    this.world.listening.delete(this);
    this.leave?.();
    this.leave = null;
  }

  /** Read the size from the graph again. */
  look() {
    const { app } = this.world;
    const root = app.rootGraph ?? app.graph;
    if (!this.node.graph || !root) return;
    this.known.context = contextOf(this.node, root, stateOf(this.node).context);
  }

  /** @returns {Promise<string>} in words, what came of it */
  async probe() {
    const { api, t, toast } = this.world;
    this.look();
    const report = await askProbe(api, this.known.context?.size ?? {});
    if (report === null || report.error) {
      const reason = report?.error?.message;
      const text = reason ? t("refused", { reason }) : t("probeUnreachable");
      toast("error", t("probeApply"), text);
      return text;
    }
    this.known.report = report;
    const text = this.apply(report);
    this.show();
    toast("info", t("probeApply"), text);
    return text;
  }

  /** @param {any} report */
  apply(report) {
    const { t } = this.world;
    const { node, type } = this;
    const how = { mode: stateOf(node).apply_mode, defaults: this.defaults };
    const values = valuesFor(type, node.widgets, report.recommendations, /** @type {any} */ (how));
    const names = Object.keys(values);
    this.set(values);
    if (names.length > 0) return t("applied", { widgets: names.join(", ") });
    if (report.plan && (plansByItself(type, node.widgets) || !FACES[type].advice)) {
      return t("planned", { plan: planWords(report.plan) });
    }
    return t("nothingApplied");
  }

  /** @param {Record<string, unknown>} values by widget */
  set(values) {
    for (const widget of this.node.widgets ?? []) {
      if (!(widget.name in values)) continue;
      widget.value = values[widget.name];
      // The profile's own callback would fill everything once more.
      if (widget !== this.profile) widget.callback?.(widget.value);
    }
    this.node.setDirtyCanvas?.(true, true);
  }

  async copy() {
    const { api, page, t, toast } = this.world;
    this.look();
    const report = await askProbe(api, this.known.context?.size ?? {});
    if (report === null) {
      toast("error", t("copyHw"), t("probeUnreachable"));
      return t("probeUnreachable");
    }
    const copied = await copyText(JSON.stringify(report, null, 2), {
      clipboard: globalThis.navigator?.clipboard,
      page,
      title: t("copyHw"),
      closeLabel: t("close"),
    });
    if (copied) toast("success", t("copyHw"), t("copied"));
    return t(copied ? "copied" : "copyByHand");
  }

  /** @param {any} report */
  takeSnapshot(report) {
    this.device = mainDevice(report);
    this.known.reading = this.device ? report.telemetry[this.device].reading : null;
    if (report.decode) this.takeDecode(report.decode);
    this.show();
  }

  /** @param {any} sample */
  takeSample(sample) {
    if (sample.device !== this.device) return;
    this.known.reading = sample.reading;
    this.show();
    this.replan(sample.time_s);
  }

  /**
   * Keep the plan in the line what it would be now; no widget changes.
   * @param {number} time_s
   */
  async replan(time_s) {
    if (this.plans === null || time_s - this.looked_s < LOOK_EVERY_S) return;
    this.looked_s = time_s;
    this.look();
    const size = this.known.context?.size ?? {};
    const report = await this.plans.consider(size, this.known.reading?.free_bytes, time_s);
    if (report === null) return;
    this.known.report = report;
    this.show();
  }

  /** @param {any} progress */
  takeDecode(progress) {
    const { app } = this.world;
    if (progress.node_id !== serverId(this.node, app.rootGraph ?? app.graph)) return;
    this.known.decode = progress;
    this.show();
  }

  show() {
    this.controls.show(this.known);
  }
}
