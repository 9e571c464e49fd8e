"""What the planner is asked and what it answers. Frozen records and one Protocol."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

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
class Abilities:
    """What the code that will run the plan can do.

    Attributes:
        square_tiles: every tile has one edge; False: height and width may differ.
        streams_time: it decodes through time with a feature cache, so that time is never cut.
        carves_time: it can decode chunks of frames and blend them where they overlap.
        exact_tiles: tiles with their halo give what the whole decode gives; False: tiles are
            blended where they overlap, and that can be seen.
        least_overlap_px: overlap it cannot do without (twice its halo).
        passes: 3 where it decodes tiles of (t/2, 2t), (2t, t/2) and (t, t) and averages them; such
            an executor's tiles are square.
        batches: it can decode the items of a batch a few at a time.
        moved_bytes_per_pixel: what tiles move to the host and back for each decoded pixel,
            beside the output (parked activations).
    """

    square_tiles: bool = True
    streams_time: bool = False
    carves_time: bool = True
    exact_tiles: bool = False
    least_overlap_px: int = 0
    passes: Literal[1, 3] = 1
    batches: bool = True
    moved_bytes_per_pixel: float = 0.0

    @classmethod
    def whole_only(cls) -> Abilities:
        """A decoder that cuts by itself: tiles of ours would change nothing."""
        return cls(carves_time=False, least_overlap_px=1 << 20)

    @classmethod
    def of_host(cls, *, video: bool, carves_time: bool = True) -> Abilities:
        """ComfyUI's own tiled decode: pictures in three passes, video in one."""
        return cls(carves_time=video and carves_time, passes=1 if video else 3)


@dataclass(frozen=True, slots=True)
class Room:
    """The memory a decode may use. Bytes; negative figures count as nothing.

    Attributes:
        budget_bytes: what it may add to the device now.
        evictable_bytes: what evicting models would add to that.
        next_use_bytes: how much of the evictable the queue needs again: evicted last, and
            loaded again afterwards.
        host_bytes: free system memory, for a decode on the CPU; None where unknown.
    """

    budget_bytes: int
    evictable_bytes: int = 0
    next_use_bytes: int = 0
    host_bytes: int | None = None

    @property
    def most_bytes(self) -> int:
        """What a decode may add after evicting everything."""
        return self.budget_bytes + self.evictable_bytes

    def evict_bytes(self, need_bytes: int) -> int:
        """What must be evicted for a need: only what is missing."""
        return max(0, need_bytes - self.budget_bytes)

    def reload_bytes(self, evict_bytes: int) -> int:
        """What the queue loads again after that was evicted."""
        unused = max(0, self.evictable_bytes - self.next_use_bytes)
        return max(0, min(evict_bytes, self.evictable_bytes) - unused)


@dataclass(frozen=True, slots=True)
class PlanTable:
    """Ways to decode, the best of each kind, best first.

    Attributes:
        plans: the whole decode is always among them.
        chosen: index of the plan to follow.
    """

    plans: tuple[Plan, ...]
    chosen: int = 0

    @property
    def best(self) -> Plan:
        """The plan to follow."""
        return self.plans[self.chosen]


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
        quality: "exact", "balanced" or "fast": how much time a join that can be seen is
            worth avoiding; anything else counts as exact.
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
