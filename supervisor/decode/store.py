"""What one stage made and the next one reads, with a halo, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .tiles import Rect

if TYPE_CHECKING:
    from torch import Tensor

    from .parking import Held, Parking
    from .parts import Axis


@dataclass(slots=True)
class _Band:
    start: int
    stop: int
    held: Held


class Bands:
    """A tensor ``[1, C, (t,) h, w]`` in bands along one axis of space."""

    def __init__(self, parking: Parking, axis: Axis, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._parking, self._dim = parking, -2 if axis == "rows" else -1
        self._bands: list[_Band] = []
        self._near: dict[int, tuple[Tensor, torch.cuda.Event | None]] = {}
        """Parked bands that are on the device, or on their way, by where they start."""

    def put(self, start: int, tensor: Tensor) -> None:
        """Keep a band that begins at ``start``; its predecessors are there."""
        stop = start + tensor.shape[self._dim]
        self._bands.append(_Band(start, stop, self._parking.keep(tensor.contiguous())))

    def truncate(self, start: int) -> None:
        """Forget what was put at or after ``start``."""
        for band in [each for each in self._bands if each.start >= start]:
            self._forget(band)

    def read(self, rect: Rect) -> Tensor:
        """A rectangle, dense and on the device; not to be changed."""
        start, stop = self._along(rect)
        pieces = [self._piece(band, start, stop) for band in self._within(start, stop)]
        found = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=self._dim)
        return self._across(found, rect).contiguous()

    def prefetch(self, rect: Rect) -> None:
        """Begin to bring back what ``read`` will want."""
        start, stop = self._along(rect)
        for band in self._within(start, stop):
            if band.held.resident is None and band.start not in self._near:
                self._near[band.start] = self._parking.fetch(band.held)

    def move_on(self, start: int, *, release: bool) -> None:
        """Nothing before ``start`` will be read again in this pass; with ``release``, ever."""
        for key in [key for key, band in self._by_start().items() if band.stop <= start]:
            self._parking.discard(self._near.pop(key, None))
            if release:
                self._forget(self._by_start()[key])

    def rewind(self) -> None:
        """Before the next pass, and after running out of memory."""
        self._forget_near()

    def close(self) -> None:
        """Forget everything."""
        for band in list(self._bands):
            self._forget(band)
        self._forget_near()

    def _forget_near(self) -> None:
        for coming in self._near.values():
            self._parking.discard(coming)
        self._near.clear()

    def _along(self, rect: Rect) -> tuple[int, int]:
        return (rect.top, rect.bottom) if self._dim == -2 else (rect.left, rect.right)  # noqa: PLR2004

    def _within(self, start: int, stop: int) -> list[_Band]:
        return [band for band in self._bands if band.start < stop and band.stop > start]

    def _piece(self, band: _Band, start: int, stop: int) -> Tensor:
        if band.held.resident is not None:
            tensor, ready = band.held.resident, None
        else:
            tensor, ready = self._near.pop(band.start, None) or self._parking.fetch(band.held)
            if ready is not None:
                torch.cuda.current_stream(tensor.device).wait_event(ready)
            self._near[band.start] = (tensor, None)
        first = max(start, band.start)
        return tensor.narrow(self._dim, first - band.start, min(stop, band.stop) - first)

    def _across(self, found: Tensor, rect: Rect) -> Tensor:
        """The other axis, which bands have whole."""
        if self._dim == -2:  # noqa: PLR2004
            return found[..., rect.left : rect.right]
        return found[..., rect.top : rect.bottom, :]

    def _by_start(self) -> dict[int, _Band]:
        return {band.start: band for band in self._bands}

    def _forget(self, band: _Band) -> None:
        self._parking.drop(band.held)
        self._bands.remove(band)


@dataclass(slots=True)
class _Stretch:
    first_frame: int
    frames: int
    held: Held


class Clip:
    """A whole picture or clip ``[1, C, (t,) h, w]`` in stretches of time: what a phase reads."""

    def __init__(self, parking: Parking) -> None:
        self._parking = parking
        self._stretches: list[_Stretch] = []
        self.frames = 0

    def put(self, tensor: Tensor) -> None:
        """Add what follows in time."""
        frames = frames_of(tensor)
        held = self._parking.keep(tensor.contiguous())
        self._stretches.append(_Stretch(self.frames, frames, held))
        self.frames += frames

    @property
    def height(self) -> int:
        """Rows."""
        return self._stretches[0].held.shape[-2]

    @property
    def width(self) -> int:
        """Columns."""
        return self._stretches[0].held.shape[-1]

    def read(self, first_frame: int, frames: int, rect: Rect) -> Tensor:
        """Some frames of a rectangle, dense and on the device; not to be changed."""
        pieces = [
            self._piece(each, first_frame, first_frame + frames, rect)
            for each in self._stretches
            if each.first_frame < first_frame + frames
            and each.first_frame + each.frames > first_frame
        ]
        return pieces[0].contiguous() if len(pieces) == 1 else torch.cat(pieces, dim=2)

    def whole(self) -> Tensor:
        """Everything, on the device."""
        return self.read(0, self.frames, Rect(0, self.height, 0, self.width))

    def close(self) -> None:
        """Forget everything."""
        for each in self._stretches:
            self._parking.drop(each.held)
        self._stretches = []

    def _piece(self, stretch: _Stretch, first: int, stop: int, rect: Rect) -> Tensor:
        tensor = self._parking.get(stretch.held)
        tensor = tensor[..., rect.top : rect.bottom, rect.left : rect.right]
        if tensor.ndim == 4:  # noqa: PLR2004 - pictures have no time
            return tensor
        start = max(first, stretch.first_frame) - stretch.first_frame
        return tensor[:, :, start : min(stop - stretch.first_frame, stretch.frames)]


def frames_of(tensor: Tensor) -> int:
    """Frames of ``[1, C, t, h, w]``; a picture is one."""
    return tensor.shape[2] if tensor.ndim == 5 else 1  # noqa: PLR2004
