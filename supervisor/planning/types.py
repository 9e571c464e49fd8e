"""What the planner is asked and what it answers. Frozen records and one Protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..types import Plan


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """A latent to decode, in latent units, with the scales that lead to pixels.

    Attributes:
        batch: items decoded together; 1 where the executor decodes them one by one.
        channels: latent channels.
        frames: latent frames, None for images.
        height: latent rows.
        width: latent columns.
        spatial_scale: pixels per latent row and column.
        temporal_scale: frames per latent frame after the first (1 for images).
    """

    batch: int
    channels: int
    frames: int | None
    height: int
    width: int
    spatial_scale: int
    temporal_scale: int

    @property
    def pixel_height(self) -> int:
        """Rows of the decoded picture."""
        return self.height * self.spatial_scale

    @property
    def pixel_width(self) -> int:
        """Columns of the decoded picture."""
        return self.width * self.spatial_scale

    @property
    def pixel_frames(self) -> int:
        """Decoded frames: the first latent frame gives one, each other ``temporal_scale``."""
        if self.frames is None:
            return 1
        return 1 + (self.frames - 1) * self.temporal_scale


class CostModel(Protocol):
    """Predicts what decoding a latent of this size at once adds to the device's memory."""

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Peak bytes; sizes in latent units, ``frames`` None for images."""
        ...


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What the user wished for; the decode node's widgets. Pixels and frames.

    Attributes:
        tile: False is a wish for a decode in one piece; it is tiled all the same, with a
            warning, when the alternative is running out of memory.
        manual: use the four sizes as given instead of choosing them.
        tile_size: edge of a tile, overlap included.
        overlap: pixels that neighbouring tiles share.
        temporal_size: frames in a chunk, overlap included.
        temporal_overlap: frames that neighbouring chunks share.
        cleanup_before_decode: free what can be freed before the decode, needed or not.
        quality: passed through to the plan.
    """

    tile: bool = True
    manual: bool = False
    tile_size: int = 512
    overlap: int = 64
    temporal_size: int = 256
    temporal_overlap: int = 32
    cleanup_before_decode: bool = False
    quality: str = "exact"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Widget values advised for one device and one decode. GiB in ``*_gb``; pixels, frames.

    Attributes:
        reserved_vram_gb: the profile's reserve.
        reserved_vram_effective_gb: that reserve as far as this device can give it.
        temporal_size: frames in a chunk; at least the clip's length where the VAE's memory
            does not grow with time, so that it is never cut.
        plan: how the decode would be done now, None where the size is unknown.
    """

    profile: str
    reserved_vram_gb: float
    reserved_vram_effective_gb: float
    reserved_vram_mode: str = "adaptive"
    warnings: tuple[str, ...] = field(default=())
    sage_attention: str = "auto"
    allow_sageattention_torch_compile: bool = False
    torch_compile_mode: str = "off"
    fp16_accumulation: str = "auto"
    tf32: str = "auto"
    clean_gpu_before: bool = False
    tile: bool = True
    tiling_mode: str = "auto"
    tile_size: int = 512
    overlap: int = 64
    temporal_size: int = 256
    temporal_overlap: int = 32
    cleanup_before_decode: bool = False
    windowing: str = "auto"
    window_frames: int = 0
    window_overlap: int = 0
    plan: Plan | None = None
    notes: tuple[str, ...] = field(default=())
