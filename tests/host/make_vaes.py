"""Writes small random-weight VAEs in the layouts ComfyUI recognises. Run by ComfyUI's Python.

    python make_vaes.py <ComfyUI folder> <output folder>

Random weights with the right scale: ComfyUI skips weight initialisation, so every tensor is
drawn here.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

host, target = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(host))
sys.argv = [sys.argv[0], "--cpu"]

import comfy.options  # noqa: E402

comfy.options.enable_args_parsing()

import safetensors.torch  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.modules.diffusionmodules.model import Decoder  # noqa: E402
from comfy.ldm.wan.vae import WanVAE  # noqa: E402

SOURCE = (host / "comfy" / "sd.py").read_text(encoding="utf-8")


def drawn(state: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Every tensor drawn anew: weights by fan-in, gains around 1, biases small."""
    random = torch.Generator().manual_seed(seed)
    out = {}
    for name, tensor in sorted(state.items()):
        values = torch.randn(tensor.shape, generator=random)
        if name.endswith("gamma") or (tensor.ndim == 1 and name.endswith("weight")):
            out[name] = 1 + 0.1 * values
        elif tensor.ndim == 1:
            out[name] = 0.02 * values
        else:
            out[name] = values / max(1, tensor[0].numel()) ** 0.5
    return out


def image_kl() -> dict[str, torch.Tensor]:
    """The SD layout, a quarter as wide where the host reads the width off the file; the file
    has no encoder."""
    decoder = Decoder(
        ch=32 if "decoder_ddconfig" in SOURCE else 128,
        out_ch=3,
        ch_mult=(1, 2, 4, 4),
        num_res_blocks=2,
        attn_resolutions=[],
        in_channels=3,
        resolution=256,
        z_channels=4,
    )
    state = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    state["post_quant_conv.weight"] = torch.empty(4, 4, 1, 1)
    state["post_quant_conv.bias"] = torch.empty(4)
    return drawn(state, seed=1)


def wan_2_1() -> dict[str, torch.Tensor]:
    """The Wan 2.1 layout; newer hosts read the width off the file."""
    wanted = {
        "dim": 16 if "decoder.head.0.gamma" in SOURCE else 96,
        "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
        "temperal_downsample": [False, True, True], "image_channels": 3, "conv_out_channels": 3,
        "dropout": 0.0,
    }  # fmt: skip
    known = inspect.signature(WanVAE.__init__).parameters
    model = WanVAE(**{name: value for name, value in wanted.items() if name in known})
    return drawn(model.state_dict(), seed=2)


safetensors.torch.save_file(image_kl(), target / "image_kl.safetensors")
safetensors.torch.save_file(wan_2_1(), target / "wan_2_1.safetensors")
