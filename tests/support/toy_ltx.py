"""Small autoencoders built as LTX's are. Told at once that time ends, they need no streaming at
all; given a clip in pieces, they give their results late and keep what is needed, by thread."""

from __future__ import annotations

from math import ceil

import torch
from torch import nn
from torch.nn import functional

from .toy_ltx_layers import (
    CausalConv3d,
    Down,
    Embedder,
    Middle,
    PixelNorm,
    Resnet,
    Up,
    end,
    forget,
)

MOST_BYTES = [1 << 40]
"""What the toy's decoder gives a layer at once; tests change it."""


def get_max_chunk_size(device):
    return MOST_BYTES[0]


class Decoder(nn.Module):
    def __init__(self, latent, width, blocks, *, causal, timed, patch):
        super().__init__()
        self.causal, self.timestep_conditioning, self.patch_size = causal, timed, patch
        self.conv_in = CausalConv3d(latent, width, mode="reflect")
        self.up_blocks = nn.ModuleList(blocks)
        out = 3 * patch**2
        ends = blocks[-1].res_blocks[-1].out_channels
        self.conv_norm_out, self.conv_act = PixelNorm(), nn.SiLU()
        self.conv_out = CausalConv3d(ends, out, mode="reflect")
        self.last_scale_shift_table = nn.Parameter(torch.zeros(2, ends), requires_grad=False)
        if timed:
            self.timestep_scale_multiplier = nn.Parameter(torch.tensor(1000.0))
            self.last_time_embedder = Embedder(2 * ends)

    def forward(self, x, timestep):
        told = None
        if self.timestep_conditioning:
            told = torch.tensor(timestep) * self.timestep_scale_multiplier
        made = []
        try:
            end(self.conv_in)
            self.up(0, self.conv_in(x, self.causal), told, made, ended=True)
        finally:
            forget(self)
        return torch.cat([each for each in made if each.shape[2]], dim=2)

    def up(self, index, x, told, made, *, ended):
        """As LTX's decoder does: what a block made goes on in chunks of so many bytes."""
        if index == len(self.up_blocks):
            made.append(self.pixels(x, told, ended=ended))
            return
        block = self.up_blocks[index]
        if ended:
            end(block)
        timed = isinstance(block, Middle) and block.timestep_conditioning
        x = block(x, self.causal, told) if timed else block(x, self.causal)
        if x is None or not x.shape[2]:
            return
        chunks = x.chunk(ceil(x.numel() * x.element_size() / get_max_chunk_size(x.device)), dim=2)
        for number, chunk in enumerate(chunks, start=1):
            self.up(index + 1, chunk, told, made, ended=ended and number == len(chunks))

    def pixels(self, x, told, *, ended):
        x = self.conv_norm_out(x)
        if self.timestep_conditioning:
            ends = self.last_time_embedder(told.flatten(), None, None, x.shape[0], x.dtype)
            table = self.last_scale_shift_table[None, :, :, None, None, None]
            shift, scale = (table + ends.view(1, 2, -1, 1, 1, 1)).unbind(1)
            x = x * (1 + scale) + shift
        if ended:
            end(self.conv_out)
        x = self.conv_out(self.conv_act(x), self.causal)
        return unpatch(x, self.patch_size) if x.shape[2] else x.new_empty(1, 3, 0, 1, 1)


class Encoder(nn.Module):
    def __init__(self, latent, width, blocks, ends, *, patch, latent_log_var):
        super().__init__()
        self.patch_size, self.latent_channels = patch, latent
        self.latent_log_var = latent_log_var
        self.conv_in = CausalConv3d(3 * patch**2, width)
        self.down_blocks = nn.ModuleList(blocks)
        self.conv_norm_out, self.conv_act = PixelNorm(), nn.SiLU()
        more = latent if latent_log_var == "per_channel" else 1
        self.conv_out = CausalConv3d(ends, latent + more)

    def forward(self, x):
        try:
            x = self.conv_in(patch(x, self.patch_size))
            for block in self.down_blocks:
                x = block(x)
            return self.conv_out(self.conv_act(self.conv_norm_out(x)))
        finally:
            forget(self)


