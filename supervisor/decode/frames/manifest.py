"""The manifest of one job: which it is, and what of it is on disk.

Lines of JSON that are only ever added to, each forced out before what it tells of is relied on.
The first says which job it is; a last line cut short by a crash counts as not written.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import FrameTakenError
from ..tiles import Rect
from .disk import Written, put_in_place
from .names import FORMATS, FrameNames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from .disk import Disk
    from .names import FrameFormat

VERSION: Final = 1
SUFFIX: Final = ".manifest.jsonl"
HASH: Final = re.compile("[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Header:
    """Which job a manifest belongs to.

    Attributes:
        job: short hash of everything that makes its pixels and its files.
        jpeg_quality: None where it is no JPEG.
        frames: how many it has in all.
        height: rows of a frame.
        width: columns of a frame.
        channels: values per pixel.
    """

    job: str
    prefix: str
    format: FrameFormat
    start_number: int
    jpeg_quality: int | None
    frames: int
    height: int
    width: int
    channels: int

    @property
    def names(self) -> FrameNames:
        """What its files are called."""
        return FrameNames(self.prefix, self.start_number, self.format)


@dataclass(frozen=True, slots=True)
class Block:
    """Pixels of one rectangle in some frames, in the scratch file.

    Attributes:
        offset: where they begin, in bytes.
    """

    offset: int
    first_frame: int
    frames: int
    rect: Rect

    @property
    def end_frame(self) -> int:
        """The first frame after it."""
        return self.first_frame + self.frames

    def holds(self, frame: int) -> bool:
        """Whether it has pixels of a frame."""
        return self.first_frame <= frame < self.end_frame


@dataclass
class Contents:
    """What a manifest tells.

    Attributes:
        files: by name.
        blocks: committed, oldest first.
        finished: nothing of the job is left to do.
        end_bytes: where the last complete line ends.
    """

    header: Header
    files: dict[str, Written] = field(default_factory=dict[str, Written])
    blocks: list[Block] = field(default_factory=list[Block])
    finished: bool = False
    end_bytes: int = 0


class Manifest:
    """One manifest, open for adding; may be used from several threads."""

    def __init__(self, path: Path, contents: Contents, disk: Disk) -> None:
        self.path, self.header, self._disk = path, contents.header, disk
        self.files, self.blocks = contents.files, contents.blocks
        self._lock = threading.Lock()
        self._end_bytes = contents.end_bytes
        self._file: IO[bytes] = disk.open(path, "r+b")
        self._file.truncate(self._end_bytes)

    @classmethod
    def create(cls, path: Path, header: Header, disk: Disk) -> Manifest:
        """A new one.

        Raises:
            FrameTakenError: something else has its name.
        """
        if path.is_symlink() or path.exists():
            raise FrameTakenError(path, "no manifest of this node")
        line = _line({"frames_manifest": VERSION, **asdict(header)})
        put_in_place(disk, path, temporary_path(path, header.job), line, lambda _written: None)
        return cls(path, Contents(header, end_bytes=len(line)), disk)

    def add_file(self, file: Written) -> None:
        """A file is complete and about to get its name."""
        self._add({"file": asdict(file)})
        self.files[file.name] = file

    def add_blocks(self, blocks: list[Block]) -> None:
        """Pixels are in the scratch file for good."""
        self._add({"blocks": [asdict(block) for block in blocks]})
        self.blocks.extend(blocks)

    def drop_blocks(self) -> None:
        """Nothing in the scratch file is needed any more."""
        self._add({"blocks_dropped": True})
        self.blocks.clear()

    def finish(self) -> None:
        """Nothing is left to do."""
        self._add({"finished": True})

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _add(self, record: dict[str, Any]) -> None:
        line = _line(record)
        with self._lock:
            try:
                self._file.seek(self._end_bytes)
                self._file.write(line)
                self._disk.sync(self._file)
            except OSError:
                # Half a line would spoil the next one. What a failed flush left in the file
                # object's buffer must not come after it either, so it is opened anew.
                self._reopen()
                raise
            self._end_bytes += len(line)

    def _reopen(self) -> None:
        with contextlib.suppress(OSError):  # the very failure that led here
            self._file.close()
        self._file = self.path.open("r+b")
        self._file.truncate(self._end_bytes)


def read(path: Path) -> Contents | None:
    """What a manifest tells; None for a file that is none of ours."""
    if path.is_symlink() or not path.is_file():
        return None
    contents: Contents | None = None
    end_bytes = 0
    for line, record in _records(path.read_bytes()):
        if contents is None:
            header = _header(record)
            if header is None:
                return None
            contents = Contents(header)
        elif not _applied(contents, record):
            break
        end_bytes += len(line)
    if contents is not None:
        contents.end_bytes = end_bytes
    return contents


def manifests(folder: Path, prefix: str) -> Iterator[tuple[Path, Contents]]:
    """All manifests of jobs with this prefix in a folder."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        contents = read(path) if path.name.startswith(f"{prefix}.") else None
        if contents is None:
            continue
        header = contents.header
        if header.prefix == prefix and path == manifest_path(folder, prefix, header.job):
            yield path, contents


def manifest_path(folder: Path, prefix: str, job: str) -> Path:
    """Where the manifest of a job lies."""
    return folder / f"{prefix}.{job}{SUFFIX}"


def scratch_path(folder: Path, prefix: str, job: str) -> Path:
    """Where a job keeps pixels of frames that are not complete."""
    return folder / f"{prefix}.{job}.scratch"


def temporary_path(path: Path, job: str) -> Path:
    """What a file of a job is called until it is complete."""
    return path.with_name(f".{path.name}.{job}.part")


def _records(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Complete lines and what they say, up to the first that says nothing."""
    for line in content.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
        except ValueError:
            return
        if not isinstance(record, dict):
            return
        yield line, record


def _header(record: dict[str, Any]) -> Header | None:
    if record.pop("frames_manifest", None) != VERSION or record.get("format") not in FORMATS:
        return None
    try:
        header = Header(**record)
    except TypeError:
        return None
    # The hash becomes part of paths.
    return header if HASH.fullmatch(str(header.job)) else None


def _applied(contents: Contents, record: dict[str, Any]) -> bool:
    """Whether it is a record of ours: with the first that is not, the readable part ends."""
    try:
        _apply(contents, record)
    except (AttributeError, KeyError, TypeError):
        return False
    return True


def _apply(contents: Contents, record: dict[str, Any]) -> None:
    if "file" in record:
        file = Written(**record["file"])
        # A name with a folder in it was not written by us, and must not be followed.
        if Path(file.name).name == file.name:
            contents.files[file.name] = file
    elif "blocks" in record:
        # All or none: a list takes what came before a failure.
        contents.blocks += [_block(each) for each in record["blocks"]]
    elif "blocks_dropped" in record:
        contents.blocks.clear()
    elif "finished" in record:
        contents.finished = True


def _block(record: dict[str, Any]) -> Block:
    rect = Rect(**record["rect"])
    return Block(record["offset"], record["first_frame"], record["frames"], rect)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
