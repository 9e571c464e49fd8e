"""A small decoder built as Mochi's is, with a forward of its own to compare with."""

from __future__ import annotations

from math import prod

import torch
from torch import nn
from torch.nn import functional

from .toy_decoders import seeded

GROUPS = 4
AT_ONCE = 3
"""Frames that a norm is called with at once."""


class FrameNorm(nn.GroupNorm):
    """Of each frame, a few of them at a time."""

    def __init__(self, channels):
        super().__init__(GROUPS, channels)

    def forward(self, x):
        frames = x[0].transpose(0, 1)
        made = torch.empty_like(frames)
        for first in range(0, len(frames), AT_ONCE):
            made[first : first + AT_ONCE] = super().forward(frames[first : first + AT_ONCE])
        return made.transpose(0, 1).unsqueeze(0)


class Causal(nn.Conv3d):
    """The first frame repeated in front, the border around."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, padding=(0, 1, 1), padding_mode="replicate")
        self.causal = True

    def forward(self, x):
        return super().forward(functional.pad(x, (0, 0, 0, 0, 2, 0), mode="replicate"))


class Point(nn.Linear):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _half(channels):
    return FrameNorm(channels), nn.SiLU(inplace=True), Causal(channels, channels)


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.stack = nn.Sequential(*_half(channels), *_half(channels))
        self.attn_block = nn.Identity()

    def forward(self, x):
        return self.attn_block(self.stack(x) + x)


class Unpack(nn.Module):
    """Channels ``(C, frame, row, column)`` become frames and pixels; the first are dropped."""

    def __init__(self, temporal, spatial):
        super().__init__()
        self.temporal_expansion, self.spatial_expansion = temporal, spatial

    def forward(self, x):
        items, channels, frames, height, width = x.shape
        time, space = self.temporal_expansion, self.spatial_expansion
        outputs = channels // (time * space**2)
        x = x.view(items, outputs, time, space, space, frames, height, width)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
        x = x.reshape(items, outputs, frames * time, height * space, width * space)
        return x[:, :, time - 1 :]


class Up(nn.Module):
    def __init__(self, inputs, outputs, blocks, temporal, spatial):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(inputs) for _ in range(blocks)))
        self.temporal_expansion, self.spatial_expansion = temporal, spatial
        self.proj = Point(inputs, outputs * prod((temporal, spatial, spatial)))
        self.d2st = Unpack(temporal, spatial)

    def forward(self, x):
        return self.d2st(self.proj(self.blocks(x)))


class Decoder(nn.Module):
    def __init__(self, latent, widths, expansions):
        super().__init__()
        self.output_nonlinearity = "silu"
        first = nn.Sequential(nn.Conv3d(latent, widths[0], 1), Block(widths[0]))
        ups = [
            Up(inputs, outputs, 1, *expansion)
            for inputs, outputs, expansion in zip(widths, widths[1:], expansions, strict=False)
        ]
        last = nn.Sequential(Block(widths[-1]), Block(widths[-1]))
        self.blocks = nn.ModuleList([first, *ups, last])
        self.output_proj = Point(widths[-1], 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.output_proj(functional.silu(x))


class ToyMochi(nn.Module):
    """Frames stay, double and triple, as the picture doubles."""

    LATENT_CHANNELS = 4

    def __init__(self, widths=(8, 8, 4, 4), expansions=((1, 2), (2, 2), (3, 2))):
        super().__init__()
        self.encoder = nn.Identity()
        self.decoder = Decoder(self.LATENT_CHANNELS, widths, expansions)
        seeded(self)

    def decode(self, x):
        return self.decoder(x)
