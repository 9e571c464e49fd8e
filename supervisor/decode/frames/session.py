"""One run of a job: its files are open, frames come in and go out.

Whole frames go straight to the outlet. Parts of frames wait in a scratch file until the last
part is there, so that memory never holds more than a few frames, whatever comes first, time or
space.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ...units import format_bytes
from ..tiles import Rect
from .coverage import Coverage
from .job import clear, delete_temporaries
from .manifest import Manifest
from .outlets import Pictures, Video
from .pixels import to_bytes
from .scratch import Scratch, end_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from .disk import Disk
    from .job import FrameJob
    from .manifest import Block, Contents, Header
    from .outlets import Outlet
    from .pool import Take
    from .settings import SinkSettings


class Session:
    """Raises what the file system raises, and ``WriterFailed``.

    Attributes:
        found: frames that an earlier run had written.
        cleared: finished files of other jobs that were deleted.
        first: the first frame, where it was asked for and made in this run.
    """

    def __init__(self, job: FrameJob, header: Header, settings: SinkSettings, disk: Disk) -> None:
        self.header, self._job, self._settings = header, job, settings
        earlier = job.earlier() if settings.resume else None
        if earlier is not None and earlier.header != header:
            earlier = None
        others, same = settings.clear_existing, earlier is None
        self.cleared = clear(job, other_jobs=others, same_job=same)
        delete_temporaries(job.folder, job.key)
        self._manifest = _manifest(job, header, disk, earlier)
        self._scratch = Scratch(job.scratch_path, header, disk, self._manifest.blocks)
        make = Video if header.format == "lossless video" else Pictures
        self._outlet: Outlet = make(job.folder, self._manifest, disk, settings.held_frames)
        self._coverage = Coverage(header.frames, header.height, header.width)
        self._everything = Rect(0, header.height, 0, header.width)
        self._pending: dict[tuple[int, int, Rect], Block] = {}
        self.first: NDArray[np.uint8] | None = None
        # Frames that were handed to the outlet or are in their files.
        self._out = set(filter(self._outlet.has, range(header.frames)))
        self.found = len(self._out)

    def take_up(self) -> None:
        """Go on from what an earlier run left."""
        for block in self._manifest.blocks:
            self._coverage.add(block.first_frame, block.frames, block.rect)
        self._emit_complete(range(self.header.frames))

    @property
    def saved(self) -> int:
        """How many frames are in their files, those of earlier runs included."""
        return sum(map(self._outlet.has, range(self.header.frames)))

    @property
    def most_held(self) -> int:
        """The most frames that were in memory at once."""
        return self._outlet.pool.most_held

    def begin_again(self) -> None:
        """What was not committed will come anew."""
        self._pending.clear()

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """Whether those pixels are in files, on their way there, or in the scratch file."""
        return all(
            frame in self._out or self._coverage.has(frame, 1, rect)
            for frame in range(first_frame, first_frame + frames)
        )

    def write(self, first_frame: int, rect: Rect, pixels: Tensor) -> None:
        """Take ``[n, h, w, C]``."""
        frames = range(first_frame, first_frame + pixels.shape[0])
        takes = [partial(to_bytes, each) for each in pixels]
        if rect == self._everything and not self._outlet.in_order:
            # Decoded again they would be the same: nothing is gained by holding them back.
            for frame, take in zip(frames, takes, strict=True):
                self._emit(frame, take, now=True)
        elif not self._out.issuperset(frames):
            key = (first_frame, len(frames), rect)
            replaced = self._pending.pop(key, None)
            self._pending[key] = self._scratch.put(first_frame, rect, takes, replaced)

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Write down what is there, and have every frame written that became complete."""
        self._outlet.pool.raise_failure()
        blocks = self._committed(first_frame, first_frame + frames, rect)
        if not blocks:
            return
        self._scratch.sync()
        self._manifest.add_blocks(blocks)
        for block in blocks:
            self._coverage.add(block.first_frame, block.frames, block.rect)
        self._emit_complete(range(first_frame, first_frame + frames))
        self._tidy()

    def drain(self) -> None:
        """Wait until every frame that was handed out is in its file."""
        self._outlet.pool.drain()
        self._outlet.pool.raise_failure()

    @property
    def is_complete(self) -> bool:
        """Whether every frame was handed out."""
        return len(self._out) == self.header.frames

    def finish(self) -> None:
        """Complete the files; nothing of the job is left to do then."""
        self._outlet.finish()
        self._scratch.close(delete=True)
        self._manifest.finish()

    def close(self) -> None:
        """Write what was handed out and let go of everything else."""
        self._outlet.close()
        self._manifest.close()
        self._scratch.close(delete=not self._manifest.blocks)

    def kept(self) -> str:
        """What an error may say of what is on disk."""
        kept = f"{self.saved} of {self.header.frames} frames are written and kept."
        if self._manifest.blocks:
            size = format_bytes(self._scratch.size_bytes)
            kept += f" Finished parts of frames wait in {self._job.scratch_path} ({size})."
        return kept

    def _committed(self, first_frame: int, end_frame: int, rect: Rect) -> list[Block]:
        """Take what was written of a rectangle in some frames out of what is pending."""
        keys = [
            key
            for key, block in self._pending.items()
            if first_frame <= block.first_frame
            and block.end_frame <= end_frame
            and _lies_in(block.rect, rect)
        ]
        return [self._pending.pop(key) for key in keys]

    def _emit_complete(self, changed: Iterable[int]) -> None:
        """Have complete frames written, from the scratch file."""
        if self._outlet.in_order:
            changed = range(len(self._out), self.header.frames)
        for frame in changed:
            if frame in self._out:
                continue
            if self._coverage.is_complete(frame):
                blocks = [each for each in self._manifest.blocks if each.holds(frame)]
                self._emit(frame, partial(self._scratch.frame, frame, blocks), now=False)
            elif self._outlet.in_order:
                return

    def _emit(self, frame: int, take: Take, *, now: bool) -> None:
        if frame in self._out:
            return
        self._outlet.pool.raise_failure()
        if frame == 0 and self._settings.seams_folder is not None:
            take = partial(self._remember_first, take)
        self._outlet.put(frame, take, now=now)
        self._out.add(frame)

    def _remember_first(self, take: Take) -> NDArray[np.uint8]:
        self.first = take()
        return self.first

    def _tidy(self) -> None:
        """Empty a scratch file whose frames are all in their files."""
        if self._outlet.in_order or self._pending or self._coverage.is_begun():
            return
        if self._scratch.size_bytes < self._settings.scratch_kept_bytes:
            return
        self.drain()
        self._manifest.drop_blocks()
        self._scratch.empty()


def _manifest(job: FrameJob, header: Header, disk: Disk, earlier: Contents | None) -> Manifest:
    if earlier is None:
        return Manifest.create(job.manifest_path, header, disk)
    path = job.scratch_path
    size_bytes = path.stat().st_size if path.is_file() else 0
    earlier.blocks = [each for each in earlier.blocks if end_of(each, header) <= size_bytes]
    return Manifest(job.manifest_path, earlier, disk)


def _lies_in(inner: Rect, outer: Rect) -> bool:
    return (
        outer.top <= inner.top
        and inner.bottom <= outer.bottom
        and outer.left <= inner.left
        and inner.right <= outer.right
    )
