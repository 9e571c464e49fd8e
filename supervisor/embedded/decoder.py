"""A small but real causal video VAE decoder with seeded weights.

Built like the video decoders in use: causal 3D convolutions with a temporal feature cache,
mid-block attention within each frame, RMS norm over channels, residual blocks, 8x in space
and 4x in time (T latent frames become ``1 + 4 * (T - 1)`` frames, the first one alone).

Shapes: latent ``[B, 16, T, H, W]``, features ``[B, C, T, h, w]``, frames
``[B, 3, F, 8 * H, 8 * W]`` in [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

Cache: TypeAlias = dict[int, Tensor]
"""The last frames that each causal convolution was given, by ``id`` of it: what links one chunk
of time to the next. Empty before the first one."""

SPATIAL_SCALE: Final = 8
TEMPORAL_SCALE: Final = 4
CACHED_FRAMES: Final = 2
"""A causal kernel of three frames looks back two."""


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of the decoder; the defaults decode a short clip on two CPU cores in seconds.

    Attributes:
        channels: features at 1x, 2x, 4x and 8x of the latent's resolution.
        doubles_time: for each of the three upsamplings, whether it doubles time too.
        seed: of the weights.
    """

    latent_channels: int = 16
    channels: tuple[int, int, int, int] = (32, 32, 16, 16)
    doubles_time: tuple[bool, bool, bool] = (True, True, False)
    seed: int = 0


class CausalConv3d(nn.Conv3d):
    """Convolution over time and space that never looks at a later frame."""

    def __init__(self, inputs: int, outputs: int, *, space: int = 3) -> None:
        edge = space // 2
        super().__init__(
            inputs, outputs, (CACHED_FRAMES + 1, space, space), padding=(0, edge, edge)
        )

    def step(self, x: Tensor, cache: Cache | None) -> Tensor:
        """Convolve a chunk after what the cache remembers; None: from the very start."""
        before = None if cache is None else cache.pop(id(self), None)
        if before is None:
            x = functional.pad(x, (0, 0, 0, 0, CACHED_FRAMES, 0))
        else:
            x = torch.cat((before, x), dim=2)
            del before
        if cache is not None:
            cache[id(self)] = x[:, :, -CACHED_FRAMES:].clone()
        return self(x)


class RmsNorm(nn.Module):
    """Scales each position to unit root mean square over its channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.scale = math.sqrt(channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) * (self.scale * self.gamma)


class ResidualBlock(nn.Module):
    """Two normed causal convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(inputs)
        self.conv1 = CausalConv3d(inputs, outputs)
        self.norm2 = RmsNorm(outputs)
        self.conv2 = CausalConv3d(outputs, outputs)
        self.shortcut = nn.Conv3d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def step(self, x: Tensor, cache: Cache | None) -> Tensor:
        """One chunk, same shape but for the channels."""
        y = self.conv1.step(functional.silu(self.norm1(x)), cache)
        y = self.conv2.step(functional.silu(self.norm2(y)), cache)
        return y + self.shortcut(x)


class FrameAttention(nn.Module):
    """Single-head attention over the positions of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RmsNorm(channels)
        self.qkv = nn.Conv3d(channels, 3 * channels, 1)
        self.out = nn.Conv3d(channels, channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        # [B, 3C, T, H, W] -> three times [B*T, 1, H*W, C]: frames never see each other. Made
        # contiguous, for the fused kernels want channels last; the fallback without them
        # holds every pair of positions at once.
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 4, 1).contiguous()
        q, k, v = qkv.view(batch * frames, 1, height * width, 3 * channels).chunk(3, dim=-1)
        y = functional.scaled_dot_product_attention(q, k, v)
        y = y.reshape(batch, frames, height, width, channels).permute(0, 4, 1, 2, 3)
        return x + self.out(y.contiguous())


class Upsample(nn.Module):
    """Doubles space and, where asked, time: all frames but the very first become two."""

    def __init__(self, inputs: int, outputs: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.time = CausalConv3d(inputs, 2 * inputs, space=1) if doubles_time else None
        self.conv = nn.Conv3d(inputs, outputs, (1, 3, 3), padding=(0, 1, 1))

    def step(self, x: Tensor, cache: Cache | None, *, first: bool) -> Tensor:
        """One chunk; ``first`` if it starts with the clip's first frame."""
        if self.time is not None:
            x = self._double(self.time, x, cache, first=first)
        return self.conv(functional.interpolate(x, scale_factor=(1, 2, 2), mode="nearest"))

    def _double(self, time: CausalConv3d, x: Tensor, cache: Cache | None, *, first: bool) -> Tensor:
        doubled = time.step(x, cache).unflatten(1, (2, x.shape[1])).transpose(1, 2)
        # [B, C, 2, T, H, W] -> [B, C, 2T, H, W], the two halves of a frame side by side.
        doubled = doubled.transpose(2, 3).flatten(2, 3)
        return torch.cat((x[:, :, :1], doubled[:, :, 2:]), dim=2) if first else doubled


