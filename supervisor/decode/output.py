"""From tensors on the device to finished pixels in a sink, copies running beside the kernels."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from ..errors import DecodedOtherwiseError
from .tiles import Rect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from .sink import PixelSink

_log = logging.getLogger(__name__)

STAGING_BYTES: Final = 16 << 20
"""Of one page-locked buffer; torch rounds those up to powers of two."""
BUFFERS: Final = 8
"""What one part made is on its way while the next one is computed."""
_PIXEL_BYTES: Final = 4
_PICTURE_DIMS: Final = 4


@dataclass(slots=True)
class _Copy:
    """Pixels on their way, or, with ``frames``, that everything before it was the last of a
    rectangle."""

    first_frame: int
    rect: Rect
    pixels: Tensor | None = None
    landed: torch.cuda.Event | None = None
    frames: int = 0
    source: Tensor | None = None
    """Kept until it has landed: memory that another stream reads is not to be freed."""
    buffer: Tensor | None = None


class PixelOutput:
    """``Output`` of an engine that ends in a ``PixelSink``.

    Args:
        sink: where pixels go.
        finish: from decoder output ``[1, C, (t,) h, w]`` in float32 to 0..1; may change it.
        first_frame: of this item in the sink.
        frames: how many the item has.
    """

    def __init__(
        self, sink: PixelSink, finish: Callable[[Tensor], Tensor], first_frame: int, frames: int
    ) -> None:
        self._sink, self._finish = sink, finish
        self._first_frame, self._frames = first_frame, frames
        self._under_way: deque[_Copy] = deque()
        self._idle: list[Tensor] = []
        self._buffers = 0
        self._stream: torch.cuda.Stream | None = None
        self._last_frame = 0
        """Frames from the first on that something was finished in, however little."""

    def has(self, rect: Rect) -> bool:
        """Whether the sink has them in all frames."""
        done = self._sink.has(self._first_frame, self._frames, rect)
        self._last_frame = self._frames if done else self._last_frame
        return done

    def write(self, first_frame: int, rect: Rect, made: Tensor) -> None:
        """Begin to copy; what was begun earlier may land meanwhile.

        Raises:
            DecodedOtherwiseError: it does not fit where it belongs.
        """
        if made.ndim == _PICTURE_DIMS:
            made = made.unsqueeze(2)
        self._check(first_frame, rect, made)
        self._not_final(self._first_frame + first_frame, rect)
        for start, top, piece in _pieces(made):
            pixels = self._finish(piece.to(torch.float32, copy=True))[0]
            height = pixels.shape[-2]
            part = Rect(rect.top + top, rect.top + top + height, rect.left, rect.right)
            self._send(self._first_frame + first_frame + start, part, pixels)

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """The sink is told once every copy begun before has landed."""
        self._last_frame = max(self._last_frame, first_frame + frames)
        self._under_way.append(_Copy(self._first_frame + first_frame, rect, frames=frames))
        self._land_ready()

    def forget(self, rect: Rect) -> None:
        """Nothing: what is written again overwrites it, and nothing of it was committed."""
        del rect

    def check_complete(self) -> None:
        """After the last part.

        Raises:
            DecodedOtherwiseError: frames are missing at the end of time.
        """
        if self._last_frame < self._frames:
            raise DecodedOtherwiseError(f"{self._last_frame} frames", str(self._frames))

    def _check(self, first_frame: int, rect: Rect, made: Tensor) -> None:
        frames, height, width = made.shape[2:]
        if (height, width) != (rect.height, rect.width):
            wanted = f"{rect.width} x {rect.height}"
            raise DecodedOtherwiseError(f"{width} x {height} pixels", wanted)
        if first_frame + frames > self._frames:
            made_frames = f"at least {first_frame + frames} frames"
            raise DecodedOtherwiseError(made_frames, str(self._frames))

    def flush(self) -> None:
        """Wait for everything, at the end or after a failure: what is finished is kept."""
        while self._under_way:
            self._land()

    def _not_final(self, first_frame: int, rect: Rect) -> None:
        """What is written again is not final yet: the sink refused to hear that it was."""
        self._under_way = deque(
            each
            for each in self._under_way
            if each.rect != rect
            or each.pixels is not None
            or not each.first_frame <= first_frame < each.first_frame + each.frames
        )

    def _send(self, first_frame: int, rect: Rect, pixels: Tensor) -> None:
        """Begin to copy ``[C, t, h, w]``."""
        pixels = pixels.permute(1, 2, 3, 0)
        if pixels.device.type != "cuda":
            self._under_way.append(_Copy(first_frame, rect, pixels.to("cpu").contiguous()))
            self.flush()
            return
        dense = pixels.contiguous()
        buffer = self._buffer(dense)
        staging = buffer[: dense.numel()].view(dense.shape)
        if self._stream is None:
            self._stream = torch.cuda.Stream(dense.device)
        self._stream.wait_stream(torch.cuda.current_stream(dense.device))
        with torch.cuda.stream(self._stream):
            staging.copy_(dense, non_blocking=True)
            landed = torch.cuda.Event()
            landed.record()
        self._under_way.append(
            _Copy(first_frame, rect, staging, landed, source=dense, buffer=buffer)
        )

    def _buffer(self, pixels: Tensor) -> Tensor:
        """Page-locked memory for these pixels; the oldest copy lands first where all is used."""
        size = pixels.numel()
        if size > STAGING_BYTES // _PIXEL_BYTES:  # a single row of a very wide picture
            return torch.empty(size, dtype=torch.float32)
        while not self._idle and self._buffers >= BUFFERS:
            self._land()
        if not self._idle:
            self._idle.append(_staging())
            self._buffers += 1
        return self._idle.pop()

    def _land_ready(self) -> None:
        """What has arrived, without waiting."""
        while self._under_way:
            landed = self._under_way[0].landed
            if landed is not None and not landed.query():
                return
            self._land()

    def _land(self) -> None:
        copy = self._under_way[0]
        if copy.landed is not None:
            copy.landed.synchronize()
        if copy.pixels is None:
            self._sink.commit(copy.first_frame, copy.frames, copy.rect)
        else:
            self._sink.write(copy.first_frame, copy.rect, copy.pixels)
        # Not before: what the sink refused may belong to a part that is done, and is tried again.
        self._under_way.popleft()
        if copy.buffer is not None and copy.buffer.numel() == STAGING_BYTES // _PIXEL_BYTES:
            self._idle.append(copy.buffer)


def _staging() -> Tensor:
    """One buffer. Page-locked memory may be short where there is plenty of the other kind, with
    which copies are slower and wait for the kernels."""
    count = STAGING_BYTES // _PIXEL_BYTES
    try:
        return torch.empty(count, dtype=torch.float32, pin_memory=True)
    except RuntimeError as problem:
        _log.info("No page-locked memory for pictures (%s)", problem)
    return torch.empty(count, dtype=torch.float32)


def _pieces(made: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """First frame, first row and pixels of parts that fit into one buffer each."""
    channels, frames, height, width = made.shape[1:]
    row_bytes = max(1, channels * width * _PIXEL_BYTES)
    rows = min(height, max(1, STAGING_BYTES // row_bytes))
    at_once = max(1, STAGING_BYTES // (row_bytes * rows)) if rows == height else 1
    for start in range(0, frames, at_once):
        for top in range(0, height, rows):
            yield start, top, made[:, :, start : start + at_once, top : top + rows]
