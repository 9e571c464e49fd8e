"""Writes small random-weight VAEs in the layouts ComfyUI recognises. Run by ComfyUI's Python.

    python make_vaes.py <ComfyUI folder> <output folder>

A quarter of the published width, or less, where the host reads the width off the file.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from _host_vaes import ZOO, enter_host, state_dict

host, target = Path(sys.argv[1]), Path(sys.argv[2])
enter_host(host, "--cpu")
SOURCE = (host / "comfy" / "sd.py").read_text(encoding="utf-8")


def image_kl() -> dict[str, torch.Tensor]:
    """The SD layout; the file has no encoder."""
    drawn = image_kl_entire()
    return {key: each for key, each in drawn.items() if key.startswith(("decoder", "post"))}


def image_kl_entire() -> dict[str, torch.Tensor]:
    """The same with its encoder, which has the published width on every host."""
    layout = ZOO["kl"]
    if "decoder_ddconfig" in SOURCE:
        narrow = {**layout.marks, "decoder.conv_in.weight": (128, 4, 3, 3)}
        layout = replace(layout, marks=narrow)
    return state_dict(layout, dtype=torch.float32, seed=1)


def wan_2_1() -> dict[str, torch.Tensor]:
    """The Wan 2.1 layout."""
    layout = ZOO["wan2.1"]
    if "decoder.head.0.gamma" in SOURCE:
        narrow = {
            "decoder.middle.0.residual.0.gamma": (64, 1, 1, 1),
            "decoder.head.0.gamma": (16, 1, 1, 1),
            "encoder.conv1.weight": (16, 3, 3, 3, 3),
            "decoder.head.2.weight": (3, 16, 3, 3, 3),
        }
        layout = replace(layout, marks=narrow)
    return state_dict(layout, dtype=torch.float32, seed=2)


def save_tiny_flux_2(folder: Path) -> None:
    """The tiny autoencoder whose latents are packed twice as tightly; a file for each half."""
    drawn = state_dict("taesd-flux2", dtype=torch.float32, seed=3)
    for half in ("encoder", "decoder"):
        prefix = f"taesd_{half}."
        own = {key[len(prefix) :]: drawn[key] for key in drawn if key.startswith(prefix)}
        safetensors.torch.save_file(own, folder / f"taef2_{half}.safetensors")


safetensors.torch.save_file(image_kl(), target / "image_kl.safetensors")
safetensors.torch.save_file(image_kl_entire(), target / "image_kl_entire.safetensors")
safetensors.torch.save_file(wan_2_1(), target / "wan_2_1.safetensors")
if "DecoderFlux2" in (host / "comfy" / "taesd" / "taesd.py").read_text(encoding="utf-8"):
    save_tiny_flux_2(target.parent / "vae_approx")
