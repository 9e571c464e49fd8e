"""Finds the cuts worth considering: for each way to decode the best one, in few questions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Final

from .objective import effort
from .question import SMALLEST_CHUNK_LATENTS, Cut, Question
from .tiling import balanced_tile, even_tile, tile_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .time_model import TimeModel
    from .types import CostModel, DecodeShape, Room

GROWTH_SHARE: Final = 0.3
"""A quarter of the frames must save this share of the need, or memory does not grow with
time. A quarter, since decoders that cut time themselves (LTX) are flat over one halving; not
less, since the output alone grows by a little in every family."""
ENOUGH_CALLS: Final = 90
"""Questions to the cost model after which a plan in hand is not improved any further; every
planning ends below 200."""
ROW_SHARES: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Numbers of rows that are tried, as shares of those of the best square tiles."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cut with what its largest piece needs, in bytes."""

    cut: Cut
    need_bytes: int


@dataclass(frozen=True, slots=True)
class Search:
    """Looks for cuts of one question in one room."""

    asked: Question
    room: Room
    times: TimeModel

    def total_s(self, found: Candidate) -> float:
        """What is kept low: time, eviction and reload, and joins that can be seen."""
        evict = self.room.evict_bytes(found.need_bytes)
        return effort(self.asked, found.cut, self.room, evict, self.times).total_s

    def whole(self) -> Candidate:
        """Everything at once."""
        return Candidate(self.asked.whole(), self.asked.whole_need())

    def part_of_batch(self) -> Candidate | None:
        """The most items at once that fit, evened out; None for less than two parts."""
        count = self.asked.shape.batch
        if count == 1 or not self.asked.abilities.batches:
            return None
        for limit in self._limits():
            found = self._most_items(limit)
            if found is not None:
                return found
        return None

    def _most_items(self, limit_bytes: int) -> Candidate | None:
        asked, count = self.asked, self.asked.shape.batch
        most = largest(range(1, count), lambda n: self._fits(asked.whole(n), limit_bytes))
        if most is None:
            return None
        even = asked.whole(-(-count // -(-count // most)))
        return self._candidate(even if self._fits(even, limit_bytes) else asked.whole(most))

    def tiled(self, *, streamed: bool = False) -> Candidate | None:
        """The best tiles that fit, now or after evicting; None where none do."""
        found: list[tuple[Candidate, int]] = []
        for limit, chunk in product(self._limits(), tuple(self._chunks(streamed=streamed))):
            if found and self.asked.costs.calls > ENOUGH_CALLS:
                break
            cuts = self._squares(limit, chunk, streamed=streamed)
            found += [(self._candidate(cut), limit) for cut in cuts]
        if not found:
            return None
        best, limit = min(found, key=lambda pair: self.total_s(pair[0]))
        if self.asked.abilities.square_tiles or self.asked.abilities.passes > 1:
            return best
        found_too = self._rectangles(best.cut, limit)
        return min([best, *found_too], key=lambda each: (self.total_s(each), each.need_bytes))

    def smallest(self, *, streamed: bool = False) -> Candidate:
        """The cut that needs least, whether it fits or not."""
        asked = self.asked
        cuts = (
            asked.square(asked.smallest, chunk, streamed=streamed)
            for chunk in self._chunks(streamed=streamed)
        )
        return min(map(self._candidate, cuts), key=lambda found: found.need_bytes)

    def _limits(self) -> tuple[int, ...]:
        """What may be used: free now, and after evicting where whole does not fit as it is."""
        room = self.room
        if room.evictable_bytes == 0 or self.asked.whole_need() <= room.budget_bytes:
            return (room.budget_bytes,)
        return (room.budget_bytes, room.most_bytes)

    def _chunks(self, *, streamed: bool) -> Iterator[int | None]:
        yield None
        if not streamed:
            yield from chunks(self.asked)

    def _candidate(self, cut: Cut) -> Candidate:
        return Candidate(cut, self.asked.need(cut))

    def _fits(self, cut: Cut, limit_bytes: int) -> bool:
        return all(need <= limit_bytes for need in self.asked.needs(cut))

    def _squares(self, limit_bytes: int, chunk: int | None, *, streamed: bool) -> Iterator[Cut]:
        """The largest square tiles that fit for this many frames, as they are and evened out.

        One tile over the picture is a decode of its own kind unless time is cut or streamed.
        """
        asked = self.asked
        largest_edge = asked.longest - (chunk is None and not streamed)
        edges = range(asked.smallest, largest_edge + 1, asked.step)
        if not edges and (chunk is not None or streamed):
            edges = (asked.smallest,)

        def fits(edge: int) -> bool:
            return self._fits(asked.square(edge, chunk, streamed=streamed), limit_bytes)

        edge = largest(edges, fits)
        if edge is None:
            return
        cut = asked.square(edge, chunk, streamed=streamed)
        even = balanced(asked, cut)
        # A decoder that chooses its own chunks may need more for less.
        if self._fits(even, limit_bytes):
            yield even
        if even != cut:
            yield cut

    def _rectangles(self, cut: Cut, limit_bytes: int) -> Iterator[Candidate]:
        """Tiles with other proportions: for each number of rows the fewest columns that fit."""
        asked = self.asked
        down, across = asked.grid(cut)
        if (down, across) == (1, 1):
            return
        most_down = _most(asked.shape.height, self._least_edge(cut), cut.overlap)
        most_across = _most(asked.shape.width, self._least_edge(cut), cut.overlap)
        rows = {min(most_down, max(1, round(down * share))) for share in ROW_SHARES}
        for count in sorted(rows):
            if asked.costs.calls > ENOUGH_CALLS:
                return
            fewest = self._fewest_columns(cut, count, most_across, limit_bytes)
            if fewest is not None:
                most_across = fewest
                yield self._candidate(self._rectangle(cut, count, fewest))

    def _least_edge(self, cut: Cut) -> int:
        return max(self.asked.smallest, 2 * cut.overlap)

    def _fewest_columns(self, cut: Cut, down: int, most: int, limit_bytes: int) -> int | None:
        """Bisected downwards from ``most``, which is asked first."""
        return largest(
            range(most, 0, -1),
            lambda across: self._fits(self._rectangle(cut, down, across), limit_bytes),
        )

    def _rectangle(self, cut: Cut, down: int, across: int) -> Cut:
        shape = self.asked.shape
        rows = even_tile(shape.height, down, cut.overlap)
        return replace(cut, rows=rows, columns=even_tile(shape.width, across, cut.overlap))


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of ``sizes`` that fits, by bisection; None when not even the first does.

    What is returned was asked for, so it fits also where fitting is not monotone; it may then
    not be the largest.
    """
    if not sizes or not fits(sizes[0]):
        return None
    low, high = 0, len(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low]


def balanced(asked: Question, cut: Cut) -> Cut:
    """Square tiles no more in number, and no larger than it takes."""
    extents = (asked.shape.height, asked.shape.width)
    edge = max(balanced_tile(e, cut.rows, cut.overlap, asked.step) for e in extents)
    edge = max(edge, asked.smallest)
    return replace(cut, rows=edge, columns=edge)


def chunks(asked: Question) -> Iterator[int]:
    """Latent frames per chunk, longest first, where cutting time helps at all."""
    frames = asked.shape.frames
    if frames is None or not asked.abilities.carves_time or not grows(asked):
        return
    parts = 2
    while frames // parts >= SMALLEST_CHUNK_LATENTS:
        yield -(-frames // parts)
        parts *= 2
    if -(-frames // (parts // 2)) > SMALLEST_CHUNK_LATENTS:
        yield SMALLEST_CHUNK_LATENTS


def grows(asked: Question) -> bool:
    """``grows_with_time`` with the costs that are known already."""
    costs = asked.costs

    def need_bytes(batch: int, frames: int, height: int, width: int) -> int:
        return costs.need_bytes((False, batch, frames, height, width))

    return _grows(asked.shape, need_bytes)


def grows_with_time(shape: DecodeShape, cost: CostModel) -> bool:
    """Whether decoding fewer frames at once really needs less memory (Mochi yes, Wan no)."""
    return _grows(shape, cost.need_bytes)


def _grows(shape: DecodeShape, need_bytes: Callable[[int, int, int, int], int]) -> bool:
    if shape.frames is None or shape.frames < 2 * SMALLEST_CHUNK_LATENTS:
        return False
    fewer = max(SMALLEST_CHUNK_LATENTS, shape.frames // 4)
    full = need_bytes(shape.batch, shape.frames, shape.height, shape.width)
    part = need_bytes(shape.batch, fewer, shape.height, shape.width)
    return full - part > GROWTH_SHARE * full


def _most(extent: int, least_tile: int, overlap: int) -> int:
    """The largest number of tiles none of which is smaller than ``least_tile``."""
    return tile_count(extent, max(least_tile, overlap + 1), overlap)
