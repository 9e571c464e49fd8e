"""What a decode job is asked for, and what is known of it while it runs. Frozen records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .decoder import SPATIAL_SCALE, TEMPORAL_SCALE, DecoderConfig

if TYPE_CHECKING:
    from ..types import Plan

CHANNELS: Final = 3
BYTES_PER_VALUE: Final = 4

Shape: TypeAlias = tuple[int, int, int, int, int]
"""Of a latent, ``[1, C, T, H, W]``."""


def decoded_size(shape: Shape) -> tuple[int, int, int]:
    """Frames, rows and columns of pixels that a latent becomes."""
    _, _, frames, height, width = shape
    return 1 + (frames - 1) * TEMPORAL_SCALE, height * SPATIAL_SCALE, width * SPATIAL_SCALE


def pictures_bytes(shape: Shape) -> int:
    """What those take."""
    return math.prod(decoded_size(shape)) * CHANNELS * BYTES_PER_VALUE


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What to decode. Sizes are rounded up to what the decoder can make.

    Attributes:
        width: pixels.
        height: pixels.
        frames: decoded frames.
        budget_bytes: device memory the decode may add; None for most of what is free.
        budget_share: the budget as a share of what the whole decode would need, instead.
        compare: decode whole too, outside the budget, and give the relative error.
        seed: of the latent.
    """

    width: int
    height: int
    frames: int
    budget_bytes: int | None = None
    budget_share: float | None = None
    compare: bool = False
    seed: int = 0

    def latent_shape(self) -> Shape:
        """The latent that decodes to at least this size."""
        scale = SPATIAL_SCALE
        frames = 1 + math.ceil((self.frames - 1) / TEMPORAL_SCALE)
        height, width = math.ceil(self.height / scale), math.ceil(self.width / scale)
        return (1, DecoderConfig().latent_channels, frames, height, width)


@dataclass(frozen=True, slots=True)
class TileState:
    """One tile for the page: pixels and decoded frames, ``t1`` excluded."""

    x: int
    y: int
    w: int
    h: int
    t0: int
    t1: int
    share_done: float = 0.0
    done: bool = False


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """All that is known of the current or last job."""

    state: Literal["idle", "running", "done", "error"] = "idle"
    job_id: str | None = None
    device: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    tiles: tuple[TileState, ...] = ()
    plan: Plan | None = None
    budget_bytes: int | None = None
    whole_predicted_bytes: int | None = None
    predicted_peak_bytes: int | None = None
    measured_peak_bytes: int | None = None
    measured_exact: bool | None = None
    relative_error: float | None = None
    ladder: tuple[str, ...] = ()
    error: str | None = None
    seconds: float | None = None

    @property
    def progress(self) -> float:
        """Decoded share of the picture, 0 to 1."""
        total = sum(tile.w * tile.h for tile in self.tiles)
        done = sum(tile.w * tile.h * tile.share_done for tile in self.tiles)
        return done / total if total else 0.0
