"""Small networks in the shapes that decoders have, and Programs of them.

Each network has a forward of its own, written without parts: what the engine is held against.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from vram_supervisor.supervisor.decode.program import (
    Carry,
    Phase,
    Place,
    Program,
    Stage,
    all_at_once,
    pieces_of,
)
from vram_supervisor.supervisor.decode.tiles import Rect

GROUPS = 4


def seeded(module: nn.Module, seed: int = 3, *, gain: float = 1.0) -> nn.Module:
    """Random weights that neither fade nor explode, norms' parameters among them."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=draw) * gain / fan**0.5
        if parameter.ndim == 1:
            parameter.data += 0.5
    return module.eval().requires_grad_(requires_grad=False)


def noise(*shape: int, seed: int = 1, mean: float = 0.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + mean


def relative(made, wanted) -> float:
    return float((made.double() - wanted.double()).norm() / wanted.double().norm())


# Pictures with norms over all of space, as image autoencoders are built.


class ResBlock(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = nn.GroupNorm(GROUPS, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x, temb=None):
        h = self.conv1(functional.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(functional.silu(self.norm2(h)))


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        seen = functional.scaled_dot_product_attention(q, k, v)
        return x + seen.transpose(1, 2).reshape(x.shape)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    def __init__(self, channels_in, channels_out, *, blocks, upsamples):
        super().__init__()
        widths = [channels_in] + [channels_out] * blocks
        self.block = nn.ModuleList(ResBlock(a, b) for a, b in pairwise(widths))
        self.attn = nn.ModuleList()
        if upsamples:
            self.upsample = Upsample(channels_out)


class KlDecoder(nn.Module):
    def __init__(self, latent=4, widths=(8, 16), blocks=2):
        super().__init__()
        top = widths[-1]
        self.conv_in = nn.Conv2d(latent, top, 3, padding=1)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.attn_1 = ResBlock(top, top), Attention(top)
        self.mid.block_2 = ResBlock(top, top)
        before = [*widths[1:], top]
        self.up = nn.ModuleList(
            Level(before[level], width, blocks=blocks, upsamples=level > 0)
            for level, width in enumerate(widths)
        )
        self.norm_out = nn.GroupNorm(GROUPS, widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z):
        x = self.conv_in(z)
        x = self.mid.block_2(self.mid.attn_1(self.mid.block_1(x)))
        for level in reversed(range(len(self.up))):
            for block in self.up[level].block:
                x = block(x)
            if level:
                x = self.up[level].upsample(x)
        return self.conv_out(functional.silu(self.norm_out(x)))


class Kl(nn.Module):
    """An image autoencoder's decoding half."""

    def __init__(self, latent=4, widths=(8, 16), blocks=2):
        super().__init__()
        self.post_quant_conv = nn.Conv2d(latent, latent, 1)
        self.decoder = KlDecoder(latent, widths, blocks)
        seeded(self)

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z))

    def program(self) -> Program:
        """Middle whole, then block by block: groups are normalised over all of the picture."""
        network = self.decoder

        def middle(z):
            x = network.conv_in(self.post_quant_conv(z))
            return network.mid.block_2(network.mid.attn_1(network.mid.block_1(x)))

        stages = [simple("middle", middle, whole=True)]
        for level in reversed(range(len(network.up))):
            up = network.up[level]
            stages += [
                simple(f"level {level} block {index}", block, halo=2)
                for index, block in enumerate(up.block)
            ]
            if level:
                larger = simple(f"level {level} upsampling", up.upsample, halo=1, scale=Fraction(2))
                stages.append(larger)
        stages.append(simple("pixels", self.pixels, halo=1))
        return chain(*stages)

    def pixels(self, x):
        network = self.decoder
        return network.conv_out(functional.silu(network.norm_out(x)))


# Any chain of layers as a Program.


def simple(name, layer, **how) -> Stage:
    """A stage without memory."""

    def run(x, carry, place):
        return layer(x)

    return Stage(name, run, **how)


def chain(*stages: Stage, chunks=all_at_once) -> Program:
    return Program((Phase(stages, chunks),))


def run_whole(program: Program, source: torch.Tensor) -> torch.Tensor:
    """All stages on all of the picture, chunk by chunk: no parts, no engine."""
    for phase in program.phases:
        total = source.shape[2] if source.ndim == 5 else 1
        carries = [Carry() for _ in phase.stages]
        made, first = [], 0
        for length in phase.chunks(total):
            x = source[:, :, first : first + length] if source.ndim == 5 else source
            for stage, carry in zip(phase.stages, carries, strict=True):
                height, width = x.shape[-2:]
                place = Place(Rect(0, height, 0, width), height, width, first, length, total)
                x = torch.cat(list(pieces_of(stage.run(x, carry, place))), dim=2)
            made.append(x)
            first += length
        source = torch.cat(made, dim=2)
    return source


# An encoder: half the size at each stage, context to the right and below only.


class Downsample(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride=2)

    def forward(self, x):
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Encoder(nn.Module):
    def __init__(self, widths=(3, 8, 8)):
        super().__init__()
        self.first = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.block1, self.down1 = ResBlock(widths[1], widths[1]), Downsample(widths[1], widths[2])
        self.block2, self.down2 = ResBlock(widths[2], widths[2]), Downsample(widths[2], widths[2])
        seeded(self)

    def forward(self, x):
        return self.down2(self.block2(self.down1(self.block1(self.first(x)))))

    def program(self) -> Program:
        half = Fraction(1, 2)
        return chain(
            simple("first", self.first, halo=1),
            simple("block 1", self.block1, halo=2),
            simple("down 1", self.down1, halo=2, scale=half, align=2),
            simple("block 2", self.block2, halo=2),
            simple("down 2", self.down2, halo=2, scale=half, align=2),
        )


# Clips: causal in time, with group norms over each frame.


def per_frame(norm, x):
    """A group norm over each frame of ``[1, C, t, h, w]``."""
    frames = norm(x[0].transpose(0, 1))
    return frames.transpose(0, 1).unsqueeze(0)


class CausalConv(nn.Module):
    def __init__(self, channels_in, channels_out):
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, 3, padding=(0, 1, 1))

    def forward(self, x, past=None):
        if past is None:
            past = torch.zeros_like(x[:, :, :1]).repeat(1, 1, 2, 1, 1)
        return self.conv(torch.cat([past, x], dim=2))


