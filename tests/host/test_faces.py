"""The nodes as ComfyUI shows them to the editor and to API clients."""

import pytest
from support.frontend_nodes import CORE
from support.frontend_nodes import object_info as told

SUPPORTER = [
    "model",
    "profile",
    "apply_reserved_vram",
    "reserved_vram_mode",
    "reserved_vram_gb",
    "sage_attention",
    "allow_sageattention_torch_compile",
    "torch_compile_mode",
    "fp16_accumulation",
    "tf32",
    "clean_gpu_before",
    "console_log",
    "include_hardware_report",
    "reserved_vram_auto_headroom_gb",
    "reserved_vram_auto_max_gb",
    "clip",
    "vae",
]
SUPPORTER_ANY = [
    "input",
    "profile",
    "apply_reserved_vram",
    "reserved_vram_mode",
    "reserved_vram_gb",
    "reserved_vram_auto_headroom_gb",
    "reserved_vram_auto_max_gb",
    "fp16_accumulation",
    "tf32",
    "clean_gpu_before",
    "console_log",
    "include_hardware_report",
]
DECODE = [
    "samples",
    "vae",
    "tile",
    "tiling_mode",
    "tile_size",
    "overlap",
    "temporal_size",
    "temporal_overlap",
    "cleanup_before_decode",
    "last_frame_fix",
    "duration_hint_s",
    "quality",
    "vram_budget_gb",
    "keep_latent_on_failure",
]
TO_DISK = [
    "samples",
    "vae",
    "output_dir",
    "prefix",
    "image_format",
    "jpg_quality",
    "tile",
    "tiling_mode",
    "tile_size",
    "overlap",
    "seam_debug_export",
    "seam_debug_dir",
    "cleanup_between_frames",
    "clear_existing",
    "start_number",
    "quality",
    "vram_budget_gb",
    "resume",
]
PURGE = [
    "unload_all_models",
    "soft_empty_cache",
    "ipc_collect",
    "trim_working_set",
    "gc_passes",
    "console_log",
]
CLEANUP = ["unload_all_models", "soft_empty_cache", "model", "clip", "vae", "passthrough"]

