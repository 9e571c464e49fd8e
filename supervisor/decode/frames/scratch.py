"""Pixels of frames that are not complete, in a file.

Blocks are appended as they come, so that a full disk is an ordinary error; in a mapped file it
would end the process.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import numpy as np

from ...errors import FrameTakenError
from .manifest import Block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

    from ..tiles import Rect
    from .disk import Disk
    from .manifest import Header


class Scratch:
    """Bytes per pixel and channel: one. May be read while it is written.

    Args:
        path: of the file, which is made when it is needed; what is in it stays.
        header: says how large frames are.
        disk: where.
        kept: blocks of an earlier run that are still needed.
    """

    def __init__(self, path: Path, header: Header, disk: Disk, kept: Sequence[Block]) -> None:
        self._path, self._disk = path, disk
        self._shape = (header.height, header.width, header.channels)
        self._lock = threading.Lock()
        self._open: IO[bytes] | None = None
        self.size_bytes = max((end_of(block, header) for block in kept), default=0)

    def put(
        self,
        first_frame: int,
        rect: Rect,
        pictures: Sequence[Callable[[], NDArray[np.uint8]]],
        instead_of: Block | None = None,
    ) -> Block:
        """Append pictures ``[h, w, C]``, made one by one.

        Args:
            first_frame: which frame the first picture belongs to.
            rect: where in the frames they lie.
            pictures: make them.
            instead_of: a block of the same frames and rectangle that these replace.
        """
        offset = self.size_bytes if instead_of is None else instead_of.offset
        with self._lock:
            file = self._file()
            file.seek(offset)
            for make in pictures:
                file.write(make().tobytes())
            file.flush()
            self.size_bytes = max(self.size_bytes, file.tell())
        return Block(offset, first_frame, len(pictures), rect)

    def sync(self) -> None:
        """Return when everything is on the disk."""
        with self._lock:
            self._disk.sync(self._file())

    def frame(self, index: int, blocks: Sequence[Block]) -> NDArray[np.uint8]:
        """One frame ``[H, W, C]`` from blocks that all hold some of it; later ones win."""
        picture = np.zeros(self._shape, np.uint8)
        for block in blocks:
            rect = block.rect
            picture[rect.top : rect.bottom, rect.left : rect.right] = self._read(index, block)
        return picture

    def empty(self) -> None:
        """Forget everything."""
        with self._lock:
            self._file().truncate(0)
            self.size_bytes = 0

    def close(self, *, delete: bool) -> None:
        """Let go of the file."""
        if self._open is not None:
            # What could not be written is tried again here, and was reported before.
            with contextlib.suppress(OSError):
                self._open.close()
            self._open = None
        if delete:
            self._path.unlink(missing_ok=True)

    def _file(self) -> IO[bytes]:
        if self._open is None:
            if self._path.is_symlink():
                raise FrameTakenError(self._path, "a link, and no file of this node")
            mode = "r+b" if self._path.exists() else "w+b"
            self._open = self._disk.open(self._path, mode)
        return self._open

    def _read(self, index: int, block: Block) -> NDArray[np.uint8]:
        shape = (block.rect.height, block.rect.width, self._shape[-1])
        size_bytes = shape[0] * shape[1] * shape[2]
        with self._lock:
            file = self._file()
            file.seek(block.offset + (index - block.first_frame) * size_bytes)
            content = file.read(size_bytes)
        return np.frombuffer(content, np.uint8).reshape(shape)


def end_of(block: Block, header: Header) -> int:
    """Where a block ends, in bytes."""
    rect = block.rect
    return block.offset + block.frames * rect.height * rect.width * header.channels
