"""A small decoder built as Cosmos's is, with a forward of its own to compare with."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .toy_decoders import per_frame, seeded

LATENT = 4
TABLE = 3
"""Latent frames with means and deviations of their own."""


class Causal(nn.Module):
    """The first frame repeated in front, zeros around."""

    def __init__(self, inputs, outputs, kernel):
        super().__init__()
        self.pad_mode, self.time_pad = "constant", kernel[0] - 1
        self.spatial_pad = (kernel[-1] // 2,) * 4
        self.conv3d = nn.Conv3d(inputs, outputs, kernel)

    def forward(self, x):
        x = torch.cat([x[:, :, :1]] * self.time_pad + [x], dim=2)
        return self.conv3d(functional.pad(x, (*self.spatial_pad, 0, 0)))


def point(inputs, outputs):
    return Causal(inputs, outputs, (1, 1, 1))


def factors(inputs, outputs):
    """A convolution in space, then one in time."""
    return nn.Sequential(Causal(inputs, outputs, (1, 3, 3)), Causal(outputs, outputs, (3, 1, 1)))


class FrameNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.num_groups = 1
        self.norm = nn.GroupNorm(1, channels, eps=1e-6)

    def forward(self, x):
        return per_frame(self.norm, x)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm1, self.conv1 = FrameNorm(inputs), factors(inputs, outputs)
        self.norm2, self.conv2 = FrameNorm(outputs), factors(outputs, outputs)
        self.dropout = nn.Dropout(0.0)
        self.nin_shortcut = nn.Identity() if inputs == outputs else point(inputs, outputs)

    def forward(self, x):
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(self.dropout(functional.silu(self.norm2(h))))
        return self.nin_shortcut(x) + h


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = FrameNorm(channels)
        self.q, self.k, self.v = (point(channels, channels) for _ in range(3))
        self.proj_out = point(channels, channels)

    def forward(self, x):
        h = self.norm(x)
        return x + self.proj_out(self.mixed(self.q(h), self.k(h), self.v(h)))


class SpaceAttention(Attention):
    """Pixels of a frame see each other."""

    def __init__(self, channels):
        super().__init__(channels)
        self.optimized_attention = functional.scaled_dot_product_attention

    def mixed(self, *parts):
        shape = parts[0].shape
        q, k, v = (part[0].permute(1, 2, 3, 0).flatten(1, 2) for part in parts)
        seen = self.optimized_attention(q, k, v)
        return seen.view(*shape[2:], shape[1]).permute(3, 0, 1, 2).unsqueeze(0)


class TimeAttention(Attention):
    """Frames of a pixel see those before them."""

    def mixed(self, *parts):
        shape = parts[0].shape
        q, k, v = (part[0].permute(2, 3, 1, 0).flatten(0, 1) for part in parts)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return seen.view(*shape[3:], *shape[2:3], shape[1]).permute(3, 2, 0, 1).unsqueeze(0)


def attention(channels):
    return nn.Sequential(SpaceAttention(channels), TimeAttention(channels))


class Upsample(nn.Module):
    def __init__(self, channels, *, space, time):
        super().__init__()
        self.spatial_up, self.temporal_up = space, time
        if space or time:
            self.conv1 = Causal(channels, channels, (3, 1, 1))
            self.conv2 = Causal(channels, channels, (1, 3, 3))
            self.conv3 = point(channels, channels)

    def forward(self, x):
        if not self.spatial_up and not self.temporal_up:
            return x
        if self.temporal_up:
            x = x.repeat_interleave(2, dim=2)[:, :, 1:] if x.shape[2] > 1 else x
            x = self.conv1(x) + x
        if self.spatial_up:
            x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            x = self.conv2(x) + x
        return self.conv3(x)


class Unpack(nn.Module):
    """Channels become frames and pixels; the first frames are dropped."""

    def __init__(self, patch_size):
        super().__init__()
        self.patch_size, self.patch_method = patch_size, "rearrange"

    def forward(self, x):
        size = self.patch_size
        items, channels, frames, height, width = x.shape
        x = x.view(items, channels // size**3, size, size, size, frames, height, width)
        x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
        x = x.reshape(items, -1, frames * size, height * size, width * size)
        return x[:, :, size - 1 :]


class Decoder(nn.Module):
    def __init__(self, growths, widths, patch_size, *, attention_at):
        super().__init__()
        top = widths[-1]
        self.conv_in = factors(LATENT, top)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.block_2 = Block(top, top), Block(top, top)
        self.mid.attn_1 = attention(top)
        self.up = nn.ModuleList()
        for index, (width, before) in enumerate(zip(widths, [*widths[1:], top], strict=True)):
            level = nn.Module()
            level.block = nn.ModuleList([Block(before, width), Block(width, width)])
            level.attn = nn.ModuleList(
                [attention(width) for _ in level.block] if index == attention_at else []
            )
            if index:
                space, time = growths[index - 1]
                level.upsample = Upsample(width, space=space, time=time)
            self.up.append(level)
        self.norm_out = FrameNorm(widths[0])
        self.conv_out = factors(widths[0], 3 * patch_size**3)
        self.unpatcher3d = Unpack(patch_size)

    def forward(self, x):
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(self.conv_in(x))))
        for index in reversed(range(len(self.up))):
            level = self.up[index]
            for number, block in enumerate(level.block):
                x = block(x)
                x = level.attn[number](x) if len(level.attn) else x
            x = level.upsample(x) if index else x
        return self.unpatcher3d(self.conv_out(functional.silu(self.norm_out(x))))


class ToyCosmos(nn.Module):
    """Twice as large and as long, then patches of two pixels and frames."""

    def __init__(self, growths=((True, True),), widths=(4, 8), *, attention_at=None, patch_size=2):
        super().__init__()
        self.encoder, self.quant_conv, self.distribution = (nn.Identity() for _ in range(3))
        self.post_quant_conv = point(LATENT, LATENT)
        self.decoder = Decoder(growths, widths, patch_size, attention_at=attention_at)
        self.sigma_data = 0.5
        seeded(self)
        self.latent_mean = nn.Parameter(torch.linspace(-1, 1, LATENT * TABLE))
        self.latent_std = nn.Parameter(torch.linspace(0.5, 2, LATENT * TABLE))

    def decode(self, z):
        frame = torch.arange(z.shape[2]) % TABLE
        mean, deviation = (
            table.detach().view(LATENT, TABLE)[:, frame].view(1, LATENT, -1, 1, 1)
            for table in (self.latent_mean, self.latent_std)
        )
        return self.decoder(self.post_quant_conv(z / self.sigma_data * deviation + mean))
