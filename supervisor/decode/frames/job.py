"""Which job is written, what of it is there, and which files are whose."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...errors import FrameTakenError
from .manifest import Contents, Header, manifest_path, manifests, read, scratch_path
from .names import FrameNames

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .disk import Written
    from .names import FrameFormat

HASH_DIGITS: Final = 12
FOREIGN: Final = "no file of this node, or was changed since"
OTHER_JOB: Final = "a frame of another job, which may stay because clear_existing is off"


@dataclass(frozen=True, slots=True)
class FrameJob:
    """What is to be written.

    Attributes:
        folder: where; checked to be allowed.
        prefix: of every file name; checked to be one.
        jpeg_quality: 1 to 100; counts for JPEG only.
        identity: of what is decoded: equal for equal latents, decoders and settings.
    """

    folder: Path
    prefix: str
    format: FrameFormat
    start_number: int
    jpeg_quality: int
    identity: str

    @property
    def key(self) -> str:
        """Short hash of everything that makes the files."""
        parts = [self.identity, self.prefix, self.format, self.start_number, self._quality]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:HASH_DIGITS]

    @property
    def _quality(self) -> int | None:
        return self.jpeg_quality if self.format == "jpg" else None

    @property
    def names(self) -> FrameNames:
        """What its files are called."""
        return FrameNames(self.prefix, self.start_number, self.format)

    @property
    def manifest_path(self) -> Path:
        """Where its manifest lies."""
        return manifest_path(self.folder, self.prefix, self.key)

    @property
    def scratch_path(self) -> Path:
        """Where pixels of its unfinished frames lie."""
        return scratch_path(self.folder, self.prefix, self.key)

    def header(self, frames: int, height: int, width: int, channels: int) -> Header:
        """The first line of its manifest."""
        return Header(
            self.key,
            self.prefix,
            self.format,
            self.start_number,
            self._quality,
            frames,
            height,
            width,
            channels,
        )

    def earlier(self) -> Contents | None:
        """What an earlier run of the same job left."""
        return read(self.manifest_path)

    def is_finished(self, contents: Contents | None) -> bool:
        """Whether an earlier run left nothing to do, and all of it is still there."""
        if contents is None or not contents.finished:
            return False
        names = self.names.all(contents.header.frames)
        return all(os.path.lexists(self.folder / name) for name in names)


def check_names(job: FrameJob, frames: int, *, clear_existing: bool, resume: bool) -> None:
    """See that every name a job needs is free, is its own, or will be.

    Raises:
        FrameTakenError: one is not.
    """
    own: set[str] = set()
    others: set[str] = set()
    cleared: dict[str, Written] = {}
    for _, contents in manifests(job.folder, job.prefix):
        same = contents.header.job == job.key
        if same and resume:
            own |= contents.files.keys()
        elif same or clear_existing:
            cleared |= contents.files
        else:
            others |= contents.files.keys()
    for name in job.names.all(frames):
        path = job.folder / name
        if name in own or not os.path.lexists(path):
            continue
        if name not in cleared or not cleared[name].is_at(path):
            raise FrameTakenError(path, OTHER_JOB if name in others else FOREIGN)


def clear(job: FrameJob, *, other_jobs: bool, same_job: bool) -> int:
    """Delete what jobs with this prefix wrote, as far as nobody changed it since.

    Args:
        job: the one about to be written.
        other_jobs: delete what other jobs wrote.
        same_job: delete what earlier runs of this one wrote.

    Returns:
        the number of finished files that were deleted.
    """
    deleted = 0
    for path, contents in list(manifests(job.folder, job.prefix)):
        if same_job if contents.header.job == job.key else other_jobs:
            deleted += _delete(job.folder, contents.header, contents.files.values())
            # Last, so that what an error leaves behind is still known to be ours.
            path.unlink()
    return deleted


def delete_temporaries(folder: Path, key: str) -> None:
    """Delete files that a run of a job did not complete."""
    for path in folder.glob(f".*.{key}.part"):
        path.unlink()


def _delete(folder: Path, header: Header, files: Iterable[Written]) -> int:
    deleted = 0
    for file in files:
        if file.is_at(folder / file.name):
            (folder / file.name).unlink()
            deleted += 1
    delete_temporaries(folder, header.job)
    scratch_path(folder, header.prefix, header.job).unlink(missing_ok=True)
    return deleted
