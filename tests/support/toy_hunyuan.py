"""Small decoders built as those of HunyuanImage and HunyuanVideo 1.5 are, with forwards of their
own to compare with: they grow by moving channels to pixels, and to frames.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from .toy_decoders import seeded
from .toy_residual import CHUNK, Attention, Block, Carried, convolved, deep, flat, group_norm


class PixelNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scale = channels**0.5
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1, 1))

    def forward(self, x):
        return functional.normalize(x, dim=1) * self.scale * self.gamma


class Same(nn.Module):
    def forward(self, z):
        return z, None


def to_pixels(x, frames):
    """Channels ``(frame, row, column, c)`` to where they belong."""
    items, all_channels, count, height, width = x.shape
    channels = all_channels // (4 * frames)
    x = x.view(items, frames, 2, 2, channels, count, height, width)
    x = x.permute(0, 4, 5, 1, 6, 2, 7, 3)
    return x.reshape(items, channels, count * frames, height * 2, width * 2)


class ClipUpsample(nn.Module):
    """Twice as large, and twice as many frames; of the first one only where ``refiner_vae``."""

    def __init__(self, inputs, outputs, conv, *, doubles, refined):
        super().__init__()
        self.tus, self.refiner_vae = doubles, refined
        self.factor = 8 if doubles else 4
        self.conv = conv(inputs, outputs * self.factor)
        self.repeats = self.factor * outputs // inputs

    def forward(self, x, conv_carry_in=None, conv_carry_out=None):
        h = convolved(self.conv, x, conv_carry_in, conv_carry_out)
        around = x.repeat_interleave(self.repeats, dim=1)
        frames = 2 if self.tus else 1
        if not (self.tus and self.refiner_vae and conv_carry_in is None):
            return to_pixels(h, frames) + to_pixels(around, frames)
        first = to_pixels(h[:, :, :1], 1)
        first = first[:, : first.shape[1] // 2]
        first = first + to_pixels(x[:, :, :1].repeat_interleave(self.repeats // 2, dim=1), 1)
        rest = to_pixels(h[:, :, 1:], 2) + to_pixels(around[:, :, 1:], 2)
        return torch.cat([first, rest], dim=2)


class PictureUpsample(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = flat(inputs, 4 * outputs)
        self.scale = 4 * outputs // inputs

    def forward(self, x):
        made = self.conv(x) + x.repeat_interleave(self.scale, dim=1)
        return to_pixels(made.unsqueeze(2), 1).squeeze(2)


class NewLevel(nn.Module):
    def __init__(self, width, conv, norm):
        super().__init__()
        self.block = nn.ModuleList(Block(width, width, conv, norm) for _ in range(2))


class NewDecoder(nn.Module):
    """``kind``: "pictures", "clips" with zeros around, or "carried"."""

    def __init__(self, latent, widths, kind):
        super().__init__()
        self.z_channels, self.block_out_channels = latent, list(widths)
        conv = {"pictures": flat, "clips": deep, "carried": Carried}[kind]
        norm = PixelNorm if kind == "carried" else group_norm
        top = widths[0]
        self.conv_in = conv(latent, top)
        self.mid = nn.Module()
        self.mid.block_1 = Block(top, top, conv, norm)
        self.mid.attn_1 = Attention(top, flat if kind == "pictures" else deep, norm)
        self.mid.block_2 = Block(top, top, conv, norm)
        if kind != "pictures":
            self.refiner_vae = kind == "carried"
        self.up = nn.ModuleList()
        for index, (width, after) in enumerate(pairwise((*widths, None))):
            level = NewLevel(width, conv, norm)
            if after and kind == "pictures":
                level.upsample = PictureUpsample(width, after)
            elif after:
                level.upsample = ClipUpsample(
                    width, after, conv, doubles=index < 2, refined=self.refiner_vae
                )
            self.up.append(level)
        self.norm_out, self.conv_out = norm(widths[-1]), conv(widths[-1], 3)

    def forward(self, z):
        around = z.repeat_interleave(self.block_out_channels[0] // self.z_channels, dim=1)
        x = convolved(self.conv_in, z) + around
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))
        if not getattr(self, "refiner_vae", False):
            made = self.way(x)
            return made[:, :, -1:] if z.ndim == 5 and z.shape[2] == 1 else made
        made, past = [], None
        for chunk in x.split(CHUNK, dim=2):
            kept = []
            made.append(self.way(chunk, past, kept))
            past = kept
        return torch.cat(made, dim=2)

    def way(self, x, past=None, kept=None):
        carries = () if past is None and kept is None else (past, kept)
        for level in self.up:
            for block in level.block:
                x = block(x, None, past, kept)
            if hasattr(level, "upsample"):
                x = level.upsample(x, *carries)
        return convolved(self.conv_out, functional.silu(self.norm_out(x)), past, kept)


class ToyNew(nn.Module):
    LATENT_CHANNELS = 4

    def __init__(self, kind, widths=(8, 8, 4, 4)):
        super().__init__()
        self.regularization = Same()
        self.encoder = nn.Identity()
        self.decoder = NewDecoder(self.LATENT_CHANNELS, widths, kind)
        seeded(self)

    def decode(self, z):
        return self.decoder(z)
