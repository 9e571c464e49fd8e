"""Decodes tiny latents in small parts and says as JSON how far that is from the whole. Run by
ComfyUI's Python.

    python part_answers.py <ComfyUI folder> <names of layouts, separated by commas>
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import torch
from _host_vaes import ZOO, enter_host, latent, load

enter_host(sys.argv[1], "--cpu", "--use-pytorch-cross-attention")

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.families.registry import decoder_of, decoder_scale  # noqa: E402
from vram_supervisor.supervisor.decode.proof import relative_error  # noqa: E402

HEIGHT, WIDTH, PART, FRAMES = 7, 5, 3, 3


class SmallParts:
    """Parts of three latents; results wait where they are made."""

    def part(self, phase, stage, height, width):
        del phase, stage
        return max(1, PART * height // HEIGHT), max(1, PART * width // WIDTH)

    def resident_bytes(self):
        return 1 << 40

    def carried_bytes(self):
        return 1 << 40


def compared(name: str) -> dict[str, object]:
    """The family, and the relative L2 of the parts."""
    layout = ZOO[name]
    vae = load(name, device="cpu", dtype=torch.float32)
    model = vae.first_stage_model
    family, build = decoder_of(model)
    frames = FRAMES if layout.temporal_scale else None
    sample = latent(layout, frames, HEIGHT, WIDTH).float()
    with torch.inference_mode():
        torch.manual_seed(1)
        whole = model.decode(sample)
        torch.manual_seed(1)
        parts = Engine(build(model), SmallParts(), torch.device("cpu")).run(sample)
    return {
        "family": family,
        "error": relative_error(parts, whole),
        "rows": int(whole.shape[-2]),
        "scale": decoder_scale(model),
    }


def main() -> None:
    answers: dict[str, object] = {"latent rows": HEIGHT}
    for name in sys.argv[2].split(","):
        answers[name] = compared(name)
        gc.collect()
    print(json.dumps(answers))


main()
