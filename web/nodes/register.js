// What the node parts bring to the extension.

import { attach, keep, stateOf } from "./attach.js";
import { CORE, CORE_TILED, SAFE, convertInEditor } from "./convert.js";
import { FACES } from "./faces.js";
import { everyNode, nodesOf } from "./walk.js";

const FIELDS = ["width", "height", "frames", "fps"];
export const NODE_COMMANDS = {
  toSafe: "VramSupervisor.ConvertToSafe",
  toCore: "VramSupervisor.ConvertToCore",
};

/**
 * @param {Omit<import("./attach.js").NodeWorld, "listening"> & {defaultQuality: () => string | null,
 *   create: (type: string) => any, ask: (text: string, value: string) => Promise<string | null>}} world
 */
export function registerNodes(world) {
  const { app, t, toast } = world;
  /** @type {WeakMap<any, any>} */
  const attached = new WeakMap();
  /** @type {import("./attach.js").NodeWorld["listening"]} */
  const listening = new Set();
  let loading = false;

  /** @param {any} node */
  function created(node) {
    const made = attach(node, { ...world, listening });
    if (!made) return;
    attached.set(node, made);
    const quality = world.defaultQuality();
    const widget = node.widgets?.find((/** @type {any} */ { name }) => name === "quality");
    // Of a workflow that is loaded its own values follow.
    if (!loading && widget && quality) widget.value = quality;
  }

  /**
   * @param {"safe" | "core"} to
   * @param {any[]} [only]
   */
  function convert(to, only) {
    const { converted, kept } = convertInEditor(app, to, world.create, only);
    const told = converted ? t("converted", { count: converted }) : t("convertedNone");
    const stay = kept ? ` ${t("convertKept", { count: kept })}` : "";
    toast(converted ? "success" : "info", t("menu"), `${told}${stay}`);
  }

  /** @param {any} node */
  async function askSize(node) {
    const { context } = stateOf(node);
    const before = FIELDS.map((field) => context[field] ?? 0).join(", ");
    const answer = await world.ask(t("menuSizeAsk"), before);
    if (answer === null) return;
    const numbers = answer.split(/[,;x\s]+/).map(Number);
    const entries = FIELDS.map((field, place) => [field, numbers[place] || 0]);
    keep(node, { context: Object.fromEntries(entries) });
    attached.get(node)?.restore();
  }

  return {
    nodeCreated: created,
    /** @param {any} node */
    loadedGraphNode: (node) => attached.get(node)?.restore(),
    beforeConfigureGraph: () => {
      loading = true;
    },
    afterConfigureGraph: () => {
      loading = false;
      // Older frontends do not tell the nodes inside subgraphs that their graph was replaced.
      const there = new Set(everyNode(app.rootGraph ?? app.graph));
      for (const each of listening) if (!there.has(each.node)) each.release();
    },
    commands: [
      { id: NODE_COMMANDS.toSafe, icon: "pi pi-shield", label: t("convertAllToSafe"), function: () => convert("safe") },
      { id: NODE_COMMANDS.toCore, icon: "pi pi-undo", label: t("convertAllToCore"), function: () => convert("core") },
    ],
    /** @param {any} node */
    getNodeMenuItems(node) {
      const type = node.comfyClass ?? node.type;
      const items = [];
      if (type === CORE || type === CORE_TILED) {
        items.push({ content: t("convertToSafe"), callback: () => convert("safe", [node]) });
      }
      if (type === SAFE) items.push({ content: t("convertToCore"), callback: () => convert("core", [node]) });
      if (FACES[type]) {
        items.push({ content: t("menuSize"), callback: () => askSize(node) });
        items.push({
          content: t("menuSizeClear"),
          callback: () => {
            keep(node, { context: {} });
            attached.get(node)?.restore();
          },
        });
      }
      return items.length > 0 ? [null, ...items] : [];
    },
    /** Every node that has the buttons, those in subgraphs too. */
    async probeAll() {
      const nodes = nodesOf(app.rootGraph ?? app.graph).map((node) => attached.get(node));
      for (const each of nodes.filter(Boolean)) await each.probe();
    },
  };
}
