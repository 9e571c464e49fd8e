"""What becomes of complete frames: a picture file each, or one video of all."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Protocol

from ...errors import FrameTakenError
from .disk import put_in_place, written
from .job import FOREIGN
from .manifest import temporary_path
from .pixels import encode
from .pool import Pool
from .video import VideoFile

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from .disk import Disk
    from .manifest import Manifest
    from .pool import Take


class Outlet(Protocol):
    """Takes complete frames; errors show in the pool.

    Attributes:
        pool: the threads that do the work.
        in_order: frames must come one after the other, and all of them again in a later run.
    """

    pool: Pool
    in_order: bool

    def has(self, index: int) -> bool:
        """Whether a frame is in its file."""
        ...

    def put(self, index: int, take: Take, *, now: bool) -> None:
        """Have a frame written; see ``Pool.put``."""
        ...

    def finish(self) -> None:
        """After the last frame was put and the pool was drained."""
        ...

    def close(self) -> None:
        """Let go of everything; what was not finished goes."""
        ...


class Pictures:
    """A PNG or JPEG for each frame."""

    in_order = False

    def __init__(self, folder: Path, manifest: Manifest, disk: Disk, held: int) -> None:
        self._folder, self._manifest, self._disk = folder, manifest, disk
        self.pool = Pool(held)

    def has(self, index: int) -> bool:
        """Written in this or an earlier run, and still there."""
        name = self._manifest.header.names.frame(index)
        return name in self._manifest.files and os.path.lexists(self._folder / name)

    def put(self, index: int, take: Take, *, now: bool) -> None:
        """Have a frame written."""
        self.pool.put(take, partial(self._write, index), now=now)

    def finish(self) -> None:
        """Nothing: each file is finished by itself."""

    def close(self) -> None:
        """Write what was put."""
        self.pool.close()

    def _write(self, index: int, picture: NDArray[np.uint8]) -> None:
        header = self._manifest.header
        path = self._folder / header.names.frame(index)
        content = encode(picture, header.jpeg_quality)
        _check_free(path)
        temporary = temporary_path(path, header.job)
        put_in_place(self._disk, path, temporary, content, self._manifest.add_file)


class Video:
    """One lossless video. It gets its name when it is complete."""

    in_order = True

    def __init__(self, folder: Path, manifest: Manifest, disk: Disk, held: int) -> None:
        self._manifest, self._disk = manifest, disk
        self._path = folder / manifest.header.names.frame(0)
        self._temporary = temporary_path(self._path, manifest.header.job)
        self._file: IO[bytes] | None = None
        self._video: VideoFile | None = None
        self.pool = Pool(held, in_order=True)

    def has(self, index: int) -> bool:
        """All of them or none."""
        del index
        return self._path.name in self._manifest.files and os.path.lexists(self._path)

    def put(self, index: int, take: Take, *, now: bool) -> None:
        """Have the next frame encoded."""
        del index
        self.pool.put(take, self._add, now=now)

    def finish(self) -> None:
        """Complete the file and give it its name."""
        self.pool.run(self._complete)

    def close(self) -> None:
        """Drop a file that was not finished."""
        self.pool.close()
        if self._video is not None:
            self._video.abandon()
        if self._file is not None:
            with suppress(OSError):  # what could not be written is thrown away
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _add(self, picture: NDArray[np.uint8]) -> None:
        if self._video is None:
            header = self._manifest.header
            self._file = self._disk.open(self._temporary, "w+b")
            self._video = VideoFile(self._file, header.height, header.width, header.channels)
        self._video.add(picture)

    def _complete(self) -> None:
        if self._video is None or self._file is None:
            return
        self._video.finish()
        self._disk.sync(self._file)
        self._file.close()
        self._video = None
        _check_free(self._path)
        self._manifest.add_file(written(self._temporary, self._path.name))
        self._disk.replace(self._temporary, self._path)
        self._file = None


def _check_free(path: Path) -> None:
    """Names were checked before; somebody may have been quicker."""
    if os.path.lexists(path):
        raise FrameTakenError(path, FOREIGN)
