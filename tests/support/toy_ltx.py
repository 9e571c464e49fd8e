"""Small autoencoders built as LTX's are. Told at once that time ends, they need no streaming at
all; given a clip in pieces, they give their results late and keep what is needed, by thread."""

from __future__ import annotations

from math import ceil, prod
from threading import get_ident

import torch
from torch import nn
from torch.nn import functional

MOST_BYTES = [1 << 40]
"""What the toy's decoder gives a layer at once; tests change it."""


def get_max_chunk_size(device):
    return MOST_BYTES[0]


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


def end(module):
    """Time ends with what is given next."""
    for part in module.modules():
        if isinstance(part, CausalConv3d):
            part.keep((part.kept((None, False))[0], True))


def forget(module):
    for part in module.modules():
        if isinstance(part, Remembering):
            part.temporal_cache_state.pop(get_ident(), None)
