// The pack's settings in ComfyUI's own dialogue. The server keeps them; the dialogue shows them.

import { changeSettings, readSettings } from "./lib/actions.js";

const PREFIX = "VramSupervisor";
export const BADGE = `${PREFIX}.Badge`;
const CATEGORY = "VRAM supervisor";

/** The server's settings, by the frontend's id, in the order of the dialogue. */
export const SERVER_SETTINGS = [
  { id: `${PREFIX}.DefaultQuality`, field: "default_quality", text: "settingQuality" },
  { id: `${PREFIX}.ProtectVaeDecode`, field: "protect_vae_decode", text: "settingProtect" },
  { id: `${PREFIX}.SamplingRate`, field: "sampling_rate_hz", text: "settingRate" },
  { id: `${PREFIX}.HistoryDays`, field: "history_days", text: "settingHistory" },
];

/** What the dialogue shows until the server has answered. */
const SHAPES = {
  default_quality: {
    type: "combo",
    defaultValue: "exact",
    options: ["exact", "balanced", "fast"],
  },
  protect_vae_decode: { type: "boolean", defaultValue: false },
  sampling_rate_hz: { type: "slider", defaultValue: 10, attrs: { min: 1, max: 20, step: 1 } },
  history_days: { type: "slider", defaultValue: 30, attrs: { min: 1, max: 365, step: 1 } },
};

export class SettingsBridge {
  /**
   * @param {{app: any, api: import("./lib/actions.js").Api, t: import("./lib/texts.js").Translate,
   *   toast: ReturnType<typeof import("./lib/toast.js").toaster>,
   *   onBadge: (wanted: boolean) => void}} world
   */
  constructor({ app, api, t, toast, onBadge }) {
    this.app = app;
    this.api = api;
    this.t = t;
    this.toast = toast;
    this.onBadge = onBadge;
    /** What the server said last; null before it answered. @type {Record<string, any> | null} */
    this.server = null;
    /** What it was told since, answered or not. @type {Record<string, any>} */
    this.wanted = {};
    /** One change after the other, so that the last one holds. @type {Promise<void>} */
    this.sent = Promise.resolve();
  }

  /** For the extension's `settings`. */
  definitions() {
    const badge = {
      id: BADGE,
      name: this.t("settingBadge"),
      tooltip: this.t("settingBadgeTip"),
      category: [CATEGORY, "Display", "Badge"],
      type: "boolean",
      defaultValue: true,
      onChange: (/** @type {boolean} */ wanted) => this.onBadge(wanted),
    };
    const others = SERVER_SETTINGS.map(({ id, field, text }) => ({
      id,
      name: this.t(text),
      tooltip: this.t(`${text}Tip`),
      category: [CATEGORY, "Server", id.split(".")[1]],
      ...SHAPES[/** @type {keyof typeof SHAPES} */ (field)],
      onChange: (/** @type {unknown} */ value) => this.changed(field, value),
    }));
    return [badge, ...others];
  }

  /** What holds on the server is what the dialogue shows, whatever it remembered. */
  async load() {
    const answer = await readSettings(this.api);
    if (!answer || answer.error) return;
    this.server = answer.settings;
    await this.showAll();
  }

  /** The quality of new nodes; null while it is not known. @returns {string | null} */
  defaultQuality() {
    return this.server?.default_quality ?? null;
  }

  /**
   * The frontend also calls this for values that it read or was just given.
   * @param {string} field
   * @param {unknown} value
   */
  async changed(field, value) {
    if (this.server === null || { ...this.server, ...this.wanted }[field] === value) return;
    this.wanted[field] = value;
    this.sent = this.sent.then(() => this.send(field, value));
    await this.sent;
  }

  /**
   * @param {string} field
   * @param {unknown} value
   */
  async send(field, value) {
    const answer = await changeSettings(this.api, { [field]: value });
    if (this.wanted[field] === value) delete this.wanted[field];
    if (answer && !answer.error) {
      this.server = answer.settings;
      if (answer.problem) this.toast("warn", this.t("panelLabel"), answer.problem);
      return;
    }
    const reason = answer ? answer.error.message : this.t("unreachable");
    this.toast("error", this.t("panelLabel"), this.t("settingRefused", { reason }));
    await this.showAll();
  }

  async showAll() {
    const set = this.app.extensionManager?.setting?.set;
    if (typeof set !== "function" || this.server === null) return;
    for (const { id, field } of SERVER_SETTINGS) {
      if (field in this.wanted) continue;
      await set.call(this.app.extensionManager.setting, id, this.server[field]);
    }
  }
}
