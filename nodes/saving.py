"""The safe decode into files: which job it is, and what is kept when it fails."""

from __future__ import annotations

import gc
import hashlib
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..supervisor.decode.frames.names import FORMATS, check_prefix, folder_inside
from ..supervisor.decode.frames.sink import FrameSink
from ..supervisor.decode.frames.video import check_video_writer
from ..supervisor.errors import (
    DecodeFailedError,
    FramesError,
    LatentNotDecodableError,
    SupervisorError,
)
from .host.vae import picture_latent, read_facts, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from ..supervisor.decode.frames.job import FrameJob
    from ..supervisor.decode.frames.settings import SinkSettings
    from .decoding import Decoded
    from .host.vae import Vae

    Decode = Callable[[FrameSink], Decoded]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    """A job that is on disk.

    Attributes:
        frames: of the job.
        found: how many of them an earlier run had written.
        cleared: finished files of other jobs that were deleted.
        most_held: the most frames that waited in memory at once.
        decoded: None where an earlier run had finished the job.
    """

    frames: int
    found: int
    cleared: int = 0
    most_held: int = 0
    decoded: Decoded | None = None


def problem_with(
    root: Path, folders: list[str | None], prefix: str | None, image_format: str | None
) -> str | None:
    """What speaks against such a job, before anything is sampled; None where nothing does.

    Args:
        root: the output folder.
        folders: where frames and seam pictures go; None for what is not known yet, as is the
            case for the next two.
        prefix: of file names.
        image_format: see ``FORMATS``.
    """
    try:
        for folder in folders:
            if folder is not None:
                folder_inside(root, folder)
        if prefix is not None:
            check_prefix(prefix)
        if image_format == "lossless video":
            check_video_writer()
    except SupervisorError as problem:
        return str(problem)
    if image_format is not None and image_format not in FORMATS:
        return f"image_format is {image_format!r}; choose one of {', '.join(FORMATS)}."
    return None


def folder_state(folder: Path, prefix: str) -> str:
    """Changes when files of that prefix come, go, or change their size."""
    if not folder.is_dir():
        return ""
    files = [
        f"{path.name} {path.lstat().st_size}"
        for path in sorted(folder.iterdir())
        if path.name.startswith(prefix)
    ]
    return hashlib.sha256("\n".join(files).encode()).hexdigest()


def expected_frames(samples: Any, vae: Vae) -> int:
    """How many pictures a latent becomes.

    Raises:
        LatentNotDecodableError: it becomes none.
    """
    facts = read_facts(vae)
    latent = picture_latent(samples, facts)
    if not facts.pictures:
        sizes = "x".join(map(str, latent.shape))
        raise LatentNotDecodableError(sizes, "this VAE makes no pictures")
    shape = shape_of(latent, facts)
    return shape.batch * shape.pixel_frames


def save_frames(
    job: FrameJob,
    settings: SinkSettings,
    frames: int,
    decode: Decode,
    keep_latent: Callable[[], Path],
) -> Saved:
    """Decode into files, or find that it was done before.

    Args:
        job: what to write.
        settings: how.
        frames: how many are expected.
        decode: decodes into a sink; keeps the latent by itself when it fails.
        keep_latent: saves the latent.

    Raises:
        FramesError: they could not be written; it says what is kept, the latent among it.
        DecodeFailedError: they could not be decoded.
    """
    with _latent_kept(keep_latent), FrameSink(job, settings) as sink:
        done = sink.finished_before()
        if done is not None:
            return Saved(done, found=done)
        sink.check(frames)
        decoded = decode(sink)
        sink.finish()
        session = sink.session
        return Saved(
            session.header.frames, session.found, session.cleared, session.most_held, decoded
        )


def releaser(empty_cache: Callable[[], None]) -> Callable[[], None]:
    """Releases what Python and torch keep for later."""

    def release() -> None:
        gc.collect()
        empty_cache()

    return release


@contextmanager
def early_failure_kept(keep_latent: Callable[[], Path]) -> Generator[None]:
    """What fails before there is a job is told with the latent kept, as later failures are.

    Raises:
        DecodeFailedError: in place of any error.
    """
    try:
        yield
    except Exception as problem:
        tried = [f"failed: {type(problem).__name__}: {problem}"]
        raise DecodeFailedError(tried, _saved(keep_latent), began=False) from problem


@contextmanager
def _latent_kept(keep_latent: Callable[[], Path]) -> Generator[None]:
    """Frames that cannot be written are that error, not one of the decode; the latent is kept
    in either case."""
    try:
        yield
    except DecodeFailedError as failed:
        problem = failed.__cause__
        if not isinstance(problem, FramesError):
            raise
        problem.latent_path = failed.latent_path
        raise problem from problem.__cause__
    except FramesError as problem:
        problem.latent_path = _saved(keep_latent)
        raise


def _saved(keep_latent: Callable[[], Path]) -> Path | None:
    try:
        return keep_latent()
    except Exception:  # noqa: BLE001 - must not replace the error that led here
        _log.exception("The latent could not be saved")
        return None
