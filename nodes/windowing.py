"""Whether a clip is sampled whole or in windows of time, and how long those are. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from ..supervisor.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

Windowing: TypeAlias = Literal["auto", "off", "manual"]
WINDOWING: Final[tuple[Windowing, ...]] = get_args(Windowing)
LEAST_LATENT_FRAMES: Final = 5
"""Shorter windows see too little of a motion to go on with it."""
OVERLAP_SHARE: Final = 4
"""Of a window, so much is shared with the one before where nothing is said: a quarter."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Time of a latent: its frames, and how many video frames each after the first stands for."""

    latent_frames: int
    temporal_scale: int

    def latent_of(self, video_frames: int) -> int:
        """Latent frames that hold so many video frames; at least one."""
        return max(1, (video_frames - 1) // self.temporal_scale + 1)

    def video_of(self, latent_frames: int) -> int:
        """Video frames that so many latent frames make."""
        return (latent_frames - 1) * self.temporal_scale + 1


@dataclass(frozen=True, slots=True)
class Windows:
    """How a clip is cut, in latent frames.

    Attributes:
        length: of each window.
        overlap: what a window shares with the one before.
        why: one line for the report.
        predicted_bytes: what a window is expected to need, None where nobody said.
        fits: that much is there.
    """

    length: int
    overlap: int
    why: str
    predicted_bytes: int | None = None
    fits: bool = True

    def count(self, clip: Clip) -> int:
        """Windows it takes to cover a clip."""
        step = self.length - self.overlap
        return 1 + max(0, math.ceil((clip.latent_frames - self.length) / step))


@dataclass(frozen=True, slots=True)
class Wish:
    """The node's widgets. Frames are of the video, 0: chosen here.

    Attributes:
        frames: of a window; with ``auto`` the most it may have.
        overlap: of a window with the one before.
    """

    windowing: Windowing = "auto"
    frames: int = 0
    overlap: int = 0


def by_hand(wish: Wish, clip: Clip) -> Windows | None:
    """Windows as the user has them; None where the clip is no longer than one."""
    length = clip.latent_of(wish.frames) if wish.frames else clip.latent_frames
    if length >= clip.latent_frames:
        return None
    return Windows(length, _overlap(wish, clip, length), f"{_long(clip, length)}, as asked for")


def to_fit(
    wish: Wish, clip: Clip, need_bytes: Callable[[int], int], room_bytes: int, *, below: int
) -> Windows:
    """The longest windows that fit, for a clip that does not.

    Args:
        wish: the widgets.
        clip: what is sampled.
        need_bytes: what sampling so many latent frames at once needs; grows with them.
        room_bytes: what may be used.
        below: windows are shorter than this, in latent frames.

    Returns:
        The shortest windows there are where none fits.
    """
    longest = max(1, below - 1)
    if wish.frames:
        longest = min(longest, clip.latent_of(wish.frames))
    shortest = min(LEAST_LATENT_FRAMES, longest)
    length = _longest(shortest, longest, need_bytes, room_bytes)
    found = shortest if length is None else length
    need = need_bytes(found)
    says = "needs" if length is not None else "is the shortest, and needs"
    why = (
        f"{_long(clip, found)}: {says} {format_bytes(need)} of {format_bytes(room_bytes)}, the "
        f"whole clip {format_bytes(need_bytes(clip.latent_frames))}"
    )
    return Windows(found, _overlap(wish, clip, found), why, need, fits=length is not None)


def _longest(
    shortest: int, longest: int, need_bytes: Callable[[int], int], room_bytes: int
) -> int | None:
    """By halving; None where not even the shortest fits."""
    if need_bytes(shortest) > room_bytes:
        return None
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if need_bytes(middle) <= room_bytes:
            shortest = middle
        else:
            longest = middle - 1
    return shortest


def _overlap(wish: Wish, clip: Clip, length: int) -> int:
    """In latent frames; some part of each window must be new."""
    asked = max(1, wish.overlap // clip.temporal_scale) if wish.overlap else length // OVERLAP_SHARE
    return min(asked, length - 1)


def _long(clip: Clip, length: int) -> str:
    return f"windows of {clip.video_of(length)} frames"
