"""How frames are written, beside what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .pool import HELD_FRAMES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRATCH_KEPT_BYTES: Final = 256 << 20
RELEASE_EVERY_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """See the node's widgets.

    Attributes:
        clear_existing: delete frames of other jobs with the same prefix.
        resume: go on where an earlier run of the same job stopped.
        seams_folder: where to draw the parts that were decoded; None: nowhere.
        between: called now and then between two parts, to release caches.
        held_frames: the most that may be in memory at once.
        scratch_kept_bytes: a scratch file that nobody needs any more grows up to here before it
            is emptied, for emptying it has to wait for the writers.
        release_every_bytes: decoded values, in float32, between two calls of ``between``.
    """

    clear_existing: bool = True
    resume: bool = True
    seams_folder: Path | None = None
    between: Callable[[], None] | None = None
    held_frames: int = HELD_FRAMES
    scratch_kept_bytes: int = SCRATCH_KEPT_BYTES
    release_every_bytes: int = RELEASE_EVERY_BYTES
