"""Tells the supervisor of decodes and encodes while they run, for the panel and the history."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from ..supervisor.jobs.decodes import Pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import torch

    from ..supervisor.decode.sink import PixelSink
    from ..supervisor.decode.tiles import Rect
    from ..supervisor.jobs.decodes import DecodeBoard, DecodeWatch
    from ..supervisor.planning.types import DecodeShape
    from ..supervisor.types import DecodeOutcome
    from .attempting import DeviceExecutor
    from .host.memory import HostMemory
    from .host.vae import Vae
    from .host.vae_encoding import EncodingVae
    from .ladder import Record


class WatchedSink:
    """A sink whose committed rectangles are told."""

    def __init__(self, sink: PixelSink, watch: DecodeWatch) -> None:
        self._sink, self._watch = sink, watch

    def begin(self, frames: int, height: int, width: int, channels: int) -> None:
        """As the sink's own."""
        self._sink.begin(frames, height, width, channels)

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """As the sink's own."""
        return self._sink.has(first_frame, frames, rect)

    def write(self, first_frame: int, rect: Rect, pixels: torch.Tensor) -> None:
        """As the sink's own."""
        self._sink.write(first_frame, rect, pixels)

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Tell once the sink has them."""
        self._sink.commit(first_frame, frames, rect)
        corners = (rect.left, rect.top, rect.right, rect.bottom)
        self._watch.finished(first_frame, frames, corners)


def pictures_of(shape: DecodeShape | None) -> Pictures | None:
    """Size of what a latent decodes to, all items together; None for what is no picture."""
    if shape is None:
        return None
    return Pictures(shape.pixel_width, shape.pixel_height, shape.batch * shape.pixel_frames)


def begun(
    board: DecodeBoard | None,
    what: Literal["decode", "encode"],
    vae: Vae | EncodingVae,
    shape: DecodeShape | None,
) -> DecodeWatch | None:
    """Tell that one begins; None where nobody wants to know."""
    if board is None:
        return None
    family = type(vae.first_stage_model).__name__
    return board.begin(what, str(vae.device), family=family, pictures=pictures_of(shape))


def telling(record: Record, watch: DecodeWatch | None) -> Callable[[str], None]:
    """Takes lines for the report, and hands them on at once."""

    def tell(line: str) -> None:
        record.tried.append(line)
        if watch is not None:
            watch.said(line)

    return tell


@contextmanager
def told(
    watch: DecodeWatch | None,
    executor: DeviceExecutor[Any, Any],
    record: Record,
    memory: HostMemory,
) -> Generator[None]:
    """Tell how what runs inside ends, with what it took."""
    outcome: DecodeOutcome = "failed"
    try:
        yield
        outcome = "done"
    except BaseException as problem:
        if not isinstance(problem, Exception) or memory.is_interrupt(problem):
            outcome = "interrupted"
        raise
    finally:
        if watch is not None:
            peak_bytes = executor.measured.peak_bytes or None
            watch.ended(
                outcome,
                measured_bytes=peak_bytes if outcome == "done" else None,
                seconds=executor.seconds if outcome == "done" else None,
                retries=tuple(record.tried),
            )
