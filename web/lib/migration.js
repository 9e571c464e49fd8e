/**
 * Brings widget values of workflows saved with the public IAMCCS pack into today's order.
 *
 * Workflows store widget values by position. The public pack changed positions over time and
 * its script appended values of its own buttons. A layout is recognised by length and types,
 * its values are named, and the names are put into today's order. What is not recognised is
 * left alone and reported.
 *
 * No side effects on import; no globals.
 */

/** @typedef {(value: unknown) => boolean} Check */
/** @typedef {{name: string, check: Check, fallback?: unknown}} Widget */
/** @typedef {{title: string, names: string[]}} Layout */
/** @typedef {{id: unknown, type: string, layout: string}} Change */
/** @typedef {{id: unknown, type: string, values: unknown[]}} Unknown */

/** @param {unknown} value */
const isBoolean = (value) => typeof value === "boolean";
/** @param {unknown} value */
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
/** @param {unknown} value */
const isText = (value) => typeof value === "string";
/** @param {...string} words @returns {Check} */
const oneOf = (...words) => (value) => words.includes(/** @type {string} */ (value));

const isMode = oneOf("manual", "auto_used_plus", "adaptive");
const isSwitch = oneOf("auto", "on", "off");

/** @param {string} name @param {Check} check @param {unknown} [fallback] @returns {Widget} */
const widget = (name, check, fallback) => ({ name, check, fallback });

const SHARED_START = [
  widget("profile", isText),
  widget("apply_reserved_vram", isBoolean),
  widget("reserved_vram_mode", isMode),
  widget("reserved_vram_gb", isNumber),
];
const SHARED_END = [
  widget("fp16_accumulation", isSwitch),
  widget("tf32", isSwitch),
  widget("clean_gpu_before", isBoolean),
  widget("console_log", isBoolean),
  widget("include_hardware_report", isBoolean),
];
const AUTO_RESERVE = [
  widget("reserved_vram_auto_headroom_gb", isNumber, 1.0),
  widget("reserved_vram_auto_max_gb", isNumber, 0),
];

/** Today's widgets in order, by node type. @type {Record<string, Widget[]>} */
export const WIDGETS = {
  IAMCCS_HwSupporter: [
    ...SHARED_START,
    widget("sage_attention", isText),
    widget("allow_sageattention_torch_compile", isBoolean),
    widget("torch_compile_mode", isText),
    ...SHARED_END,
    ...AUTO_RESERVE,
  ],
  IAMCCS_HwSupporterAny: [...SHARED_START, ...AUTO_RESERVE, ...SHARED_END],
  IAMCCS_VAEDecodeTiledSafe: [
    widget("tile", isBoolean),
    widget("tiling_mode", oneOf("auto", "manual")),
    widget("tile_size", isNumber),
    widget("overlap", isNumber),
    widget("temporal_size", isNumber),
    widget("temporal_overlap", isNumber),
    widget("cleanup_before_decode", isBoolean),
    widget("last_frame_fix", isBoolean, false),
    widget("duration_hint_s", isNumber, 0),
    widget("quality", oneOf("exact", "balanced", "fast"), "exact"),
    widget("vram_budget_gb", isNumber, 0),
    widget("keep_latent_on_failure", isBoolean, true),
  ],
};

/** @param {string} type @param {...string} left_out */
const names = (type, ...left_out) =>
  WIDGETS[type].map((each) => each.name).filter((name) => !left_out.includes(name));

const AUTO_NAMES = AUTO_RESERVE.map((each) => each.name);
const DECODE_NEW = ["quality", "vram_budget_gb", "keep_latent_on_failure"];

/** @returns {string[]} */
function supporterWithAutoInTheMiddle() {
  const order = names("IAMCCS_HwSupporter", ...AUTO_NAMES);
  order.splice(order.indexOf("reserved_vram_gb") + 1, 0, ...AUTO_NAMES);
  return order;
}

/**
 * Layouts that were ever saved, by node type; today's first.
 * @type {Record<string, Layout[]>}
 */
