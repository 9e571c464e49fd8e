"""Small autoencoders built as Wan's are, with whole-clip forwards to compare with.

Without a cache a layer takes the whole clip at once, which needs no streaming at all. With one,
it does what the host's layers do: it keeps the last two frames of each piece and no more, so that
pieces of one frame go wrong, and it keeps a frame that halving time left over for the next call.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

PAST = 2
REACH = 3
"""Latents that both ways of both networks see."""


class CausalConv3d(nn.Conv3d):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        super().__init__(inputs, outputs, kernel, stride=stride, padding=(0, padding, padding))
        self._padding = 2 * padding

    def forward(self, x, past=None):
        if past is not None:
            x = torch.cat([past, x], dim=2)
        missing = self._padding - (0 if past is None else past.shape[2])
        return super().forward(functional.pad(x, (0, 0, 0, 0, max(0, missing), 0)))


class TimeConv(CausalConv3d):
    """Three frames, no space."""

    def __init__(self, inputs, outputs, stride, past):
        super().__init__(inputs, outputs, (3, 1, 1), stride=(stride, 1, 1))
        self._padding = past


class PixelNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channel_first = True
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x):
        gamma = self.gamma.view(-1, *[1] * (x.ndim - 2))
        return functional.normalize(x, dim=1) * x.shape[1] ** 0.5 * gamma


def step(convolution, x, cache, cursor):
    if cache is None:
        return convolution(x)
    slot = cursor[0]
    cursor[0] += 1
    past, cache[slot] = cache[slot], x[:, :, -PAST:]
    return convolution(x, past)


class Residual(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.residual = nn.Sequential(
            PixelNorm(inputs),
            nn.SiLU(),
            CausalConv3d(inputs, outputs, 3, padding=1),
            PixelNorm(outputs),
            nn.SiLU(),
            nn.Dropout(0.0),
            CausalConv3d(outputs, outputs, 3, padding=1),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else CausalConv3d(inputs, outputs, 1)

    def forward(self, x, cache=None, cursor=None):
        made = x
        for layer in self.residual:
            is_conv = isinstance(layer, nn.Conv3d)
            made = step(layer, made, cache, cursor) if is_conv else layer(made)
        return made + self.shortcut(x)


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = PixelNorm(channels)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        items = x.transpose(1, 2).flatten(0, 1)
        query, key, value = self.to_qkv(self.norm(items)).flatten(2).transpose(1, 2).chunk(3, -1)
        seen = functional.scaled_dot_product_attention(query, key, value)
        made = self.proj(seen.transpose(1, 2).reshape(items.shape))
        return x + made.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


def frame_by_frame(layers, x):
    made = layers(x.transpose(1, 2).flatten(0, 1))
    return made.unflatten(0, (x.shape[0], -1)).transpose(1, 2)


class Up(nn.Module):
    def __init__(self, inputs, outputs, mode):
        super().__init__()
        self.mode = mode
        larger = nn.Upsample(scale_factor=(2.0, 2.0), mode="nearest-exact")
        self.resample = nn.Sequential(larger, nn.Conv2d(inputs, outputs, 3, padding=1))
        if mode == "upsample3d":
            self.time_conv = TimeConv(inputs, 2 * inputs, 1, past=PAST)

    def forward(self, x, cache=None, cursor=None):
        if self.mode == "upsample3d":
            x = self._whole(x) if cache is None else self._streamed(x, cache, cursor)
        return frame_by_frame(self.resample, x)

    def _whole(self, x):
        first, rest = x[:, :, :1], x[:, :, 1:]
        return torch.cat([first, self._doubled(rest)], dim=2) if rest.shape[2] else first

    def _streamed(self, x, cache, cursor):
        slot = cursor[0]
        cursor[0] += 1
        past = cache[slot]
        cache[slot] = "begun" if past is None else x[:, :, -PAST:]
        return x if past is None else self._doubled(x, None if past == "begun" else past)

    def _doubled(self, x, past=None):
        even, odd = self.time_conv(x, past).chunk(2, dim=1)
        return torch.stack([even, odd], dim=3).flatten(2, 3)


class Down(nn.Module):
    def __init__(self, channels, mode):
        super().__init__()
        self.mode = mode
        corner = nn.ZeroPad2d((0, 1, 0, 1))
        self.resample = nn.Sequential(corner, nn.Conv2d(channels, channels, 3, stride=2))
        if mode == "downsample3d":
            self.time_conv = TimeConv(channels, channels, 2, past=0)

    def changed(self, x, cache, cursor):
        x = frame_by_frame(self.resample, x)
        if self.mode == "downsample2d":
            return x
        if cache is None:
            rest = [self.time_conv(x)] if x.shape[2] > 1 else []
            return torch.cat([x[:, :, :1], *rest], dim=2)
        slot = cursor[0]
        past, cache[slot] = cache[slot], x[:, :, -1:]
        return x if past is None else self.time_conv(torch.cat([past, x], dim=2))


class DeferringDown(Down):
    """Keeps a single frame back, as newer hosts do."""

    def forward(self, x, cache=None, cursor=None, final=False):
        starts = cache is not None and cache[cursor[0]] is None
        made = self.changed(x, cache, cursor)
        if cache is None or self.mode == "downsample2d":
            return made
        slot = cursor[0] + 1
        cursor[0] += 2
        if starts:
            return made
        if cache[slot] is not None:
            made, cache[slot] = torch.cat([cache[slot], made], dim=2), None
        if made.shape[2] == 1 and not final:
            made, cache[slot] = None, made
        return made


class PlainDown(Down):
    """Gives what it has, as older hosts do."""

    def forward(self, x, cache=None, cursor=None):
        made = self.changed(x, cache, cursor)
        if cache is not None and self.mode == "downsample3d":
            cursor[0] += 1
        return made


def middle(channels):
    return nn.Sequential(
        Residual(channels, channels), Attention(channels), Residual(channels, channels)
    )


def head(inputs, outputs):
    return nn.Sequential(PixelNorm(inputs), nn.SiLU(), CausalConv3d(inputs, outputs, 3, padding=1))


class Half(nn.Module):
    """Encoder or decoder: the whole clip through everything."""

    def __init__(self, way, inputs, outputs, layers, *, widths):
        super().__init__()
        begin, mid, end = widths
        self.conv1 = CausalConv3d(inputs, begin, 3, padding=1)
        self.middle = middle(mid)
        self.head = head(end, outputs)
        setattr(self, way, nn.Sequential(*layers))

    def forward(self, x):
        down = [*self.downsamples, *self.middle] if hasattr(self, "downsamples") else []
        up = [*self.middle, *self.upsamples] if hasattr(self, "upsamples") else []
        x = self.conv1(x)
        for layer in [*down, *up]:
            x = layer(x)
        return self.head(x)


class ToyWan21(nn.Module):
    """8 pixels a latent, 4 frames; one residual block a level."""

    LATENT_CHANNELS = 2

    def __init__(self, *, down=DeferringDown, way_down=("2d", "3d", "3d")):
        super().__init__()
        wide, narrow, latent = 6, 4, self.LATENT_CHANNELS
        encoder: list[nn.Module] = []
        for mode in way_down:
            encoder += [Residual(wide, wide), down(wide, f"downsample{mode}")]
        decoder: list[nn.Module] = []
        for mode in reversed(way_down):
            decoder += [Residual(wide, wide), Up(wide, wide, f"upsample{mode}")]
        decoder.append(Residual(wide, narrow))
        encoder.append(Residual(wide, wide))
        self.encoder = Half("downsamples", 3, 2 * latent, encoder, widths=(wide, wide, wide))
        self.decoder = Half("upsamples", latent, 3, decoder, widths=(wide, wide, narrow))
        self.conv1 = CausalConv3d(2 * latent, 2 * latent, 1)
        self.conv2 = CausalConv3d(latent, latent, 1)

    def encode(self, x):
        frames = 1 + (x.shape[2] - 1) // 4 * 4
        return self.conv1(self.encoder(x[:, :, :frames])).chunk(2, dim=1)[0]

    def decode(self, z):
        return self.decoder(self.conv2(z))


class Averages(nn.Module):
    """The way around a block on the way down: means over what becomes one."""

    def __init__(self, factor_t, factor_s):
        super().__init__()
        self.factor_t, self.factor_s = factor_t, factor_s

    def forward(self, x):
        x = functional.pad(x, (0, 0, 0, 0, -x.shape[2] % self.factor_t, 0))
        return functional.avg_pool3d(x, (self.factor_t, self.factor_s, self.factor_s))


class Copies(nn.Module):
    """The way around a block on the way up: each value several times."""

    def __init__(self, channels, factor_t, factor_s):
        super().__init__()
        self.in_channels, self.factor_t, self.factor_s = channels, factor_t, factor_s

    def forward(self, x, first):
        x = x.repeat_interleave(self.factor_t, dim=2)
        x = x.repeat_interleave(self.factor_s, dim=3).repeat_interleave(self.factor_s, dim=4)
        return x[:, :, self.factor_t - 1 :] if first else x


class UpBlock(nn.Module):
    def __init__(self, channels, mode):
        super().__init__()
        layers: list[nn.Module] = [Residual(channels, channels)]
        self.avg_shortcut = None
        if mode:
            layers.append(Up(channels, channels, f"upsample{mode}"))
            self.avg_shortcut = Copies(channels, 2 if mode == "3d" else 1, 2)
        self.upsamples = nn.Sequential(*layers)

    def forward(self, x, cache=None, cursor=None, first=True):
        made = x
        for layer in self.upsamples:
            made = layer(made, cache, cursor)
        return made if self.avg_shortcut is None else made + self.avg_shortcut(x, first)


class DownBlock(nn.Module):
    def __init__(self, channels, mode):
        super().__init__()
        layers: list[nn.Module] = [Residual(channels, channels)]
        if mode:
            layers.append(PlainDown(channels, f"downsample{mode}"))
        self.avg_shortcut = Averages(2 if mode == "3d" else 1, 2 if mode else 1)
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x, cache=None, cursor=None):
        made = x
        for layer in self.downsamples:
            made = layer(made, cache, cursor)
        return made + self.avg_shortcut(x)


class ToyWan22(nn.Module):
    """16 pixels a latent, of which two are in the channels; 4 frames."""

    LATENT_CHANNELS = 2

    def __init__(self, *, way_down=("2d", "3d", "3d"), colours=3):
        super().__init__()
        wide, latent = 4, self.LATENT_CHANNELS
        down = [*[DownBlock(wide, mode) for mode in way_down], DownBlock(wide, "")]
        up = [*[UpBlock(wide, mode) for mode in reversed(way_down)], UpBlock(wide, "")]
        widths = (wide, wide, wide)
        self.encoder = Half("downsamples", 4 * colours, 2 * latent, down, widths=widths)
        self.decoder = Half("upsamples", latent, 4 * colours, up, widths=widths)
        self.conv1 = CausalConv3d(2 * latent, 2 * latent, 1)
        self.conv2 = CausalConv3d(latent, latent, 1)

    def encode(self, x):
        x = x[:, :, : 1 + (x.shape[2] - 1) // 4 * 4]
        corners = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        patches = torch.stack(corners, dim=2).flatten(1, 2)
        return self.conv1(self.encoder(patches)).chunk(2, dim=1)[0]

    def decode(self, z):
        made = self.decoder(self.conv2(z)).unflatten(1, (-1, 4))
        items, colours, _, frames, height, width = made.shape
        pixels = made.new_empty(items, colours, frames, 2 * height, 2 * width)
        for index, (column, row) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            pixels[..., row::2, column::2] = made[:, :, index]
        return pixels
