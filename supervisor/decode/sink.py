"""Where decoded pixels go, rectangle by rectangle, as they are finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from .tiles import Rect

if TYPE_CHECKING:
    from torch import Tensor

POURED_FRAMES: int = 8
"""Frames handed over at a time."""


class PixelSink(Protocol):
    """Receives pixels on the decoding thread.

    A rectangle of some frames may be written more than once before it is committed (a part that
    ran out of memory begins again), never after that.
    """

    def begin(self, frames: int, height: int, width: int, channels: int) -> None:
        """Before anything is written; again when a decode starts over with nothing lost."""
        ...

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """Whether those pixels were committed before (by an earlier run), and so can be
        skipped."""
        ...

    def write(self, first_frame: int, rect: Rect, pixels: Tensor) -> None:
        """Take ``pixels`` ``[n, h, w, C]``, float32 on the host; the buffer is used again after
        the call."""
        ...

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """All pixels of that rectangle in those frames are written and final."""
        ...


class TensorSink:
    """Collects everything in one preallocated host tensor ``[N, H, W, C]``.

    Args:
        dtype: of that tensor.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self._pixels: Tensor | None = None
        self.dtype = dtype
        self._committed: dict[tuple[int, int], Tensor] = {}
        """Which pixels are final, for each stretch of frames ``[first, end)``."""

    @property
    def pixels(self) -> Tensor:
        """What was written so far."""
        if self._pixels is None:
            message = "nothing was decoded yet"
            raise RuntimeError(message)
        return self._pixels

    def begin(self, frames: int, height: int, width: int, channels: int) -> None:
        """Allocate once; what is there stays."""
        shape = (frames, height, width, channels)
        if self._pixels is None or tuple(self._pixels.shape) != shape:
            with torch.inference_mode(mode=False):  # others may write to it outside that mode
                self._pixels = torch.empty(shape, dtype=self.dtype)
            self._committed.clear()

    def has(self, first_frame: int, frames: int, rect: Rect) -> bool:
        """Whether all of it was committed in each of these frames, in whatever parts."""
        end = first_frame + frames
        at = {edge for stretch in self._committed for edge in stretch if first_frame < edge < end}
        return all(self._has_in(frame, rect) for frame in (first_frame, *at))

    def _has_in(self, frame: int, rect: Rect) -> bool:
        done = [
            _part(mask, rect)
            for (first, end), mask in self._committed.items()
            if first <= frame < end
        ]
        return bool(done) and bool(torch.stack(done).any(dim=0).all())

    def write(self, first_frame: int, rect: Rect, pixels: Tensor) -> None:
        """Copy into place."""
        target = self.pixels[first_frame : first_frame + pixels.shape[0]]
        target[:, rect.top : rect.bottom, rect.left : rect.right].copy_(pixels)

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Remember, so that a decode that goes on skips them."""
        key = (first_frame, first_frame + frames)
        if key not in self._committed:
            with torch.inference_mode(mode=False):
                self._committed[key] = torch.zeros(self.pixels.shape[1:3], dtype=torch.bool)
        _part(self._committed[key], rect).fill_(value=True)


def _part(mask: Tensor, rect: Rect) -> Tensor:
    return mask[rect.top : rect.bottom, rect.left : rect.right]


def pour(images: Tensor, sink: PixelSink) -> None:
    """Give a finished decode ``[N, H, W, C]`` to a sink, some frames at a time."""
    frames, height, width, channels = images.shape
    everything = Rect(0, height, 0, width)
    sink.begin(frames, height, width, channels)
    for first in range(0, frames, POURED_FRAMES):
        part = images[first : first + POURED_FRAMES]
        if not sink.has(first, len(part), everything):
            sink.write(first, everything, part.to("cpu", torch.float32))
            sink.commit(first, len(part), everything)