class UpStage(nn.Module):
    """A residual block, then the upsampling to the next resolution."""

    def __init__(self, inputs: int, outputs: int, *, doubles_time: bool) -> None:
        super().__init__()
        self.block = ResidualBlock(inputs, inputs)
        self.upsample = Upsample(inputs, outputs, doubles_time=doubles_time)

    def step(self, x: Tensor, cache: Cache | None, *, first: bool) -> Tensor:
        """One chunk; ``first`` if it starts with the clip's first frame."""
        return self.upsample.step(self.block.step(x, cache), cache, first=first)


class CausalVideoDecoder(nn.Module):
    """The whole decoder, and its two parts: ``mid`` at low resolution, ``up`` in chunks."""

    def __init__(self, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or DecoderConfig()
        low, *_, high = widths = self.config.channels
        self.conv_in = CausalConv3d(self.config.latent_channels, low)
        self.mid1 = ResidualBlock(low, low)
        self.attention = FrameAttention(low)
        self.mid2 = ResidualBlock(low, low)
        self.stages = nn.ModuleList(
            UpStage(inputs, outputs, doubles_time=doubles)
            for inputs, outputs, doubles in zip(
                widths, widths[1:], self.config.doubles_time, strict=False
            )
        )
        self.last = ResidualBlock(high, high)
        self.norm_out = RmsNorm(high)
        self.conv_out = CausalConv3d(high, 3)
        self._fill(self.config.seed)
        self.eval().requires_grad_(requires_grad=False)

    @property
    def halo(self) -> int:
        """Latent rows around a tile that reach into it, exactly, through the up path.

        Each 3x3 convolution reaches one position at its own resolution; summed from the
        latent's resolution to the pixels' and rounded up.
        """
        reach = 0.0
        for stage in range(len(self.stages)):
            reach += 2 / 2**stage + 1 / 2 ** (stage + 1)
        return math.ceil(reach + 3 / SPATIAL_SCALE)

    @override
    def forward(self, latent: Tensor) -> Tensor:
        """Decode at once: ``[B, 16, T, H, W]`` to ``[B, 3, 1 + 4 * (T - 1), 8H, 8W]``."""
        return self.up(self.mid(latent, None), None, first=True)

    def mid(self, latent: Tensor, cache: Cache | None) -> Tensor:
        """Everything before the first upsampling, for one chunk of time of all of space.

        ``[B, 16, T, H, W]`` to ``[B, C, T, H, W]``; ``cache`` as in ``up``.
        """
        x = self.mid1.step(self.conv_in.step(latent, cache), cache)
        return self.mid2.step(self.attention(x), cache)

    def up(self, features: Tensor, cache: Cache | None, *, first: bool) -> Tensor:
        """Features to frames, for one chunk of time of one tile.

        Args:
            features: ``[B, C, T, h, w]`` from ``mid``, cut in space and time.
            cache: of this tile, carried from chunk to chunk and changed; None when all of time
                is here.
            first: the chunk starts with the clip's first frame.

        Returns:
            ``[B, 3, F, 8h, 8w]`` in [-1, 1]; F is 4T, less 3 in the first chunk.
        """
        x = features
        for stage in self._stages():
            x = stage.step(x, cache, first=first)
        x = self.last.step(x, cache)
        return torch.tanh(self.conv_out.step(functional.silu(self.norm_out(x)), cache))

    def _stages(self) -> Iterator[UpStage]:
        return (cast("UpStage", stage) for stage in self.stages)

    def _fill(self, seed: int) -> None:
        """Weights from one seed, scaled so that features keep their size through the layers."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("gamma"):
                continue
            if name.endswith("bias"):
                parameter.data.zero_()
                continue
            fan_in = parameter[0].numel()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise / math.sqrt(fan_in))
