// Commands, their keys, and where they are in the menu.

export const TAB = "vram-supervisor";
export const COMMANDS = {
  panel: "VramSupervisor.ShowPanel",
  free: "VramSupervisor.FreeMemory",
  probe: "VramSupervisor.ProbeAll",
};

/**
 * @param {{t: import("./lib/texts.js").Translate, open: () => void, free: () => void,
 *   probeAll: () => void}} world
 */
export function commandsOf({ t, open, free, probeAll }) {
  return [
    { id: COMMANDS.panel, icon: "pi pi-chart-line", label: t("commandPanel"), function: open },
    { id: COMMANDS.free, icon: "pi pi-eraser", label: t("commandFree"), function: free },
    { id: COMMANDS.probe, icon: "pi pi-bolt", label: t("commandProbe"), function: probeAll },
  ];
}

export const KEYBINDINGS = [
  { combo: { key: "v", alt: true, shift: true }, commandId: COMMANDS.panel },
  { combo: { key: "f", alt: true, shift: true }, commandId: COMMANDS.free },
  { combo: { key: "p", alt: true, shift: true }, commandId: COMMANDS.probe },
];

export const MENU = [{ path: ["VRAM"], commands: Object.values(COMMANDS) }];

/**
 * Show the panel in the sidebar, in whatever way this frontend has.
 * @param {any} app
 */
export function openPanel(app) {
  const manager = app.extensionManager;
  const tabs = manager?.sidebarTab;
  if (tabs?.activeSidebarTabId === TAB) return;
  if (typeof tabs?.toggleSidebarTab === "function") tabs.toggleSidebarTab(TAB);
  else manager?.command?.execute?.(`Workspace.ToggleSidebarTab.${TAB}`);
}

/**
 * Select a node and bring it into view; null where this frontend has no graph to do it in.
 * @param {any} app
 * @returns {((id: string) => void) | null}
 */
export function nodeShower(app) {
  if (typeof app.canvas?.centerOnNode !== "function") return null;
  return (id) => {
    // Nodes inside subgraphs are called 1:2:3; their outermost one is what can be shown.
    const node = app.rootGraph?.getNodeById?.(id) ?? app.graph?.getNodeById?.(id.split(":")[0]);
    if (!node) return;
    // The editor may be inside a subgraph.
    if (node.graph && node.graph !== app.canvas.graph) app.canvas.setGraph?.(node.graph);
    app.canvas.selectNode?.(node);
    app.canvas.centerOnNode(node);
  };
}
