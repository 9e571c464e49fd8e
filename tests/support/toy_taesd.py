"""Small autoencoders built as TAESD is: chains of layers, run one after the other."""

from __future__ import annotations

import torch
from torch import nn

from .toy_decoders import seeded

WIDTH = 8
PACKED_CHANNELS = 32


def conv(inputs, outputs, **how):
    return nn.Conv2d(inputs, outputs, 3, padding=1, **how)


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    def __init__(self, *, pooled=False):
        super().__init__()
        self.conv = nn.Sequential(
            conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)
        )
        self.skip, self.fuse, self.pool = nn.Identity(), nn.ReLU(), None
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(4, 4 * WIDTH),
                nn.ReLU(inplace=True),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return self.fuse(self.conv(x) + self.skip(x))


def up():
    return nn.Upsample(scale_factor=2), conv(WIDTH, WIDTH, bias=False), Block(), Block()


def down(*, pooled=False):
    return conv(WIDTH, WIDTH, stride=2, bias=False), Block(pooled=pooled), Block(pooled=pooled)


class Decoder(nn.Sequential):
    def __init__(self, latent, *, pooled=False):
        near = (Clamp(), conv(latent, WIDTH), nn.ReLU(), Block(pooled=pooled))
        super().__init__(*near, *up(), *up(), *up(), conv(WIDTH, 3))


class Encoder(nn.Sequential):
    def __init__(self, latent, *, pooled=False):
        far = (conv(3, WIDTH), Block(), *down(), *down())
        super().__init__(*far, *down(pooled=pooled), conv(WIDTH, latent))


class PackedDecoder(Decoder):
    def forward(self, x):
        items, channels, height, width = x.shape
        x = x.view(items, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return super().forward(x.reshape(items, channels // 4, 2 * height, 2 * width))


class PackedEncoder(Encoder):
    def forward(self, x):
        z = super().forward(x)
        items, channels, height, width = z.shape
        z = z.view(items, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return z.reshape(items, 4 * channels, height // 2, width // 2)


class ToyTaesd(nn.Module):
    def __init__(self, *, packed=False):
        super().__init__()
        self.latent_channels = 4 * PACKED_CHANNELS if packed else 4
        inner = PACKED_CHANNELS if packed else 4
        self.taesd_decoder = (PackedDecoder if packed else Decoder)(inner, pooled=packed)
        self.taesd_encoder = (PackedEncoder if packed else Encoder)(inner, pooled=packed)
        seeded(self)
        self.vae_scale = nn.Parameter(torch.tensor(1.3), requires_grad=False)
        self.vae_shift = nn.Parameter(torch.tensor(0.2), requires_grad=False)

    def decode(self, z):
        return self.taesd_decoder((z - self.vae_shift) * self.vae_scale).sub(0.5).mul(2)

    def encode(self, x):
        return self.taesd_encoder(x * 0.5 + 0.5) / self.vae_scale + self.vae_shift
