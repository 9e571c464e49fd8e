"""Layers built as LTX's are: given a clip in pieces, they give their results late and keep what is
needed, by thread."""

from __future__ import annotations

from math import ceil, prod
from threading import get_ident

import torch
from torch import nn


def joined(*pieces):
    return torch.cat([piece for piece in pieces if piece is not None], dim=2)


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.temporal_cache_state = {}

    def kept(self, default=None):
        return self.temporal_cache_state.get(get_ident(), default)

    def keep(self, state):
        self.temporal_cache_state[get_ident()] = state


class CausalConv3d(Remembering):
    def __init__(self, inputs, outputs, stride=(1, 1, 1), mode="zeros"):
        super().__init__()
        self.time_kernel_size, self.time_stride = 3, stride[0]
        self.conv = nn.Conv3d(
            inputs, outputs, 3, stride=stride, padding=(0, 1, 1), padding_mode=mode
        )

    def forward(self, x, causal=True):
        past, ended = self.kept((None, False))
        if past is None and not x.shape[2]:
            return self.nothing(x)
        if past is None:
            past = x[:, :, :1].repeat(1, 1, 2 if causal else 1, 1, 1)
        x = joined(past, x, x[:, :, -1:] if ended and not causal else None)
        made = max(0, (x.shape[2] - 3) // self.time_stride + 1)
        self.keep((None if ended else x[:, :, made * self.time_stride :], ended))
        return self.conv(x) if made else self.nothing(x)

    def nothing(self, x):
        """No frames, but as high and wide as the others."""
        _, rows, columns = self.conv.stride
        size = (ceil(x.shape[3] / rows), ceil(x.shape[4] / columns))
        return x.new_empty(x.shape[0], self.conv.out_channels, 0, *size)


class PixelNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.dim, self.eps = 1, 1e-8

    def forward(self, x):
        return x * (x.square().mean(dim=1, keepdim=True) + self.eps).rsqrt()


class LayerNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Embedder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(4, channels)

    def forward(self, timestep, resolution, aspect_ratio, batch_size, hidden_dtype):
        waves = timestep.float()[:, None] * torch.tensor([0.01, 0.02, 0.05, 0.1])
        return self.linear(waves.cos().to(hidden_dtype)).expand(batch_size, -1)


class Resnet(Remembering):
    def __init__(self, inputs, outputs, *, timed=False, noisy=False, mode="zeros"):
        super().__init__()
        self.out_channels = outputs
        self.inject_noise, self.timestep_conditioning = noisy, timed
        self.norm1, self.norm2, self.non_linearity = PixelNorm(), PixelNorm(), nn.SiLU()
        self.conv1 = CausalConv3d(inputs, outputs, mode=mode)
        self.dropout = nn.Dropout(0.0)
        self.conv2 = CausalConv3d(outputs, outputs, mode=mode)
        same = inputs == outputs
        self.conv_shortcut = nn.Identity() if same else nn.Conv3d(inputs, outputs, 1)
        self.norm3 = nn.Identity() if same else LayerNorm(inputs)
        if timed:
            self.table = nn.Parameter(torch.zeros(4, inputs))
        if noisy:
            self.scales = nn.Parameter(torch.zeros(2, outputs, 1, 1))

    def forward(self, x, causal=True, timestep=None):
        told = [0.0] * 4
        if self.timestep_conditioning:
            table = self.table[None, :, :, None, None, None]
            told = (table + timestep.view(1, 4, -1, 1, 1, 1)).unbind(1)
        h = self.norm1(x) * (1 + told[1]) + told[0]
        h = self.noised(self.conv1(self.non_linearity(h), causal), 0)
        h = self.norm2(h) * (1 + told[3]) + told[2]
        h = self.noised(self.conv2(self.non_linearity(h), causal), 1)
        waiting = joined(self.kept(), self.conv_shortcut(self.norm3(x)))
        frames = h.shape[2]
        self.keep(waiting[:, :, frames:])
        return h + waiting[:, :, :frames]

    def noised(self, h, turn):
        if not self.inject_noise:
            return h
        drawn = torch.randn(h.shape[-2:], device=h.device, dtype=h.dtype)[None]
        return h + (drawn * self.scales[turn])[None, :, None]


class Middle(nn.Module):
    def __init__(self, channels, layers, *, timed=False, noisy=False, mode="zeros"):
        super().__init__()
        self.timestep_conditioning = timed
        if timed:
            self.time_embedder = Embedder(4 * channels)
        self.res_blocks = nn.ModuleList(
            Resnet(channels, channels, timed=timed, noisy=noisy, mode=mode) for _ in range(layers)
        )

    def forward(self, x, causal=True, timestep=None):
        told = None
        if self.timestep_conditioning:
            told = self.time_embedder(timestep.flatten(), None, None, x.shape[0], x.dtype)
            told = told.view(x.shape[0], -1, 1, 1, 1)
        for layer in self.res_blocks:
            x = layer(x, causal, told)
        return x


def unfolded(x, stride):
    """Channels to frames and pixels."""
    items, channels, frames, height, width = x.shape
    down, rows, columns = stride
    channels //= prod(stride)
    x = x.view(items, channels, *stride, frames, height, width)
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(items, channels, frames * down, height * rows, width * columns)


def folded(x, stride):
    """The other way round."""
    items, channels, frames, height, width = x.shape
    down, rows, columns = stride
    x = x.view(
        items, channels, frames // down, down, height // rows, rows, width // columns, columns
    )
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(items, -1, frames // down, height // rows, width // columns)


class Up(Remembering):
    def __init__(self, inputs, stride, reduction=1, *, residual=False, mode="zeros"):
        super().__init__()
        self.stride, self.residual = stride, residual
        self.out_channels_reduction_factor = reduction
        self.out_channels = prod(stride) * inputs // reduction
        self.conv = CausalConv3d(inputs, self.out_channels, mode=mode)

    def forward(self, x, causal=True):
        waiting, first, first_waiting = self.kept((None, True, True))
        made = unfolded(self.conv(x, causal), self.stride)
        drops = self.stride[0] == 2
        if drops and first and made.shape[2]:
            made, first = made[:, :, 1:], False
        if self.residual:
            same = unfolded(x, self.stride)
            same = same.repeat(1, made.shape[1] // same.shape[1], 1, 1, 1)
            if drops and first_waiting:
                same, first_waiting = same[:, :, 1:], False
            waiting = joined(waiting, same)
            made, waiting = (
                made + waiting[:, :, : made.shape[2]],
                waiting[:, :, made.shape[2] :],
            )
        self.keep((waiting, first, first_waiting))
        return made if made.shape[2] else None


class Down(Remembering):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.stride, self.group_size = stride, inputs * prod(stride) // outputs
        self.conv = CausalConv3d(inputs, outputs // prod(stride))

    def forward(self, x, causal=True):
        if self.stride[0] == 2 and self.kept() is None:
            x = joined(x[:, :, :1], x)
            self.keep(True)
        means = folded(x, self.stride)
        means = means.unflatten(1, (-1, self.group_size)).mean(dim=2)
        return folded(self.conv(x, causal), self.stride) + means


def end(module):
    """Time ends with what is given next."""
    for part in module.modules():
        if isinstance(part, CausalConv3d):
            part.keep((part.kept((None, False))[0], True))


def forget(module):
    for part in module.modules():
        if isinstance(part, Remembering):
            part.temporal_cache_state.pop(get_ident(), None)
