"""Which folder and which file names frames may have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ...errors import FolderRefusedError, PrefixRefusedError

if TYPE_CHECKING:
    from pathlib import Path

FrameFormat: TypeAlias = Literal["png", "jpg", "lossless video"]
FORMATS: Final[tuple[FrameFormat, ...]] = ("png", "jpg", "lossless video")
EXTENSIONS: Final[dict[FrameFormat, str]] = {"png": "png", "jpg": "jpg", "lossless video": "mkv"}

DIGITS: Final = 5
"""Numbers are padded to so many; larger ones take the digits they need."""
LONGEST_PREFIX_BYTES: Final = 150
"""File systems allow 255 for a whole name; number, job and extension come on top."""
UNFIT: Final = frozenset('/\\:*?"<>|')
"""Separators, and what one system or another reads as more than a letter."""


def check_prefix(prefix: str) -> str:
    """The prefix as it is.

    Raises:
        PrefixRefusedError: it is empty, too long, or could name another folder.
    """
    if not prefix.strip():
        raise PrefixRefusedError(prefix, "is empty")
    if any(each in UNFIT or not each.isprintable() for each in prefix):
        raise PrefixRefusedError(prefix, "contains a separator or a character that is none of text")
    if len(prefix.encode()) > LONGEST_PREFIX_BYTES:
        raise PrefixRefusedError(prefix, f"is longer than {LONGEST_PREFIX_BYTES} bytes")
    return prefix


def folder_inside(root: Path, wanted: str) -> Path:
    """``wanted``, relative to ``root`` or absolute, with every symbolic link resolved.

    Raises:
        FolderRefusedError: it is not ``root`` nor below it.
    """
    home = root.resolve()
    try:
        folder = (home / wanted).resolve()
    except (OSError, ValueError, RuntimeError) as problem:  # a NUL, a circle of links
        raise FolderRefusedError(wanted, home) from problem
    if folder != home and home not in folder.parents:
        raise FolderRefusedError(wanted, home)
    return folder


@dataclass(frozen=True, slots=True)
class FrameNames:
    """File names of one job: prefix, zero-padded number, extension."""

    prefix: str
    start_number: int
    format: FrameFormat

    def frame(self, index: int) -> str:
        """Of the frame that is ``index``-th of its job; of the video for index 0."""
        number = self.start_number + index
        return f"{self.prefix}_{number:0{DIGITS}d}.{EXTENSIONS[self.format]}"

    def all(self, frames: int) -> list[str]:
        """Every file that a job of so many frames writes."""
        if self.format == "lossless video":
            return [self.frame(0)]
        return [self.frame(index) for index in range(frames)]
