"""Collects what a phase makes in parts, for the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .store import frames_of

if TYPE_CHECKING:
    from torch import Tensor

    from .store import Clip
    from .tiles import Rect


class Assembly:
    """Takes parts in any order; ``finish`` puts them together."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._made: list[tuple[int, Rect, Tensor]] = []

    def has(self, rect: Rect) -> bool:
        """Never: a phase is made once."""
        del rect
        return False

    def write(self, first_frame: int, rect: Rect, made: Tensor) -> None:
        """Keep a part; one that begins again replaces what it wrote before."""
        kept = [each for each in self._made if each[1] != rect or each[0] < first_frame]
        self._made = [*kept, (first_frame, rect, made.contiguous())]

    def forget(self, rect: Rect) -> None:
        """A part that failed is made again, or in smaller ones: nothing of it may stay where
        memory is short."""
        self._made = [each for each in self._made if each[1] != rect]

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Nothing is to be waited for."""
        del first_frame, frames, rect

    def finish(self) -> None:
        """Put it together."""
        rects = {rect for _, rect, _ in self._made}
        if len(rects) == 1:
            self._made.sort(key=lambda each: each[0])
            while self._made:
                self._clip.put(self._made[0][2])
                # Not before it is kept: this may begin again after running out of memory.
                self._made.pop(0)
        else:
            self._clip.put(self._joined(rects))
        self._made.clear()

    def _joined(self, rects: set[Rect]) -> Tensor:
        _, _, sample = self._made[0]
        height, width = max(r.bottom for r in rects), max(r.right for r in rects)
        frames = max(first + frames_of(made) for first, _, made in self._made)
        lead = sample.shape[:2] if sample.ndim == 4 else (*sample.shape[:2], frames)  # noqa: PLR2004
        joined = sample.new_empty((*lead, height, width))
        for first, rect, made in self._made:
            target = joined[..., rect.top : rect.bottom, rect.left : rect.right]
            if made.ndim > 4:  # noqa: PLR2004
                target = target[:, :, first : first + frames_of(made)]
            target.copy_(made)
        return joined
