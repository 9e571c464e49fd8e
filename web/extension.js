// Puts the parts together; main.js hands it to ComfyUI.

import { Badge } from "./badge.js";
import { KEYBINDINGS, MENU, TAB, commandsOf, nodeShower, openPanel } from "./commands.js";
import { PROBE, freeMemory, probe } from "./lib/actions.js";
import { copyText } from "./lib/clipboard.js";
import { createHub } from "./lib/live.js";
import { loadTexts, translator } from "./lib/texts.js";
import { toaster } from "./lib/toast.js";
import { mountPanel } from "./panel/panel.js";
import { BADGE, SettingsBridge } from "./settings.js";

const ICON = "pi pi-chart-line";

/**
 * @param {{app: any, api: any, page: Document}} world the frontend's own objects
 * @returns {any} the extension, but for its name
 */
export function createExtension({ app, api, page }) {
  const texts = { translated: {} };
  /** @type {import("./lib/texts.js").Translate} */
  const t = (key, values) => translator(texts.translated)(key, values);
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

  const commands = commandsOf({ t, open, free: freeNow, probeAll: () => {} });
  return {
    commands,
    keybindings: KEYBINDINGS,
    menuCommands: MENU,
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