FACES = {
    "IAMCCS_HwSupporter": (
        "HW Supporter (auto VRAM/attention/torch knobs)",
        SUPPORTER,
        [("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE"), ("report_json", "STRING")],
    ),
    "IAMCCS_HwSupporterAny": (
        "HW Supporter (ANY passthrough)",
        SUPPORTER_ANY,
        [("output", "*"), ("report_json", "STRING")],
    ),
    "IAMCCS_VRAMCleanup": (
        "VRAM Cleanup (unload + empty cache)",
        CLEANUP,
        [
            ("model", "MODEL"), ("clip", "CLIP"), ("vae", "VAE"), ("passthrough", "*"),
            ("report_json", "STRING"),
        ],
    ),
    "IAMCCS_VAEDecodeTiledSafe": (
        "VAE Decode Tiled (safe, optional cleanup)",
        DECODE,
        [("IMAGE", "IMAGE"), ("report_json", "STRING")],
    ),
    "IAMCCS_VAEDecodeToDisk": (
        "VAE Decode -> Disk (frames, low RAM)",
        TO_DISK,
        [
            ("frames_dir", "STRING"), ("frames_saved", "INT"), ("next_start_number", "INT"),
            ("report_json", "STRING"),
        ],
    ),
    "IAMCCS_VAEEncodeTiledSafe": (
        "VAE Encode Tiled (safe)",
        ["pixels", "vae", "quality", "vram_budget_gb"],
        [("LATENT", "LATENT"), ("report_json", "STRING")],
    ),
    "IAMCCS_HWProbeRecommendations": (
        "HW Probe Recommendations (JSON)",
        ["width", "height", "frames", "fps", "pretty"],
        [
            ("report_json", "STRING"), ("profile", "STRING"),
            ("reserved_vram_effective_gb", "FLOAT"), ("vae_tile_size", "INT"),
            ("vae_overlap", "INT"), ("vae_temporal_size", "INT"), ("vae_temporal_overlap", "INT"),
        ],
    ),
    "IAMCCS_VRAMFlushLatent": (None, ["latent"], [("latent", "LATENT")]),
    "IAMCCS_HardMemoryPurge": (
        None,
        PURGE,
        [
            ("report", "STRING"), ("rss_before_gb", "FLOAT"), ("rss_after_gb", "FLOAT"),
            ("trim_applied", "BOOLEAN"),
        ],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def object_info(comfy):
    return comfy.get("/object_info")[1]


@pytest.mark.parametrize("node_id", FACES)
def test_the_face_is_as_described_in_ids_order_and_outputs(object_info, node_id):
    title, inputs, outputs = FACES[node_id]
    info = object_info[node_id]
    order = info["input_order"]
    assert order.get("required", []) + order.get("optional", []) == inputs
    assert list(zip(info["output_name"], info["output"], strict=True)) == outputs
    assert info["category"] == "IAMCCS/HW"
    assert title is None or info["display_name"] == title


def widget(info, name):
    for group in ("required", "optional"):
        if name in info["input"].get(group, {}):
            return info["input"][group][name]
    raise KeyError(name)


@pytest.mark.parametrize(
    ("node_id", "name", "default"),
    [
        ("IAMCCS_HwSupporter", "profile", "auto"),
        ("IAMCCS_HwSupporter", "reserved_vram_mode", "adaptive"),
        ("IAMCCS_HwSupporter", "reserved_vram_gb", 1.25),
        ("IAMCCS_HwSupporter", "sage_attention", "auto"),
        ("IAMCCS_HwSupporter", "torch_compile_mode", "off"),
        ("IAMCCS_HwSupporter", "reserved_vram_auto_headroom_gb", 1.0),
        ("IAMCCS_HwSupporter", "reserved_vram_auto_max_gb", 0.0),
        ("IAMCCS_VAEDecodeTiledSafe", "tile", True),
        ("IAMCCS_VAEDecodeTiledSafe", "tile_size", 512),
        ("IAMCCS_VAEDecodeTiledSafe", "overlap", 64),
        ("IAMCCS_VAEDecodeTiledSafe", "temporal_size", 256),
        ("IAMCCS_VAEDecodeTiledSafe", "temporal_overlap", 32),
        ("IAMCCS_VAEDecodeTiledSafe", "quality", "exact"),
        ("IAMCCS_VAEDecodeTiledSafe", "keep_latent_on_failure", True),
        ("IAMCCS_VAEDecodeToDisk", "output_dir", "iamccs_vae_frames"),
        ("IAMCCS_VAEDecodeToDisk", "prefix", "frame"),
        ("IAMCCS_VAEDecodeToDisk", "jpg_quality", 95),
        ("IAMCCS_VAEDecodeToDisk", "cleanup_between_frames", True),
        ("IAMCCS_VAEDecodeToDisk", "clear_existing", True),
        ("IAMCCS_VAEDecodeToDisk", "resume", True),
        ("IAMCCS_VAEEncodeTiledSafe", "quality", "exact"),
        ("IAMCCS_VAEEncodeTiledSafe", "vram_budget_gb", 0.0),
        ("IAMCCS_HardMemoryPurge", "gc_passes", 3),
    ],
)
def test_a_new_node_starts_with_the_described_value(object_info, node_id, name, default):
    assert widget(object_info[node_id], name)[1]["default"] == default


def test_inputs_that_old_api_prompts_lack_are_optional(object_info):
    optional = object_info["IAMCCS_HwSupporter"]["input"]["optional"]
    assert "reserved_vram_auto_headroom_gb" in optional
    decode = object_info["IAMCCS_VAEDecodeTiledSafe"]["input"]["optional"]
    assert {"quality", "vram_budget_gb", "keep_latent_on_failure"} <= decode.keys()


def test_the_web_folder_is_served_with_one_entry_file(comfy):
    files = comfy.get("/extensions")[1]
    assert any(file.endswith("vram-supervisor/main.js") for file in files)


def test_the_browser_tests_know_the_nodes_as_comfyui_tells_of_them(object_info):
    ours = {node_id: info for node_id, info in told().items() if node_id not in CORE}
    assert ours
    for node_id, info in ours.items():
        real = object_info[node_id]
        inputs = {group: each for group, each in real["input"].items() if group != "hidden"}
        assert info["input"] == inputs, node_id
        for name in ("output", "output_name", "display_name", "description", "category"):
            assert info[name] == real[name], (node_id, name)
