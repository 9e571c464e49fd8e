"""Chooses how to decode: whole, after evicting, in tiles, or not on this device at all.

Pure: everything it knows is passed in, so that a table of sentences can test it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Final

from ..types import Plan
from ..units import format_bytes
from .tiling import balanced_tile, round_down, round_up, tile_count
from .types import CostModel, DecodeShape, PlanRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

TILE_STEP_PX: Final = 32
SMALLEST_TILE_PX: Final = 64
COMFORTABLE_TILE_PX: Final = 256
"""Below this edge, cutting through time is preferred to cutting the picture smaller."""
SMALLEST_CHUNK_LATENTS: Final = 2
GROWTH_SHARE: Final = 0.3
"""A quarter of the frames must save this share of the need, or memory does not grow with
time. A quarter, since decoders that cut time themselves (LTX) are flat over one halving; not
less, since the output alone grows by a little in every family."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """One way to cut a shape. Pixels; latent frames; ``chunk`` None: all frames at once."""

    tile_px: int
    overlap_px: int
    chunk: int | None = None
    chunk_overlap: int = 0


@dataclass(frozen=True, slots=True)
class _Question:
    """All that the decision rests on, so that helpers take one argument."""

    shape: DecodeShape
    cost: CostModel
    request: PlanRequest
    temporal_tiling: bool
    least_overlap_px: int = 0

    @property
    def step_px(self) -> int:
        return lcm(TILE_STEP_PX, self.shape.spatial_scale)

    @property
    def smallest_px(self) -> int:
        least = max(SMALLEST_TILE_PX, self.least_overlap_px + self.step_px)
        return round_up(least, self.step_px)

    @property
    def longest_px(self) -> int:
        return max(self.shape.pixel_height, self.shape.pixel_width)

    def need(self, cut: _Cut) -> int:
        """Bytes for the largest piece of a cut."""
        edge = -(-cut.tile_px // self.shape.spatial_scale)
        frames = self.shape.frames
        if frames is not None and cut.chunk is not None:
            frames = min(frames, cut.chunk)
        height, width = min(edge, self.shape.height), min(edge, self.shape.width)
        return self.cost.need_bytes(self.shape.batch, frames, height, width)

    def whole_need(self) -> int:
        shape = self.shape
        return self.cost.need_bytes(shape.batch, shape.frames, shape.height, shape.width)


def plan_decode(
    shape: DecodeShape,
    cost: CostModel,
    budget_bytes: int,
    request: PlanRequest,
    *,
    evictable_bytes: int = 0,
    temporal_tiling: bool = True,
    least_overlap_px: int = 0,
) -> Plan:
    """Choose the best decode that fits.

    Args:
        shape: the latent.
        cost: predicts peaks for any part of it.
        budget_bytes: what the decode may add to the device now.
        request: the user's wishes.
        evictable_bytes: what evicting models would add to the budget.
        temporal_tiling: whether the executor can cut through time.
        least_overlap_px: overlap the executor cannot do without (twice its halo).

    Returns:
        Whole if it fits; whole after evicting; else the largest balanced tiles that fit,
        cut through time only where that lowers the need; else ``kind="cpu"`` with
        ``fits=False``.
    """
    asked = _Question(shape, cost, request, temporal_tiling, least_overlap_px)
    if request.manual and request.tile:
        return _manual(asked, budget_bytes, evictable_bytes)
    whole = _whole(asked, budget_bytes, evictable_bytes)
    if whole is not None:
        return whole
    return _tiled(asked, budget_bytes, evictable_bytes) or _on_cpu(asked, budget_bytes)


def shrink(
    plan: Plan,
    shape: DecodeShape,
    cost: CostModel,
    request: PlanRequest | None = None,
    *,
    temporal_tiling: bool = True,
    least_overlap_px: int = 0,
) -> Plan | None:
    """The next smaller plan after ``plan`` ran out of memory; None when nothing is smaller.

    The prediction was wrong, so the budget is not asked again: tiles halve until they are
    uncomfortably small, then chunks of time where time costs memory, then tiles to the end.
    """
    asked = _Question(shape, cost, request or PlanRequest(), temporal_tiling, least_overlap_px)
    before = asked.need(_cut_of(plan, asked))
    for cut in _smaller_cuts(plan, asked):
        need = asked.need(cut)
        if need < before:
            return _tiled_plan(asked, cut, need, "the larger decode ran out of memory")
    return None


def smallest_need_bytes(
    shape: DecodeShape,
    cost: CostModel,
    request: PlanRequest | None = None,
    *,
    temporal_tiling: bool = True,
    least_overlap_px: int = 0,
) -> int:
    """What the smallest decode still needs, for saying why nothing fits."""
    asked = _Question(shape, cost, request or PlanRequest(), temporal_tiling, least_overlap_px)
    return _smallest_need(asked)


def grows_with_time(shape: DecodeShape, cost: CostModel) -> bool:
    """Whether decoding fewer frames at once really needs less memory (Mochi yes, Wan no)."""
    if shape.frames is None or shape.frames < 2 * SMALLEST_CHUNK_LATENTS:
        return False
    fewer = max(SMALLEST_CHUNK_LATENTS, shape.frames // 4)
    full = cost.need_bytes(shape.batch, shape.frames, shape.height, shape.width)
    part = cost.need_bytes(shape.batch, fewer, shape.height, shape.width)
    return full - part > GROWTH_SHARE * full


def _whole(asked: _Question, budget_bytes: int, evictable_bytes: int) -> Plan | None:
    need = asked.whole_need()
    if need <= budget_bytes:
        reason = f"whole: needs {format_bytes(need)} of {format_bytes(budget_bytes)}"
        return Plan("whole", 1, reason, need, fits=True, quality=asked.request.quality)
    if evictable_bytes > 0 and need <= budget_bytes + evictable_bytes:
        reason = (
            f"whole after evicting: needs {format_bytes(need)}, {format_bytes(budget_bytes)} "
            f"free and {format_bytes(evictable_bytes)} to evict"
        )
        return Plan("evict", 1, reason, need, fits=True, quality=asked.request.quality)
    return None


def _tiled(asked: _Question, budget_bytes: int, evictable_bytes: int) -> Plan | None:
    wishes: list[str] = []
    if not asked.request.tile:
        wishes.append("tiled although tile is off: whole would not fit")
    limits = [(budget_bytes, wishes)]
    if evictable_bytes > 0:
        evict = [*wishes, "even small tiles need models evicted first"]
        limits.append((budget_bytes + evictable_bytes, evict))
    for limit_bytes, warnings in limits:
        cut = _largest_cut(asked, limit_bytes)
        if cut is not None:
            why = f"whole needs {format_bytes(asked.whole_need())} of {format_bytes(limit_bytes)}"
            return _tiled_plan(asked, cut, asked.need(cut), why, warnings=tuple(warnings))
    return None


def _largest_cut(asked: _Question, budget_bytes: int) -> _Cut | None:
    """All frames in comfortable tiles if possible, then fewer frames, then smaller tiles."""
    chunks = [None, *_chunks(asked)]
    for smallest_px in (max(COMFORTABLE_TILE_PX, asked.smallest_px), asked.smallest_px):
        for chunk in chunks:
            cut = _largest_tile(asked, chunk, smallest_px, budget_bytes)
            if cut is not None:
                return cut
    return None


def _largest_tile(
    asked: _Question, chunk: int | None, smallest_px: int, budget_bytes: int
) -> _Cut | None:
    """The largest tile that fits for this many frames, evened out over the picture.

    Bisected, since each question to the cost model may be a dry run.
    """
    step = asked.step_px
    edges = range(round_up(smallest_px, step), round_up(asked.longest_px, step) + 1, step)
    fitting = bisect_right(edges, budget_bytes, key=lambda px: asked.need(_cut(asked, px, chunk)))
    if fitting == 0:
        return None
    return _balanced(asked, _cut(asked, edges[fitting - 1], chunk))


def _balanced(asked: _Question, cut: _Cut) -> _Cut:
    extents = (asked.shape.pixel_height, asked.shape.pixel_width)
    edge = max(balanced_tile(e, cut.tile_px, cut.overlap_px, asked.step_px) for e in extents)
    return _Cut(max(edge, asked.smallest_px), cut.overlap_px, cut.chunk, cut.chunk_overlap)


def _cut(asked: _Question, tile_px: int, chunk: int | None) -> _Cut:
    """A cut with the overlaps the wish allows at this size."""
    scale = asked.shape.spatial_scale
    wished_px = min(max(asked.request.overlap, 0), tile_px // 4)
    overlap_px = round_up(max(wished_px, asked.least_overlap_px), scale)
    if chunk is None:
        return _Cut(tile_px, overlap_px)
    wished = max(1, asked.request.temporal_overlap // asked.shape.temporal_scale)
    return _Cut(tile_px, overlap_px, chunk, min(wished, chunk // 2))


def _chunks(asked: _Question) -> Iterator[int]:
    """Latent frames per chunk, longest first, where cutting time helps at all."""
    frames = asked.shape.frames
    if frames is None or not asked.temporal_tiling:
        return
    if not grows_with_time(asked.shape, asked.cost):
        return
    parts = 2
    while frames // parts >= SMALLEST_CHUNK_LATENTS:
        yield -(-frames // parts)
        parts *= 2
    if -(-frames // (parts // 2)) > SMALLEST_CHUNK_LATENTS:
        yield SMALLEST_CHUNK_LATENTS


def _manual(asked: _Question, budget_bytes: int, evictable_bytes: int) -> Plan:
    """The sizes as given, with an honest word where they do not fit or do not help."""
    request, shape = asked.request, asked.shape
    tile_px = max(asked.smallest_px, round_down(request.tile_size, shape.spatial_scale))
    chunk = _manual_chunk(asked)
    cut = _cut(asked, tile_px, chunk)
    need = asked.need(cut)
    warnings: list[str] = []
    fits = need <= budget_bytes + evictable_bytes
    if not fits:
        warnings.append(
            f"the given sizes need {format_bytes(need)} and {format_bytes(budget_bytes)} is free"
        )
    if chunk is not None and not grows_with_time(shape, asked.cost):
        warnings.append("this VAE's memory does not grow with time: temporal_size saves nothing")
    if _tiles(asked, cut) == 1:
        kind = "whole" if need <= budget_bytes or not fits else "evict"
        reason = f"the given sizes cover everything: needs {format_bytes(need)}"
        return Plan(kind, 1, reason, need, fits, request.quality, warnings=tuple(warnings))
    return _tiled_plan(asked, cut, need, "sizes as given", fits=fits, warnings=tuple(warnings))


def _manual_chunk(asked: _Question) -> int | None:
    frames = asked.shape.frames
    if frames is None or not asked.temporal_tiling:
        return None
    chunk = max(SMALLEST_CHUNK_LATENTS, asked.request.temporal_size // asked.shape.temporal_scale)
    return chunk if chunk < frames else None


def _on_cpu(asked: _Question, budget_bytes: int) -> Plan:
    smallest = _smallest_need(asked)
    need = asked.whole_need()
    reason = (
        f"cpu: the smallest tile needs {format_bytes(smallest)} and {format_bytes(budget_bytes)} "
        f"is free; in system memory the whole decode needs about {format_bytes(need)}"
    )
    warning = "nothing fits on the device: decoding on the CPU is slow"
    quality = asked.request.quality
    return Plan("cpu", 1, reason, need, fits=False, quality=quality, warnings=(warning,))


def _smallest_need(asked: _Question) -> int:
    chunks = (None, *_chunks(asked))
    return min(asked.need(_cut(asked, asked.smallest_px, chunk)) for chunk in chunks)


def _smaller_cuts(plan: Plan, asked: _Question) -> Iterator[_Cut]:
    """Candidates below ``plan``, in the order in which they should be tried."""
    now = _cut_of(plan, asked)
    half_px = max(asked.smallest_px, round_down(now.tile_px // 2, asked.step_px))
    shorter = [c for c in _chunks(asked) if now.chunk is None or c < now.chunk]
    if half_px >= COMFORTABLE_TILE_PX:
        yield _balanced(asked, _cut(asked, half_px, now.chunk))
    for chunk in shorter:
        yield _cut(asked, now.tile_px, chunk)
    yield _balanced(asked, _cut(asked, half_px, now.chunk))


def _cut_of(plan: Plan, asked: _Question) -> _Cut:
    """The cut a plan stands for; a whole decode is one tile as long as the picture."""
    tile_px = plan.tile_size or round_up(asked.longest_px, asked.step_px)
    chunk = None
    if plan.temporal_size is not None:
        chunk = plan.temporal_size // asked.shape.temporal_scale
    return _cut(asked, min(tile_px, round_up(asked.longest_px, asked.step_px)), chunk)


def _tiled_plan(
    asked: _Question,
    cut: _Cut,
    need: int,
    why: str,
    *,
    fits: bool = True,
    warnings: tuple[str, ...] = (),
) -> Plan:
    count = _tiles(asked, cut)
    scale = asked.shape.temporal_scale
    through_time = "" if cut.chunk is None else f", {cut.chunk * scale} frames at a time"
    reason = f"{count} tiles of {cut.tile_px} px{through_time}: {format_bytes(need)} each; {why}"
    return Plan(
        "tiled",
        count,
        reason,
        need,
        fits,
        asked.request.quality,
        tile_size=cut.tile_px,
        overlap=cut.overlap_px,
        temporal_size=None if cut.chunk is None else cut.chunk * scale,
        temporal_overlap=None if cut.chunk is None else cut.chunk_overlap * scale,
        warnings=warnings,
    )


def _tiles(asked: _Question, cut: _Cut) -> int:
    shape = asked.shape
    count = tile_count(shape.pixel_height, cut.tile_px, cut.overlap_px)
    count *= tile_count(shape.pixel_width, cut.tile_px, cut.overlap_px)
    if shape.frames is not None and cut.chunk is not None:
        count *= tile_count(shape.frames, cut.chunk, cut.chunk_overlap)
    return count