export const LAYOUTS = {
  IAMCCS_HwSupporter: [
    { title: "current", names: names("IAMCCS_HwSupporter") },
    { title: "12 values", names: names("IAMCCS_HwSupporter", ...AUTO_NAMES) },
    { title: "14 values, headroom in the middle", names: supporterWithAutoInTheMiddle() },
  ],
  IAMCCS_HwSupporterAny: [{ title: "current", names: names("IAMCCS_HwSupporterAny") }],
  IAMCCS_VAEDecodeTiledSafe: [
    { title: "current", names: names("IAMCCS_VAEDecodeTiledSafe") },
    { title: "9 values", names: names("IAMCCS_VAEDecodeTiledSafe", ...DECODE_NEW) },
    {
      title: "8 values, no last_frame_fix",
      names: names("IAMCCS_VAEDecodeTiledSafe", ...DECODE_NEW, "last_frame_fix"),
    },
    {
      title: "7 values, no duration_hint_s",
      names: names("IAMCCS_VAEDecodeTiledSafe", ...DECODE_NEW, "last_frame_fix", "duration_hint_s"),
    },
  ],
};

const PRESET_SYNC_TYPES = ["IAMCCS_HwSupporter", "IAMCCS_HwSupporterAny"];

/**
 * How many values at the end belong to the public pack's own widgets: the apply mode, a
 * summary, two buttons, and on the supporters a toggle. Buttons may have been saved as null.
 *
 * @param {string} type
 * @param {unknown[]} values
 * @returns {number}
 */
export function tailLength(type, values) {
  const withToggle = PRESET_SYNC_TYPES.includes(type) && isBoolean(values.at(-1)) ? 1 : 0;
  const tail = values.slice(values.length - 4 - withToggle, values.length - withToggle);
  const [mode, summary, run, copy] = tail;
  const isTail =
    tail.length === 4 &&
    oneOf("overwrite", "fill_missing")(mode) &&
    isText(summary) &&
    (run == null || run === "run") &&
    (copy == null || copy === "copy");
  return isTail ? 4 + withToggle : 0;
}

/**
 * Name the values of one node.
 *
 * @param {string} type
 * @param {unknown[]} values
 * @returns {{layout: string, named: Record<string, unknown>} | null} null: not recognised
 */
export function nameValues(type, values) {
  const tail = tailLength(type, values);
  const own = values.slice(0, values.length - tail);
  const checks = Object.fromEntries(WIDGETS[type].map((each) => [each.name, each.check]));
  const layout = LAYOUTS[type].find(
    (each) =>
      each.names.length === own.length && each.names.every((name, i) => checks[name](own[i])),
  );
  if (!layout) return null;
  const title = tail ? `${layout.title}, with the old buttons` : layout.title;
  return { layout: title, named: Object.fromEntries(layout.names.map((name, i) => [name, own[i]])) };
}

/**
 * Today's values for one node, by position.
 *
 * @param {string} type
 * @param {unknown[]} values
 * @returns {{layout: string, values: unknown[]} | null} null: not recognised
 */
export function migrateValues(type, values) {
  const found = nameValues(type, values);
  if (!found) return null;
  const today = WIDGETS[type].map((each) =>
    Object.hasOwn(found.named, each.name) ? found.named[each.name] : each.fallback,
  );
  return { layout: found.layout, values: today };
}

/**
 * Every node of a saved workflow, those inside subgraph and group definitions included.
 *
 * @param {any} graph
 * @returns {any[]}
 */
export function allNodes(graph) {
  const subgraphs = graph?.definitions?.subgraphs ?? [];
  const groups = Object.values(graph?.extra?.groupNodes ?? {});
  const inside = [...subgraphs, ...groups].flatMap((each) => allNodes(each));
  return [...(Array.isArray(graph?.nodes) ? graph.nodes : []), ...inside];
}

/**
 * Bring a saved workflow up to date, in place, before its values are restored. Doing it
 * twice changes nothing more.
 *
 * @param {any} graph
 * @returns {{changed: Change[], unknown: Unknown[]}}
 */
export function migrateWorkflow(graph) {
  /** @type {Change[]} */
  const changed = [];
  /** @type {Unknown[]} */
  const unknown = [];
  for (const node of allNodes(graph)) {
    const values = node?.widgets_values;
    if (!Object.hasOwn(WIDGETS, String(node?.type)) || !Array.isArray(values)) continue;
    const migrated = migrateValues(node.type, values);
    if (!migrated) {
      unknown.push({ id: node.id, type: node.type, values: [...values] });
    } else if (migrated.layout !== "current") {
      node.widgets_values = migrated.values;
      changed.push({ id: node.id, type: node.type, layout: migrated.layout });
    }
  }
  return { changed, unknown };
}
