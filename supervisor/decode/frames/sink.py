"""A pixel sink that writes frames to disk as soon as they are complete, and resumes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import DiskFullError, FramesError, FramesNotWrittenError
from .disk import Disk, is_full, put_in_place
from .job import check_names
from .manifest import temporary_path
from .pixels import CHANNELS, draw_parts
from .pool import WriterFailed
from .session import Session
from .settings import SinkSettings
from .video import check_video_writer

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from torch import Tensor

    from ..tiles import Rect
    from .job import FrameJob


class FrameSink:
    """See ``PixelSink``. Used in a ``with`` block; ``finish`` is its last call there.

    Every call may raise ``FramesError``: writers fail later than what they were given came in.
    """

    def __init__(
        self, job: FrameJob, settings: SinkSettings | None = None, disk: Disk | None = None
    ) -> None:
        self._job, self._settings = job, settings or SinkSettings()
        self._disk = disk or Disk()
        self._session: Session | None = None
        self._since_release_bytes = 0
        self._parts: dict[Rect, None] = {}

    def __enter__(self) -> FrameSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def session(self) -> Session:
        """What tells how far it is; there is one from ``begin`` on."""
        if self._session is None:
            message = "nothing was begun"
            raise RuntimeError(message)
        return self._session

    def finished_before(self) -> int | None:
        """How many frames an earlier run of the same job finished; None if there is work."""
        contents = self._job.earlier() if self._settings.resume else None
        if contents is None or not self._job.is_finished(contents):
            return None
        return contents.header.frames

    def check(self, frames: int) -> None:
        """See that a job of so many frames can be written, before anything is decoded.

        Raises:
            FramesError: its folder cannot be made or a name is taken.
            VideoWriterMissingError: a video is wanted, and PyAV is not there.
        """
        if self._job.format == "lossless video":
            check_video_writer()
        settings = self._settings
        with self._named():
            self._job.folder.mkdir(parents=True, exist_ok=True)
            check_names(
                self._job, frames, clear_existing=settings.clear_existing, resume=settings.resume
            )

    def begin(self, frames: int, height: int, width: int, channels: int) -> None:
        """Open the job's files, and take up what an earlier run left."""
        header = self._job.header(frames, height, width, channels)
        if self._session is not None and self._session.header == header:
            self._session.begin_again()
            return
        self.close()
        if channels not in CHANNELS:
            reason = f"pictures of {channels} channels have no file format"
            raise FramesNotWrittenError(self._job.folder, reason, "Nothing was written.")
        self.check(frames)
        with self._named():
            self._session = Session(self._job, header, self._settings, self._disk)
            self._session.take_up()

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """Whether those pixels are on disk."""
        return self.session.has(first_frame, frames, rect)

    def write(self, first_frame: int, rect: Rect, pixels: Tensor) -> None:
        """Take ``[n, h, w, C]``; whole frames are not held back until the commit."""
        self._since_release_bytes += pixels.numel() * pixels.element_size()
        with self._named():
            self.session.write(first_frame, rect, pixels)

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Have every frame written that became complete."""
        self._parts[rect] = None
        with self._named():
            self.session.commit(first_frame, frames, rect)
        between = self._settings.between
        if between is not None and self._since_release_bytes >= self._settings.release_every_bytes:
            self._since_release_bytes = 0
            between()

    def finish(self) -> None:
        """After the decode: wait for the last file, and tidy up."""
        session = self.session
        with self._named():
            session.drain()
            if not session.is_complete:
                reason = "the decode ended before every frame was complete"
                raise FramesNotWrittenError(self._job.folder, reason, session.kept())
            self._draw_seams(session)
            session.finish()
            self._disk.sync_folder(self._job.folder)

    def close(self) -> None:
        """Write what was handed out and let go of everything; what is not finished stays for a
        later run."""
        if self._session is not None:
            self._session.close()

    def _draw_seams(self, session: Session) -> None:
        """Show the parts of this run; in a decode in one piece, the picture's edge."""
        folder, job, header = self._settings.seams_folder, self._job, session.header
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{job.prefix}_seams_{job.key}.png"
        content = draw_parts(session.first, self._parts, header.height, header.width)
        temporary = temporary_path(path, job.key)
        put_in_place(self._disk, path, temporary, content, lambda _written: None)

    @contextmanager
    def _named(self) -> Generator[None]:
        """Tell what an error means for the job."""
        try:
            yield
        except (OSError, WriterFailed) as caught:
            problem = caught.__cause__ if isinstance(caught, WriterFailed) else caught
            if problem is None or isinstance(problem, FramesError):
                raise problem or caught from None
            raise self._error(problem) from problem

    def _error(self, problem: BaseException) -> FramesError:
        kept = "Nothing was written." if self._session is None else self._session.kept()
        if is_full(problem):
            return DiskFullError(self._job.folder, kept)
        return FramesNotWrittenError(self._job.folder, str(problem), kept)