def remembered(x, past):
    """The last two frames that came by."""
    if past is None:
        past = torch.zeros_like(x[:, :, :1]).repeat(1, 1, 2, 1, 1)
    return torch.cat([past, x], dim=2)[:, :, -2:].contiguous()


class ClipBlock(nn.Module):
    """Norm over each frame, then a convolution over three frames of the past."""

    def __init__(self, channels, *, normed=True):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels) if normed else None
        self.conv = CausalConv(channels, channels)

    def forward(self, x, past=None):
        made, _ = self.step(x, past)
        return made

    def step(self, x, past):
        h = x if self.norm is None else per_frame(self.norm, x)
        h = functional.silu(h)
        return x + self.conv(h, past), remembered(h, past)

    def stage(self, name) -> Stage:
        def run(x, carry, place):
            past = None if carry.state is None else carry.state["past"]
            made, kept = self.step(x, past)
            carry.state = {"past": kept}
            return made

        return Stage(name, run, halo=1)


class Clips(nn.Module):
    """Two causal blocks, twice the size and twice the frames between them."""

    def __init__(self, channels=8, *, normed=True):
        super().__init__()
        self.enter = nn.Conv3d(4, channels, 1)
        self.one = ClipBlock(channels, normed=normed)
        self.two = ClipBlock(channels, normed=normed)
        self.out = nn.Conv3d(channels, 3, 1)
        seeded(self, gain=0.7)

    def forward(self, z):
        return self.out(self.two(self.larger(self.one(self.enter(z)))))

    @staticmethod
    def larger(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)

    def phase(self, chunks) -> Phase:
        return Phase(
            (
                simple("enter", self.enter, whole=True),
                self.one.stage("one"),
                simple("larger", self.larger, scale=Fraction(2)),
                self.two.stage("two"),
                simple("out", self.out),
            ),
            chunks,
        )

    def program(self, chunks=all_at_once) -> Program:
        return Program((self.phase(chunks),))

    def streamed(self, chunks=all_at_once, *, halo=2) -> Program:
        """The entrance whole, then everything else tile by tile, frame by frame: no norms."""

        def run(x, carry, place):
            state = carry.state or {"one": None, "two": None}
            x, one = self.one.step(x, state["one"])
            two = state["two"]
            x = self.larger(x)
            for piece in x.split(2, dim=2):
                made, two = self.two.step(piece, two)
                yield self.out(made)
            carry.state = {"one": one, "two": two}

        stage = Stage("up", run, halo=halo, scale=Fraction(2))
        enter = Phase((simple("enter", self.enter, whole=True),), chunks)
        return Program((enter, Phase((stage,), chunks)))


def chunks_of(*lengths):
    """Chunks of these lengths over and over until time ends."""

    def cut(frames):
        found, left, index = [], frames, 0
        while left:
            found.append(min(left, lengths[min(index, len(lengths) - 1)]))
            left -= found[-1]
            index += 1
        return found

    return cut


class Fixed:
    """A sizer: parts of one size, in pixels of the program's input."""

    def __init__(self, rows, columns=None, *, source, resident_bytes=1 << 40, carried_bytes=None):
        self._rows, self._columns = rows, columns or rows
        self._height, self._width = source.shape[-2:]
        self._resident = resident_bytes
        self._carried = resident_bytes if carried_bytes is None else carried_bytes

    def part(self, phase, stage, height, width):
        del phase, stage
        return (
            max(1, self._rows * height // self._height),
            max(1, self._columns * width // self._width),
        )

    def carried_bytes(self):
        return self._carried

    def resident_bytes(self):
        return self._resident
