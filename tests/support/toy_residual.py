"""Small autoencoders built as those of Stable Diffusion and Hunyuan video are, with forwards of
their own to compare with: pictures, and clips carried in chunks of time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from .toy_decoders import seeded

GROUPS = 4
CHUNK = 2
"""Latent frames that a carried network runs at once."""


def group_norm(channels):
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def flat(inputs, outputs, kernel=3):
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def deep(inputs, outputs, kernel=3):
    return nn.Conv3d(inputs, outputs, kernel, padding=kernel // 2)


class Carried(nn.Module):
    """Pads nothing itself."""

    def __init__(self, inputs, outputs, kernel=3, stride=1):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride=stride)

    def forward(self, x):
        return self.conv(x)


def convolved(convolution, x, past=None, kept=None):
    """Carried ones get the border repeated and the past in front; others pad themselves."""
    if isinstance(convolution, Carried):
        x = functional.pad(x, (1, 1, 1, 1, 2 if past is None else 0, 0), mode="replicate")
        if past is not None:
            x = torch.cat([past.pop(0), x], dim=2)
        if kept is not None:
            kept.append(x[:, :, -2:].clone())
    return convolution(x)


class Block(nn.Module):
    def __init__(self, inputs, outputs, conv, norm):
        super().__init__()
        self.swish = nn.SiLU(inplace=True)
        self.norm1, self.conv1 = norm(inputs), conv(inputs, outputs)
        self.norm2, self.conv2 = norm(outputs), conv(outputs, outputs)
        self.dropout = nn.Dropout(0.0, inplace=True)
        if inputs != outputs:
            self.nin_shortcut = conv(inputs, outputs, 1)

    def forward(self, x, temb=None, conv_carry_in=None, conv_carry_out=None):
        h = convolved(self.conv1, self.swish(self.norm1(x)), conv_carry_in, conv_carry_out)
        h = self.dropout(self.swish(self.norm2(h)))
        h = convolved(self.conv2, h, conv_carry_in, conv_carry_out)
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, channels, point, norm):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k = point(channels, channels, 1), point(channels, channels, 1)
        self.v, self.proj_out = point(channels, channels, 1), point(channels, channels, 1)

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.proj_out(seen.reshape(x.shape))


class Upsample(nn.Module):
    """Doubles the first frame in space only where time doubles too."""

    def __init__(self, channels, conv, factors):
        super().__init__()
        self.scale_factor = factors
        self.conv = conv(channels, channels)

    def forward(self, x, conv_carry_in=None, conv_carry_out=None):
        if x.ndim == 5 and self.scale_factor != (1.0, 2.0, 2.0) and conv_carry_in is None:
            first = functional.interpolate(x[:, :, :1], scale_factor=(1.0, 2.0, 2.0))
            rest = x[:, :, 1:]
            if rest.shape[2]:
                first = torch.cat([first, functional.interpolate(rest, scale_factor=2.0)], dim=2)
            x = first
        else:
            x = functional.interpolate(x, scale_factor=self.scale_factor)
        return convolved(self.conv, x, conv_carry_in, conv_carry_out)


class Downsample(nn.Module):
    def __init__(self, channels, carried, stride):
        super().__init__()
        if carried:
            self.conv = Carried(channels, channels, 3, stride)
        else:
            self.conv = nn.Conv2d(channels, channels, 3, stride)

    def forward(self, x, conv_carry_in=None, conv_carry_out=None):
        if isinstance(self.conv, Carried):
            return convolved(self.conv, x, conv_carry_in, conv_carry_out)
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    def __init__(self, widths, conv, norm, *, attention=False):
        super().__init__()
        self.block = nn.ModuleList(Block(a, b, conv, norm) for a, b in pairwise(widths))
        self.attn = nn.ModuleList()
        if attention:
            self.attn.extend(Attention(width, flat, norm) for width in widths[1:])


class Half(nn.Module):
    """What encoders and decoders share."""

    def __init__(self, inputs, outputs, first, top, conv):
        super().__init__()
        self.carried = conv is Carried
        point = deep if self.carried else flat
        self.conv_in = conv(inputs, first)
        self.mid = nn.Module()
        self.mid.block_1 = Block(top, top, conv, group_norm)
        self.mid.attn_1 = Attention(top, point, group_norm)
        self.mid.block_2 = Block(top, top, conv, group_norm)

    def middle(self, x):
        return self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))

    def head(self, x, past=None, kept=None):
        return convolved(self.conv_out, functional.silu(self.norm_out(x)), past, kept)

    def in_chunks(self, chunks, run):
        made, past = [], None
        for chunk in chunks:
            kept = []
            made.append(run(chunk, past, kept))
            past = kept
        return torch.cat(made, dim=2)


class Encoder(Half):
    def __init__(self, latent, widths, conv, attention_at=None):
        super().__init__(3, 2 * latent, widths[0], widths[-1], conv)
        self.time_compress = 4
        self.down = nn.ModuleList()
        for index, (before, width) in enumerate(pairwise((widths[0], *widths))):
            level = Level([before, width], conv, group_norm, attention=index == attention_at)
            if index < len(widths) - 1:
                stride = (1, 2, 2) if index == 0 else 2
                level.downsample = Downsample(width, self.carried, stride if self.carried else 2)
            self.down.append(level)
        self.norm_out, self.conv_out = group_norm(widths[-1]), conv(widths[-1], 2 * latent)

    def forward(self, x):
        if not self.carried:
            x = self.way(x)
        else:
            whole = 1 + (x.shape[2] - 1) // 4 * 4
            rest = x[:, :, 1:whole].split(4 * CHUNK, dim=2) if whole > 1 else ()
            x = self.in_chunks([x[:, :, :1], *rest], self.way)
        return self.head(self.middle(x))

    def way(self, x, past=None, kept=None):
        x = convolved(self.conv_in, x, past, kept)
        for level in self.down:
            for index, block in enumerate(level.block):
                x = block(x, None, past, kept)
                x = level.attn[index](x) if len(level.attn) else x
            if hasattr(level, "downsample"):
                x = level.downsample(x, past, kept)
        return x


class Decoder(Half):
    def __init__(self, latent, widths, conv, attention_at=None):
        super().__init__(latent, 3, widths[-1], widths[-1], conv)
        self.tanh_out = False
        self.up = nn.ModuleList()
        for index, (width, before) in enumerate(pairwise((*widths, widths[-1]))):
            blocks = [before, width, width]
            level = Level(blocks, conv, group_norm, attention=index == attention_at)
            if index:
                factors = (1.0, 2.0, 2.0) if self.carried and index == 3 else 2.0
                level.upsample = Upsample(width, conv, factors)
            self.up.append(level)
        self.norm_out, self.conv_out = group_norm(widths[0]), conv(widths[0], 3)

    def forward(self, z):
        x = self.middle(convolved(self.conv_in, z))
        x = self.in_chunks(x.split(CHUNK, dim=2), self.way) if self.carried else self.way(x)
        return torch.tanh(x) if self.tanh_out else x

    def way(self, x, past=None, kept=None):
        for level in reversed(self.up):
            for index, block in enumerate(level.block):
                x = block(x, None, past, kept)
                x = level.attn[index](x) if len(level.attn) else x
            if hasattr(level, "upsample"):
                x = level.upsample(x, past, kept)
        return self.head(x, past, kept)


class Mean(nn.Module):
    sample = False

    def forward(self, z):
        mean, _ = z.chunk(2, dim=1)
        return mean, None


class ToyKl(nn.Module):
    """With convolutions around the latent, as Stable Diffusion's; or without, as Flux 1's."""

    LATENT_CHANNELS = 4

    def __init__(self, *, quantised=True, attention_at=None, widths=(8, 12, 16), conv=flat):
        super().__init__()
        latent = self.LATENT_CHANNELS
        self.regularization = Mean()
        self.encoder = Encoder(latent, widths, conv, attention_at)
        self.decoder = Decoder(latent, widths, conv, attention_at)
        point = deep if conv is Carried else flat
        if quantised:
            self.quant_conv = point(2 * latent, 2 * latent, 1)
            self.post_quant_conv = point(latent, latent, 1)
        seeded(self)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z)

    def encode(self, x):
        x = self.encoder(x)
        latents, _ = self.regularization(self.quant_conv(x) if hasattr(self, "quant_conv") else x)
        return latents


class ToyHunyuan(ToyKl):
    """The same carried in time."""

    def __init__(self):
        super().__init__(widths=(8, 8, 12, 16), conv=Carried)


class ToyFlux2(ToyKl):
    """Latents standardised and packed two by two."""

    def __init__(self):
        super().__init__()
        self.ps, self.bn_eps = [2, 2], 1e-4
        channels = 4 * self.LATENT_CHANNELS
        self.bn = nn.BatchNorm2d(channels, eps=self.bn_eps, affine=False).eval()
        self.bn.running_mean = torch.linspace(-1, 1, channels)
        self.bn.running_var = torch.linspace(0.5, 2, channels)

    def decode(self, z):
        deviation = (self.bn.running_var.view(1, -1, 1, 1) + self.bn_eps).sqrt()
        z = z * deviation + self.bn.running_mean.view(1, -1, 1, 1)
        items, channels, height, width = z.shape
        z = z.view(items, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return super().decode(z.reshape(items, channels // 4, 2 * height, 2 * width))

    def encode(self, x):
        z = super().encode(x)
        items, channels, height, width = z.shape
        z = z.view(items, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        return self.bn(z.reshape(items, 4 * channels, height // 2, width // 2))
