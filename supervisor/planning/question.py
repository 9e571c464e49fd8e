"""What one planning asks: a latent, its cost, the executor, and any way to cut the latent."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, lcm
from typing import TYPE_CHECKING, Final

from ..errors import LatentNotDecodableError, MemoryFigureUnusableError
from .tiling import covered, round_up, tile_count
from .types import Abilities, CostModel, DecodeShape, PlanRequest, Room

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    _Piece: TypeAlias = tuple[bool, int, int | None, int, int]

TILE_STEP_PX: Final = 32
SMALLEST_TILE_PX: Final = 64
SMALLEST_CHUNK_LATENTS: Final = 2
STREAMED_LATENTS: Final = 3
"""Latent frames whose decode stands for a streamed one where no cost of streaming is known:
from the third chunk on, a causal decoder's cache holds no more."""
LARGEST_FRAME_PX: Final = 1 << 31
LARGEST_DECODE_PX: Final = 1 << 40
"""Pixels of all frames together: beyond any memory that could hold them."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to take a latent apart. Everything in latents.

    Attributes:
        rows: height of a tile, overlap included; it may exceed the picture.
        columns: its width.
        overlap: what neighbouring tiles share.
        batch: items decoded together.
        chunk: frames of a chunk, overlap included; None: time is not cut.
        chunk_overlap: frames that neighbouring chunks share.
        streamed: through time with a feature cache.
    """

    rows: int
    columns: int
    overlap: int = 0
    batch: int = 1
    chunk: int | None = None
    chunk_overlap: int = 0
    streamed: bool = False


@dataclass(slots=True)
class KnownCosts:
    """Asks each cost once: a dry run may stand behind the question."""

    cost: CostModel
    streamed: CostModel
    calls: int = 0
    _known: dict[_Piece, int] = field(default_factory=dict["_Piece", int])

    def need_bytes(self, piece: _Piece) -> int:
        """Peak bytes of (streamed, batch, frames, rows, columns)."""
        if piece not in self._known:
            self.calls += 1
            streamed, batch, frames, rows, columns = piece
            model = self.streamed if streamed else self.cost
            self._known[piece] = model.need_bytes(batch, frames, rows, columns)
        return self._known[piece]


