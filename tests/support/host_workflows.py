"""Pieces of API-format prompts."""

KL = "image_kl.safetensors"
KL_ENTIRE = "image_kl_entire.safetensors"
WAN = "wan_2_1.safetensors"

SUPPORTER = {
    "profile": "auto",
    "apply_reserved_vram": True,
    "reserved_vram_mode": "manual",
    "reserved_vram_gb": 2.5,
    "fp16_accumulation": "on",
    "tf32": "on",
    "clean_gpu_before": False,
    "console_log": True,
    "include_hardware_report": False,
}
DECODE = {
    "tile": True,
    "tiling_mode": "auto",
    "tile_size": 512,
    "overlap": 64,
    "temporal_size": 256,
    "temporal_overlap": 32,
    "cleanup_before_decode": False,
}


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def link(node_id, output=0):
    return [node_id, output]


def vae(name):
    return node("VAELoader", vae_name=name)


def latent(*, seed=7, batch=1, channels=4, frames=0, height=24, width=16, **more):
    sizes = {"channels": channels, "frames": frames, "height": height, "width": width}
    return node("HostTestLatent", seed=seed, batch=batch, **sizes, **more)


def safe_decode(samples="latent", vae="vae", **changes):
    inputs = {"samples": link(samples), "vae": link(vae)}
    return node("IAMCCS_VAEDecodeTiledSafe", **inputs, **{**DECODE, **changes})


def pictures(*, seed=7, count=1, height=128, width=96, channels=3):
    sizes = {"count": count, "height": height, "width": width, "channels": channels}
    return node("HostTestPictures", seed=seed, **sizes)


def safe_encode(pixels="pictures", vae="vae", **changes):
    inputs = {"pixels": link(pixels), "vae": link(vae), "quality": "exact", "vram_budget_gb": 0.0}
    return node("IAMCCS_VAEEncodeTiledSafe", **{**inputs, **changes})


def supporter(model="model", **changes):
    extra = {
        "sage_attention": "auto",
        "allow_sageattention_torch_compile": False,
        "torch_compile_mode": "off",
    }
    return node("IAMCCS_HwSupporter", model=link(model), **{**SUPPORTER, **extra, **changes})


def supporter_any(value, **changes):
    auto = {"reserved_vram_auto_headroom_gb": 1.0, "reserved_vram_auto_max_gb": 0.0}
    return node("IAMCCS_HwSupporterAny", input=value, **{**SUPPORTER, **auto, **changes})


def show(node_id, output=0):
    return node("HostTestShow", value=link(node_id, output))
