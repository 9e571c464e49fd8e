"""Rectangles of a picture. Pure geometry."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rect:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    def scaled(self, factor: int) -> Rect:
        """The same rectangle in finer units, such as pixels."""
        return Rect(
            self.top * factor, self.bottom * factor, self.left * factor, self.right * factor
        )

    def relative_to(self, other: Rect) -> Rect:
        """This rectangle seen from the corner of ``other``."""
        return Rect(
            self.top - other.top,
            self.bottom - other.top,
            self.left - other.left,
            self.right - other.left,
        )

    def grown(self, halo: int, height: int, width: int) -> Rect:
        """Grown by ``halo`` on all sides, but not beyond a picture of this size."""
        return Rect(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )
