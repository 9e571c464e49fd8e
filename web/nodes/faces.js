// Which nodes get buttons, and what of the probe's advice is for which of their widgets.

const SUPPORTER = [
  "profile",
  "apply_reserved_vram",
  "reserved_vram_mode",
  "reserved_vram_gb",
  "reserved_vram_auto_headroom_gb",
  "reserved_vram_auto_max_gb",
  "sage_attention",
  "allow_sageattention_torch_compile",
  "torch_compile_mode",
  "fp16_accumulation",
  "tf32",
  "clean_gpu_before",
];
const DECODE = [
  "tile",
  "tile_size",
  "overlap",
  "temporal_size",
  "temporal_overlap",
  "cleanup_before_decode",
];

/**
 * @typedef {object} Face
 * @property {"hw_supporter" | "vae_decode" | "sampler_windowed" | null} advice part of the
 *   probe's recommendations that its widgets take; null: it has none to take
 * @property {string[]} widgets
 * @property {{widget: string, value: string} | null} planned while this widget has this value the
 *   node plans by itself, and its widgets stay as they are
 */

/** @type {Record<string, Face>} */
export const FACES = {
  IAMCCS_HwSupporter: { advice: "hw_supporter", widgets: SUPPORTER, planned: null },
  IAMCCS_HwSupporterAny: { advice: "hw_supporter", widgets: SUPPORTER, planned: null },
  IAMCCS_SamplerCustomAdvancedWindowed: {
    advice: "sampler_windowed",
    widgets: ["windowing", "window_frames", "window_overlap"],
    planned: { widget: "windowing", value: "auto" },
  },
  IAMCCS_VAEDecodeTiledSafe: {
    advice: "vae_decode",
    widgets: DECODE,
    planned: { widget: "tiling_mode", value: "auto" },
  },
  IAMCCS_VAEDecodeToDisk: {
    advice: "vae_decode",
    widgets: DECODE,
    planned: { widget: "tiling_mode", value: "auto" },
  },
  IAMCCS_VAEEncodeTiledSafe: { advice: null, widgets: [], planned: null },
};
