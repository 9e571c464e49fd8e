"""Loads VAE layouts and says as JSON what ComfyUI made of each. Run by ComfyUI's Python.

    python zoo_answers.py <ComfyUI folder> <names to decode with> <names to count bytes of>

Every layout is loaded with weights that nobody writes; those named are loaded again with
random weights and decode two latent frames of 8 x 8; names are separated by commas.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from _host_vaes import ZOO, enter_host, latent, load

SIZE = 8
FRAMES = 2


def described(name: str) -> dict[str, object]:
    """What it was taken for; scales in pixels and frames per latent pixel and frame."""
    vae = load(name, device="cpu", weights="empty")
    module = vae.first_stage_model
    time, _, space = scales(vae)
    return {
        "class": type(module).__name__,
        "channels": vae.latent_channels,
        "dimensions": vae.latent_dim,
        "space": space,
        "time": time,
        "shapeless": [key for key, each in module.state_dict().items() if each.is_meta],
    }


def scales(vae: object) -> tuple[int | None, int, int]:
    """(time, height, width); a formula for frames is asked what ten and twenty become."""
    ratio = vae.upscale_ratio
    if not isinstance(ratio, tuple):
        return None, ratio, ratio
    return round((ratio[0](20) - ratio[0](10)) / 10), ratio[1], ratio[2]


def decoded(name: str) -> dict[str, object]:
    """Shape of what a random one makes of a random latent."""
    vae = load(name, device="cpu", dtype=torch.float32)
    sample = latent(vae, FRAMES if ZOO[name].temporal_scale else None, SIZE, SIZE)
    with torch.inference_mode():
        pixels = vae.decode(sample)
    finite = bool(torch.isfinite(pixels).all())
    return {"shape": list(pixels.shape), "finite": finite, "spread": float(pixels.std())}


def counted(name: str) -> dict[str, object]:
    """Bytes of live tensors of a real decode, and of the dry run of the same."""
    from vram_supervisor.nodes.host.dry_runs import trace_vae
    from vram_supervisor.supervisor.planning.live_bytes import LiveBytes

    vae = load(name, device="cpu", dtype=torch.float32)
    sample = latent(vae, FRAMES if ZOO[name].temporal_scale else None, SIZE, SIZE)
    with torch.inference_mode(), LiveBytes() as counter:
        held = sample.to(vae.vae_dtype, copy=True)  # as ComfyUI holds it while it decodes
        vae.first_stage_model.decode(held)
    trace = trace_vae(vae, tuple(sample.shape), fused_attention=False)
    return {"real": counter.peak_bytes, "dry": trace.tensor_peak_bytes}


def answered(question: object, name: str) -> dict[str, object]:
    """Its answer, or what it raised: one must not hide the others."""
    try:
        return question(name)
    except Exception as error:  # noqa: BLE001
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        gc.collect()


enter_host(sys.argv[1], "--cpu")
names = [name for name in sys.argv[2].split(",") if name]
answers = {
    "loaded": {name: answered(described, name) for name in ZOO},
    "decoded": {name: answered(decoded, name) for name in names},
    "counted": {name: answered(counted, name) for name in sys.argv[3].split(",")},
}
print(json.dumps(answers))
