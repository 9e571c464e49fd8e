"""Latents to decode when there is no diffusion model to make them: seeded, smooth noise."""

from __future__ import annotations

import torch
from torch.nn import functional

COARSE_STEP = 6
"""Coarse noise has one value for so many latents, which gives the picture large shapes."""
FINE_SHARE = 0.35


def random_latent(shape: tuple[int, int, int, int, int], seed: int) -> torch.Tensor:
    """Noise ``[B, C, T, H, W]`` with unit variance, large shapes and slow motion, on the CPU."""
    batch, channels, frames, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    coarse_shape = (
        batch,
        channels,
        2 + frames // COARSE_STEP,
        2 + height // COARSE_STEP,
        2 + width // COARSE_STEP,
    )
    coarse = torch.randn(coarse_shape, generator=generator)
    smooth = functional.interpolate(
        coarse, size=(frames, height, width), mode="trilinear", align_corners=True
    )
    fine = torch.randn(shape, generator=generator)
    mixed = smooth / smooth.std().clamp_min(1e-6) + FINE_SHARE * fine
    return mixed / (1 + FINE_SHARE**2) ** 0.5
