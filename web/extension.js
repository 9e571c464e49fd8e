// Puts the parts together; main.js hands it to ComfyUI.

import { Badge } from "./badge.js";
import { KEYBINDINGS, MENU, TAB, commandsOf, nodeShower, openPanel } from "./commands.js";
import { PROBE, freeMemory, probe } from "./lib/actions.js";
import { copyText } from "./lib/clipboard.js";
import { createHub } from "./lib/live.js";
import { NODE_TEXTS } from "./lib/node_texts.js";
import { TEXTS, loadTexts, translator } from "./lib/texts.js";
import { toaster } from "./lib/toast.js";
import { NODE_COMMANDS, registerNodes } from "./nodes/register.js";
import { mountPanel } from "./panel/panel.js";
import { BADGE, SettingsBridge } from "./settings.js";

const ICON = "pi pi-chart-line";
const ENGLISH = { ...TEXTS, ...NODE_TEXTS };

/**
 * @param {{app: any, api: any, page: Document}} world the frontend's own objects
 * @returns {any} the extension, but for its name
 */
export function createExtension({ app, api, page }) {
  const texts = { translated: {} };
  /** @type {import("./lib/texts.js").Translate} */
  const t = (key, values) => translator(texts.translated, ENGLISH)(key, values);
  const hub = createHub({ url: api.apiURL(PROBE) });
  const toast = toaster(app);
  const open = () => openPanel(app);
  const free = () => freeMemory(api, t);
  const badge = new Badge({ page, hub, t, open });
  const settings = new SettingsBridge({ app, api, t, toast, onBadge: (on) => badge.set(on) });

  /** @param {HTMLElement} root */
  const mount = (root) =>
    mountPanel(root, { page, hub, t, free, copy: () => copyReport(), showNode: nodeShower(app) });

  async function copyReport() {
    const report = await probe(api);
    if (report === null) return t("unreachable");
    const copied = await copyText(JSON.stringify(report, null, 2), {
      clipboard: globalThis.navigator?.clipboard,
      page,
      title: t("copyReport"),
      closeLabel: t("close"),
    });
    return t(copied ? "copied" : "copyByHand");
  }

  async function freeNow() {
    const { done, text } = await free();
    toast(done ? "success" : "warn", t("freeNow"), text);
  }

  const { commands: nodeCommands, probeAll, ...nodes } = registerNodes({
    app,
    api,
    page,
    hub,
    t,
    toast,
    defaultQuality: () => settings.defaultQuality(),
    create: (type) => /** @type {any} */ (globalThis).LiteGraph?.createNode(type) ?? null,
    ask: (text, value) => askFor(app, text, value),
  });
  return {
    ...nodes,
    commands: [...commandsOf({ t, open, free: freeNow, probeAll }), ...nodeCommands],
    keybindings: KEYBINDINGS,
    menuCommands: [...MENU, { path: ["VRAM"], commands: Object.values(NODE_COMMANDS) }],
    settings: settings.definitions(),
    bottomPanelTabs: [tab(t, mount, "bottom")],
    async setup() {
      const locale = app.extensionManager?.setting?.get?.("Comfy.Locale");
      texts.translated = await loadTexts(api, locale);
      app.extensionManager?.registerSidebarTab?.({ ...tab(t, mount, "side"), icon: ICON });
      badge.set(app.extensionManager?.setting?.get?.(BADGE) ?? true);
      await settings.load();
    },
  };
}

/**
 * A line of text from the user; null where they gave none.
 * @param {any} app
 * @param {string} text
 * @param {string} value
 * @returns {Promise<string | null>}
 */
async function askFor(app, text, value) {
  const dialog = app.extensionManager?.dialog;
  if (typeof dialog?.prompt !== "function") return globalThis.prompt(text, value);
  return dialog.prompt({ title: text, message: text, defaultValue: value });
}

/**
 * @param {import("./lib/texts.js").Translate} t
 * @param {(root: HTMLElement) => () => void} mount
 * @param {"side" | "bottom"} place
 */
function tab(t, mount, place) {
  /** @type {(() => void) | null} */
  let leave = null;
  return {
    id: place === "side" ? TAB : `${TAB}-bottom`,
    title: t("title"),
    tooltip: t("panelLabel"),
    type: "custom",
    /** @param {HTMLElement} root */
    render(root) {
      leave?.();
      leave = mount(root);
    },
    destroy() {
      leave?.();
      leave = null;
    },
  };
}