class Statistics(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.register_buffer("mean", torch.linspace(-0.3, 0.3, latent).view(1, -1, 1, 1, 1))
        self.register_buffer("std", torch.linspace(0.8, 1.2, latent).view(1, -1, 1, 1, 1))

    def normalize(self, x):
        return (x - self.mean) / self.std

    def un_normalize(self, x):
        return x * self.std + self.mean


ALL, SPACE, TIME = (2, 2, 2), (1, 2, 2), (2, 1, 1)
LATENT_CHANNELS = 4


class ToyLtx(nn.Module):
    """As the first version has it.

    Args:
        timed: the decoder is told a time step, and noise is mixed into the latent.
        noisy: layers draw noise of their own.
        causal: the decoder does not look ahead.
    """

    def __init__(self, *, timed=False, noisy=False, causal=False, latent_log_var="uniform"):
        super().__init__()
        self.timestep_conditioning = timed
        self.decode_noise_scale, self.decode_timestep = 0.3, 0.05
        self.encoder = self.make_encoder(latent_log_var)
        self.decoder = self.make_decoder(causal=causal, timed=timed, noisy=noisy)
        self.per_channel_statistics = Statistics(LATENT_CHANNELS)

    def make_decoder(self, *, causal, timed, noisy):
        kind = {"timed": timed, "noisy": noisy, "mode": "reflect"}
        blocks = [
            Middle(16, 1, **kind),
            Up(16, ALL, 2, residual=True, mode="reflect"),
            Middle(8, 1, **kind),
            Up(8, ALL, mode="reflect"),
            Resnet(8, 4, mode="reflect"),
            Middle(4, 1, **kind),
            Up(4, ALL, mode="reflect"),
            Middle(4, 1, timed=timed, mode="reflect"),
        ]
        return Decoder(LATENT_CHANNELS, 16, blocks, causal=causal, timed=timed, patch=2)

    def make_encoder(self, latent_log_var):
        blocks = [
            Middle(4, 1),
            CausalConv3d(4, 4, ALL),
            Resnet(4, 8),
            CausalConv3d(8, 8, ALL),
            Middle(8, 1),
            CausalConv3d(8, 8, ALL),
            Middle(8, 1),
        ]
        return Encoder(LATENT_CHANNELS, 4, blocks, 8, patch=2, latent_log_var=latent_log_var)

    def decode(self, x):
        if self.timestep_conditioning:
            share = self.decode_noise_scale
            x = torch.randn_like(x) * share + (1.0 - share) * x
        x = self.per_channel_statistics.un_normalize(x)
        return self.decoder(x, self.decode_timestep)

    def encode(self, x):
        x = x[:, :, : 1 + (x.shape[2] - 1) // 8 * 8]
        return self.per_channel_statistics.normalize(self.encoder(x)[:, :LATENT_CHANNELS])


class ToyLtx23(ToyLtx):
    """As later versions have it: space and time change apart."""

    def make_decoder(self, *, causal, timed, noisy):
        kind = {"timed": timed, "noisy": noisy}
        blocks = [
            Middle(16, 1, **kind),
            Up(16, ALL, 2, residual=True),
            Middle(8, 1, **kind),
            Up(8, ALL, residual=True),
            Middle(8, 1, **kind),
            Up(8, TIME, 2),
            Middle(4, 1, **kind),
            Up(4, SPACE),
            Middle(4, 1, **kind),
        ]
        return Decoder(LATENT_CHANNELS, 16, blocks, causal=causal, timed=timed, patch=2)

    def make_encoder(self, latent_log_var):
        blocks = [
            Middle(4, 1),
            Down(4, 8, SPACE),
            Middle(8, 1),
            Down(8, 8, TIME),
            Down(8, 16, ALL),
            Middle(16, 1),
            Down(16, 16, ALL),
            Middle(16, 1),
        ]
        return Encoder(LATENT_CHANNELS, 4, blocks, 16, patch=2, latent_log_var=latent_log_var)


def unpatch(x, size):
    """Channels hold columns before rows."""
    items, channels, frames, height, width = x.shape
    x = functional.pixel_shuffle(
        x.view(items, -1, size, size, frames, height, width)
        .transpose(2, 3)
        .reshape(items, channels, frames, height, width)
        .transpose(1, 2),
        size,
    )
    return x.transpose(1, 2)


def patch(x, size):
    items, colours, frames, height, width = x.shape
    x = functional.pixel_unshuffle(x.transpose(1, 2), size).transpose(1, 2)
    x = x.reshape(items, colours, size, size, frames, height // size, width // size)
    return x.transpose(2, 3).flatten(1, 3)
