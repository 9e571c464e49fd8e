// The buttons and the summary line of one node: elements that both renderers can draw.

import { element, setAttribute, setText } from "../panel/dom.js";
import { APPLY_MODES } from "./apply.js";
import { contextText, summaryText } from "./summary.js";

const STYLE_ID = "vsup-node-style";
const CSS = `
.vsup-node { display: flex; flex-direction: column; gap: 4px; padding: 2px 0; font: 11px/1.35 system-ui, sans-serif; color: var(--input-text, #ddd); box-sizing: border-box; }
.vsup-node-row { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; }
.vsup-node button, .vsup-node select { font: inherit; color: inherit; background: var(--component-node-widget-background, var(--comfy-input-bg, #222)); border: 1px solid color-mix(in srgb, var(--border-color, #4e4e4e) 60%, transparent); border-radius: 5px; padding: 3px 7px; cursor: pointer; min-width: 0; }
.vsup-node button { flex: 1 1 auto; font-weight: 600; }
.vsup-node button:hover { border-color: var(--p-primary-color, #5b9bff); }
.vsup-node button[aria-disabled="true"] { opacity: .6; cursor: default; }
.vsup-node label { display: inline-flex; align-items: center; gap: 4px; white-space: nowrap; }
.vsup-node :focus-visible { outline: 2px solid var(--p-primary-color, #5b9bff); outline-offset: 1px; }
.vsup-node-line { min-height: 1.35em; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--descrip-text, #aaa); }
`;

export class NodeControls {
  /**
   * @param {Document} page
   * @param {import("../lib/texts.js").Translate} t
   * @param {{probe: () => Promise<string>, copy: () => Promise<string>,
   *   changed: (state: {apply_mode?: string, preset_sync?: boolean}) => void}} actions
   * @param {{buttons: boolean, applies: boolean, profiles: boolean}} has which parts it has
   */
  constructor(page, t, actions, has) {
    this.page = page;
    this.t = t;
    this.actions = actions;
    addStyle(page);
    this.line = element(page, "div", { class: "vsup-node-line" });
    this.probe = element(page, "button", { type: "button", text: t("probeApply"), click: () => this.runProbe() });
    this.copy = element(page, "button", { type: "button", text: t("copyHw"), click: () => this.runCopy() });
    const options = APPLY_MODES.map((mode) =>
      element(page, "option", { value: mode, text: t(mode === "overwrite" ? "overwrite" : "fillMissing") }),
    );
    this.mode = element(
      page,
      "select",
      {
        "aria-label": t("applyMode"),
        title: t("applyMode"),
        change: () => actions.changed({ apply_mode: this.mode.value }),
      },
      ...options,
    );
    this.sync = element(page, "input", {
      type: "checkbox",
      change: () => actions.changed({ preset_sync: this.sync.checked }),
    });
    const syncLabel = element(page, "label", {}, this.sync, page.createTextNode(t("presetSync")));
    this.buttons = element(page, "div", { class: "vsup-node-row", hidden: !has.buttons }, this.probe, this.copy);
    this.options = element(
      page,
      "div",
      { class: "vsup-node-row" },
      ...(has.applies ? [this.mode] : []),
      ...(has.profiles ? [syncLabel] : []),
    );
    const rows = has.applies || has.profiles ? [this.buttons, this.options] : [this.buttons];
    this.element = element(page, "div", { class: "vsup-node" }, this.line, ...rows);
    /** Pixels the widget needs: a line, and a row each. */
    this.height = 22 + (has.buttons ? 30 : 0) + (rows.length > 1 ? 30 : 0);
    this.said = "";
  }

  /** @param {{apply_mode: string, preset_sync: boolean}} state */
  setState({ apply_mode, preset_sync }) {
    this.mode.value = apply_mode;
    this.sync.checked = preset_sync;
  }

  /** @param {import("./summary.js").Known} known */
  show(known) {
    const text = summaryText(known, this.t);
    setText(this.line, text);
    const title = [text, contextText(known.context, this.t), this.said].filter(Boolean).join("\n");
    setAttribute(this.line, "title", title);
  }

  async runProbe() {
    if (this.probe.getAttribute("aria-disabled") === "true") return;
    this.probe.setAttribute("aria-disabled", "true");
    setText(this.probe, this.t("probing"));
    this.said = await this.actions.probe();
    this.probe.removeAttribute("aria-disabled");
    setText(this.probe, this.t("probeApply"));
    setAttribute(this.probe, "title", this.said);
  }

  async runCopy() {
    this.said = await this.actions.copy();
    setAttribute(this.copy, "title", this.said);
  }
}

/** @param {Document} page */
function addStyle(page) {
  if (page.getElementById(STYLE_ID)) return;
  const style = page.createElement("style");
  style.id = STYLE_ID;
  style.textContent = CSS;
  page.head.append(style);
}
