"""The few things done with files, so that a test can make each of them fail."""

from __future__ import annotations

import errno
import os
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""No space left, and none left for this user."""
CHUNK_BYTES: Final = 1 << 20


class Disk:
    """Opens, forces out and renames files."""

    def open(self, path: Path, mode: str) -> IO[bytes]:
        """Open a binary file."""
        return path.open(mode)  # pyright: ignore[reportReturnType]  # the mode is binary

    def sync(self, file: IO[bytes]) -> None:
        """Return when the contents are on the disk."""
        file.flush()
        os.fsync(file.fileno())

    def replace(self, source: Path, target: Path) -> None:
        """Rename."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Return when names are on the disk; Windows has no such call and needs none."""
        if os.name == "nt":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class Written:
    """What a finished file holds, to know it again by.

    Attributes:
        crc32: of its contents.
    """

    name: str
    size_bytes: int
    crc32: int

    def is_at(self, path: Path) -> bool:
        """Whether that file still is what was written."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size_bytes:
            return False
        return checksum(path) == self.crc32


def written(path: Path, name: str) -> Written:
    """Of a file that is complete, under the name that it will have."""
    return Written(name, path.stat().st_size, checksum(path))


def checksum(path: Path) -> int:
    """CRC-32 of a file's contents."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def put_in_place(
    disk: Disk,
    path: Path,
    temporary: Path,
    content: bytes,
    before: Callable[[Written], None],
) -> None:
    """Write a file so that it is there complete or not at all.

    Args:
        disk: where.
        path: the name it gets.
        temporary: the name it has until then, in the same folder.
        content: all of it.
        before: told of the file when it is complete, before it gets its name.
    """
    try:
        with disk.open(temporary, "wb") as file:
            file.write(content)
            disk.sync(file)
        before(Written(path.name, len(content), zlib.crc32(content)))
        disk.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_full(problem: BaseException) -> bool:
    """Whether an error means that no space is left."""
    return isinstance(problem, OSError) and problem.errno in FULL
