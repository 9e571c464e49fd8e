"""Which pixels of which frames are there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ..tiles import Rect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class _Span:
    """Frames ``first`` to ``end``, end excluded, that have the same pixels.

    Attributes:
        missing: rectangles that are not there, none overlapping another.
    """

    first: int
    end: int
    missing: tuple[Rect, ...]


class Coverage:
    """Grows rectangle by rectangle, each in some frames; they may overlap.

    Args:
        frames: how many there are.
        height: rows of a frame.
        width: columns of a frame.
    """

    def __init__(self, frames: int, height: int, width: int) -> None:
        everything = Rect(0, height, 0, width)
        self._spans = [_Span(0, frames, (everything,))]
        self._everything = everything

    def add(self, first_frame: int, frames: int, rect: Rect) -> None:
        """These pixels are there now."""
        end = first_frame + frames
        self._spans = [
            replace(span, missing=tuple(_without(span.missing, rect)))
            if first_frame <= span.first and span.end <= end
            else span
            for span in self._cut_at(first_frame, end)
        ]

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """Whether all of these pixels are there."""
        end = first_frame + frames
        return not any(
            _overlap(missing, rect) is not None
            for span in self._spans
            if span.first < end and first_frame < span.end
            for missing in span.missing
        )

    def is_complete(self, frame: int) -> bool:
        """Whether all of a frame is there."""
        return self.has(frame, 1, self._everything)

    def is_begun(self) -> bool:
        """Whether some frame is there in part."""
        return any(span.missing not in {(), (self._everything,)} for span in self._spans)

    def _cut_at(self, *frames: int) -> Iterator[_Span]:
        for span in self._spans:
            inside = sorted({frame for frame in frames if span.first < frame < span.end})
            edges = [span.first, *inside, span.end]
            for first, end in pairwise(edges):
                yield replace(span, first=first, end=end)


def _overlap(one: Rect, other: Rect) -> Rect | None:
    shared = Rect(
        max(one.top, other.top),
        min(one.bottom, other.bottom),
        max(one.left, other.left),
        min(one.right, other.right),
    )
    return shared if shared.height > 0 and shared.width > 0 else None


def _without(rects: Iterable[Rect], gone: Rect) -> Iterator[Rect]:
    """What is left of rectangles when one is taken out of each."""
    for rect in rects:
        shared = _overlap(rect, gone)
        if shared is None:
            yield rect
            continue
        above = replace(rect, bottom=shared.top)
        below = replace(rect, top=shared.bottom)
        beside = replace(rect, top=shared.top, bottom=shared.bottom)
        left, right = replace(beside, right=shared.left), replace(beside, left=shared.right)
        yield from (each for each in (above, below, left, right) if each.height and each.width)
