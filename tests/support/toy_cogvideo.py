"""A small decoder built as CogVideoX's is, with a forward of its own to compare with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .toy_decoders import seeded

GROUPS = 4
ROLL = 4


class Causal(nn.Module):
    """Zeros around; in front the frames it saw last, or the first one repeated."""

    def __init__(self, inputs, outputs, kernel=3):
        super().__init__()
        self.time_kernel_size = kernel
        self.pad_mode = "first" if kernel > 1 else "constant"
        edge = kernel // 2
        self.conv = nn.Conv3d(inputs, outputs, kernel, padding=(0, edge, edge))

    def forward(self, x, conv_cache=None):
        looks_back = self.time_kernel_size - 1
        if not looks_back:
            return self.conv(x), None
        past = x[:, :, :1].expand(-1, -1, looks_back, -1, -1) if conv_cache is None else conv_cache
        x = torch.cat([past, x], dim=2)
        return self.conv(x), x[:, :, -looks_back:].clone()


class Rolled:
    """Calls convolutions one chunk of time after the other."""

    def __init__(self):
        self._pasts = {}

    def __call__(self, convolution, x):
        x, self._pasts[convolution] = convolution(x, conv_cache=self._pasts.get(convolution))
        return x


class Conditioned(nn.Module):
    def __init__(self, channels, latent_channels):
        super().__init__()
        self.norm_layer = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.conv_y = Causal(latent_channels, channels, 1)
        self.conv_b = Causal(latent_channels, channels, 1)

    def forward(self, x, latent):
        latent = stretched(latent, x.shape[2])
        latent = functional.interpolate(latent, size=x.shape[2:])
        return self.norm_layer(x) * self.conv_y(latent)[0] + self.conv_b(latent)[0]


def stretched(latent, frames):
    """In time; where frames are odd in number, the first stays one."""
    if frames == latent.shape[2]:
        return latent
    alone = frames % 2
    rest = latent[:, :, alone:].repeat_interleave(
        (frames - alone) // (latent.shape[2] - alone), dim=2
    )
    return torch.cat([latent[:, :, :alone], rest], dim=2)


class Block(nn.Module):
    def __init__(self, inputs, outputs, latent_channels):
        super().__init__()
        self.nonlinearity = nn.SiLU()
        self.norm1, self.conv1 = Conditioned(inputs, latent_channels), Causal(inputs, outputs)
        self.norm2, self.conv2 = Conditioned(outputs, latent_channels), Causal(outputs, outputs)
        self.conv_shortcut = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, latent, rolled):
        h = rolled(self.conv1, self.nonlinearity(self.norm1(x, latent)))
        h = rolled(self.conv2, self.nonlinearity(self.norm2(h, latent)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Upsample(nn.Module):
    """Twice as large; also twice as many frames, but for the first of an odd number."""

    def __init__(self, channels, *, compress_time):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.compress_time = compress_time

    def forward(self, x):
        frames = x.shape[2]
        if self.compress_time and frames > 1:
            x = stretched(x, 2 * frames - frames % 2)
        x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return torch.stack([self.conv(frame) for frame in x.unbind(2)], dim=2)


class Level(nn.Module):
    def __init__(self, inputs, outputs, latent_channels, *, upsampler=None):
        super().__init__()
        self.resnets = nn.ModuleList(
            [Block(inputs, outputs, latent_channels), Block(outputs, outputs, latent_channels)]
        )
        self.upsamplers = None if upsampler is None else nn.ModuleList([upsampler])

    def forward(self, x, latent, rolled):
        for block in self.resnets:
            x = block(x, latent, rolled)
        for layer in self.upsamplers or ():
            x = layer(x)
        return x


class Network(nn.Module):
    def __init__(self, channels, widths, in_time):
        super().__init__()
        self.conv_in = Causal(channels, widths[0])
        self.mid_block = Level(widths[0], widths[0], channels)
        self.up_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            is_last = index == len(widths) - 1
            upsampler = None if is_last else Upsample(width, compress_time=index < in_time)
            self.up_blocks.append(
                Level(widths[max(0, index - 1)], width, channels, upsampler=upsampler)
            )
        self.norm_out, self.conv_act = Conditioned(widths[-1], channels), nn.SiLU()
        self.conv_out = Causal(widths[-1], 3)


class ToyCogVideo(nn.Module):
    """From ``[1, 4, t, h, w]`` to ``[1, 3, 4 * t, 8 * h, 8 * w]``; an odd ``t`` gives three
    frames less."""

    def __init__(self, channels=4, widths=(16, 16, 8, 8), in_time=2):
        super().__init__()
        self.temporal_compression_ratio = 2**in_time
        self.encoder = nn.Identity()
        self.decoder = Network(channels, widths, in_time)
        self._in_time = in_time
        seeded(self)

    def decode(self, z):
        return self._decode_rolling(z)

    def _decode_rolling(self, z):
        network, at_once = self.decoder, Rolled()
        x = network.mid_block(at_once(network.conv_in, z), z, at_once)
        for level in network.up_blocks[: self._in_time]:
            x = level(x, z, at_once)
        latents = stretched(z, x.shape[2]).split(ROLL, dim=2)
        rolled = Rolled()
        made = [
            self._pixels(part, beside, rolled)
            for part, beside in zip(x.split(ROLL, dim=2), latents, strict=True)
        ]
        return torch.cat(made, dim=2)

    def _pixels(self, x, latent, rolled):
        network = self.decoder
        for level in network.up_blocks[self._in_time :]:
            x = level(x, latent, rolled)
        return rolled(network.conv_out, network.conv_act(network.norm_out(x, latent)))