@dataclass(frozen=True, slots=True)
class Question:
    """A latent, what is wished, and what the executor can do; answers what a cut means.

    Attributes:
        streams_whole_clips: the streamed cost is that of the whole clip; else one of a few
            frames stands for it.
    """

    shape: DecodeShape
    costs: KnownCosts
    request: PlanRequest
    abilities: Abilities
    streams_whole_clips: bool = False

    @property
    def step(self) -> int:
        """Latents that square tiles grow by."""
        return lcm(TILE_STEP_PX, self.shape.spatial_scale) // self.shape.spatial_scale

    @property
    def smallest(self) -> int:
        """Latents of the smallest tile's edge."""
        scale, least_px = self.shape.spatial_scale, self.abilities.least_overlap_px
        step_px = self.step * scale
        # Two of three passes halve one edge, which must still exceed the overlap.
        halves = 1 if self.abilities.passes == 1 else 2
        return round_up(max(SMALLEST_TILE_PX, halves * (least_px + step_px)), step_px) // scale

    @property
    def longest(self) -> int:
        """Edge of the square tile that covers the picture."""
        return round_up(max(self.shape.height, self.shape.width), self.step)

    @property
    def items(self) -> int:
        """Items that tiles hold: one where the executor can take a batch apart."""
        return 1 if self.abilities.batches else self.shape.batch

    def square(self, edge: int, chunk: int | None = None, *, streamed: bool = False) -> Cut:
        """A cut into square tiles with the overlaps that the wish allows at this size."""
        scale = self.shape.spatial_scale
        wished_px = min(max(self.request.overlap, 0), edge * scale // 4)
        overlap = -(-max(wished_px, self.abilities.least_overlap_px) // scale)
        narrowest = edge if self.abilities.passes == 1 else edge // 2
        overlap = max(0, min(overlap, narrowest - 1))
        if chunk is None:
            return Cut(edge, edge, overlap, self.items, streamed=streamed)
        wished = max(1, self.request.temporal_overlap // self.shape.temporal_scale)
        return Cut(edge, edge, overlap, self.items, chunk, min(wished, chunk // 2))

    def whole(self, batch: int | None = None) -> Cut:
        """Everything at once, or so many items at once."""
        return Cut(self.longest, self.longest, batch=batch or self.shape.batch)

    def whole_need(self) -> int:
        """Bytes of decoding everything at once."""
        return self.need(self.whole())

    def need(self, cut: Cut) -> int:
        """Bytes of the largest piece of a cut."""
        return max(self.needs(cut))

    def needs(self, cut: Cut) -> Iterator[int]:
        """Bytes of the piece of each pass, asked for one after the other."""
        frames = self.shape.frames
        if frames is not None and cut.chunk is not None:
            frames = min(frames, cut.chunk)
        own_cost = cut.streamed and self.streams_whole_clips
        if frames is not None and cut.streamed and not own_cost:
            frames = min(frames, STREAMED_LATENTS)
        sizes = dict.fromkeys(self._clipped(*edges) for edges in self._passes(cut))
        for size in sizes:
            yield self.costs.need_bytes((own_cost, cut.batch, frames, *size))

    def pieces(self, cut: Cut) -> int:
        """How often the decoder is called, all passes counted; a stream counts once."""
        tiles = sum(rows * columns for rows, columns in self._counts(cut))
        return tiles * self.chunks(cut) * -(-self.shape.batch // cut.batch)

    def decoded_pixels(self, cut: Cut) -> int:
        """Pixels times frames times items that are decoded, overlaps and passes counted."""
        shape = self.shape
        area = sum(
            covered(shape.height, rows, cut.overlap) * covered(shape.width, columns, cut.overlap)
            for rows, columns in self._counts(cut)
        )
        frames = shape.frames or 1
        latents = covered(frames, self.chunks(cut), cut.chunk_overlap)
        decoded = 1 + (latents - 1) * shape.temporal_scale
        return shape.batch * area * shape.spatial_scale**2 * decoded

    def chunks(self, cut: Cut) -> int:
        """Pieces that time is cut into."""
        if self.shape.frames is None or cut.chunk is None:
            return 1
        return tile_count(self.shape.frames, cut.chunk, cut.chunk_overlap)

    def grid(self, cut: Cut) -> tuple[int, int]:
        """Tiles in a column and in a row of the picture."""
        return self._count(cut, cut.rows, cut.columns)

    def is_one_picture(self, cut: Cut) -> bool:
        """Whether neither the picture nor time is cut, nor streamed."""
        return self.grid(cut) == (1, 1) and self.chunks(cut) == 1 and not cut.streamed

    def _passes(self, cut: Cut) -> tuple[tuple[int, int], ...]:
        """Tile sizes; one tile that covers everything is not decoded in passes."""
        rows, columns = cut.rows, cut.columns
        covers = rows >= self.shape.height and columns >= self.shape.width
        if self.abilities.passes == 1 or (covers and cut.chunk is None):
            return ((rows, columns),)
        return ((rows, columns), (rows // 2, columns * 2), (rows * 2, columns // 2))

    def _counts(self, cut: Cut) -> list[tuple[int, int]]:
        return [self._count(cut, *edges) for edges in self._passes(cut)]

    def _count(self, cut: Cut, rows: int, columns: int) -> tuple[int, int]:
        shape, overlap = self.shape, cut.overlap
        return tile_count(shape.height, rows, overlap), tile_count(shape.width, columns, overlap)

    def _clipped(self, rows: int, columns: int) -> tuple[int, int]:
        return min(rows, self.shape.height), min(columns, self.shape.width)


def check_shape(shape: DecodeShape) -> None:
    """Refuse what nobody can decode.

    Raises:
        LatentNotDecodableError: a size is below 1, one frame has more than 2**31 pixels, or
            all frames together have more than 2**40.
    """
    sizes = (shape.batch, shape.channels, shape.frames, shape.height, shape.width)
    text = " x ".join(str(size) for size in sizes if size is not None)
    scales = (shape.spatial_scale, shape.temporal_scale)
    if min(size for size in (*sizes, *scales) if size is not None) < 1:
        raise LatentNotDecodableError(text, "a size is below 1")
    frame_px = shape.pixel_height * shape.pixel_width
    if frame_px > LARGEST_FRAME_PX:
        raise LatentNotDecodableError(text, f"one frame would have {frame_px} pixels")
    if frame_px * shape.pixel_frames * shape.batch > LARGEST_DECODE_PX:
        raise LatentNotDecodableError(text, "its frames are more than any memory holds")


def checked_room(room: Room) -> Room:
    """The room with whole, non-negative figures.

    Negative ones are real (a reserve larger than what is free) and mean that there is nothing.

    Raises:
        MemoryFigureUnusableError: a figure is NaN or infinite.
    """
    host = room.host_bytes
    return Room(
        _checked("the budget", room.budget_bytes),
        _checked("the evictable memory", room.evictable_bytes),
        _checked("the memory needed next", room.next_use_bytes),
        None if host is None else _checked("the system memory", host),
    )


def _checked(name: str, size_bytes: float) -> int:
    if not isfinite(size_bytes):
        raise MemoryFigureUnusableError(name, size_bytes)
    return max(0, int(size_bytes))
