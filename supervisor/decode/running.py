"""What all phases of one run share: sizes of parts, the caller's hooks, a second try.

Running out of memory loses the part at hand only. The part is tried again with everything parked
in host memory, then after the caller made room.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import PartDoesNotFitError
from .memory import empty_cache, give_back_cache, is_out_of_memory, pool_is_loose
from .parking import Parking
from .parts import cut_along, part_of
from .tiles import Rect

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from .parking import HostPages
    from .parts import Axis, Part
    from .program import Stage

_log = logging.getLogger(__name__)

RETRIES: Final = 2
"""Of a part, at its own size: with everything parked, and after making room."""


class Sizer(Protocol):
    """Decides how large parts are; asked again for each stage of each chunk."""

    def part(self, phase: int, stage: int, height: int, width: int) -> tuple[int, int]:
        """Rows and columns that a part of this stage owns, in pixels of its input of
        ``height`` x ``width``; as large or larger means everything at once."""
        ...

    def resident_bytes(self) -> int:
        """How much of the waiting results may stay on the device."""
        ...

    def carried_bytes(self) -> int:
        """How much of that may be what waits for the next chunk of time."""
        ...


class Output(Protocol):
    """Takes what the last phase makes."""

    def has(self, rect: Rect) -> bool:
        """Whether these pixels are there already, in all frames."""
        ...

    def write(self, first_frame: int, rect: Rect, made: Tensor) -> None:
        """Take ``[1, C, (t,) h, w]`` from the device."""
        ...

    def forget(self, rect: Rect) -> None:
        """What was written there was of a part that failed."""
        ...

    def commit(self, first_frame: int, frames: int, rect: Rect) -> None:
        """Wait until everything written is in place; those pixels are final."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        phase: index.
        stage: index within it.
        rect: what was done, in pixels of the stage's input.
        committed: its result is made, not only observed.
    """

    phase: int
    stage: int
    rect: Rect
    committed: bool = False


def _ignore(_progress: Progress) -> None:
    """For callers that do not watch."""


def _go_on() -> None:
    """For callers that never interrupt."""


@dataclass(slots=True)
class Hooks:
    """What the caller wants to hear, on the working thread.

    Attributes:
        progress: after every part.
        check: before every part; raises to interrupt.
        is_oom: whether an error means that memory ran out.
        empty_cache: hand unused blocks back to the device.
        make_room: free what others hold; called when a part fails a second time.
        ran_out: told of each failure, by name of the part.
    """

    progress: Callable[[Progress], None] = _ignore
    check: Callable[[], None] = _go_on
    is_oom: Callable[[BaseException], bool] = is_out_of_memory
    empty_cache: Callable[[], None] = empty_cache
    make_room: Callable[[], None] = _go_on
    ran_out: Callable[[str], None] = field(default=lambda _name: None)


class Running:
    """One run as its phases see it.

    Args:
        sizer: decides how large parts are.
        device: where the work runs.
        hooks: what the caller wants to hear.
        pages: host memory to park in; None: of its own.
    """

    def __init__(
        self, sizer: Sizer, device: torch.device, hooks: Hooks, pages: HostPages | None
    ) -> None:
        self._sizer, self._device, self._hooks = sizer, device, hooks
        self.parking = Parking(device, sizer.resident_bytes(), pages)
        self.parking.limit_carried_bytes = sizer.carried_bytes()

    def tiles(self, phase: int, stage: int, layer: Stage, height: int, width: int) -> list[Part]:
        """The parts of a stage that may be of any shape."""
        rows, columns = self.part_size(phase, stage, layer, height, width)
        return [
            part_of(layer, Rect(top, bottom, left, right), height, width)
            for top, bottom in cut_along(height, rows, layer.align)
            for left, right in cut_along(width, columns, layer.align)
        ]

    def bands(
        self, phase: int, stage: int, layer: Stage, height: int, width: int, *, axis: Axis
    ) -> list[Part]:
        """The parts of a stage, cut along one axis."""
        rows, columns = self.part_size(phase, stage, layer, height, width)
        if axis == "rows":
            cuts = [Rect(a, b, 0, width) for a, b in cut_along(height, rows, layer.align)]
        else:
            cuts = [Rect(0, height, a, b) for a, b in cut_along(width, columns, layer.align)]
        return [part_of(layer, rect, height, width) for rect in cuts]

    def part_size(
        self, phase: int, stage: int, layer: Stage, height: int, width: int
    ) -> tuple[int, int]:
        """What a part of a stage owns."""
        if layer.whole:
            return height, width
        return self._sizer.part(phase, stage, height, width)

    def check(self) -> None:
        """Before each part."""
        self._hooks.check()

    def done(self, phase: int, stage: int, rect: Rect, *, committed: bool = False) -> None:
        """After each part."""
        self._hooks.progress(Progress(phase, stage, rect, committed))

    def gather(self) -> None:
        """Before work whose blocks have other sizes than those before it: memory in pieces
        becomes whole again."""
        if pool_is_loose(self._device):
            give_back_cache()

    def attempt(
        self, name: str, work: Callable[[], None], forget: Callable[[], None] = _go_on
    ) -> bool:
        """Do the work, after running out of memory again; False when that did not help.

        Args:
            name: of the part, for the report.
            work: must be able to begin again.
            forget: lets go of what can be had again, after a failure.
        """
        for attempt in range(1 + RETRIES):
            if self._survives(work):
                return True
            # Outside the except block: its traceback would keep the part's tensors alive.
            self._hooks.ran_out(name)
            _log.warning("%s ran out of memory (attempt %s)", name, attempt + 1)
            forget()
            self.parking.park_everything()
            self._hooks.empty_cache()
            if attempt > 0:
                self._hooks.make_room()
        return False

    def attempt_or_fail(self, name: str, work: Callable[[], None]) -> None:
        """The same for work that cannot be made smaller.

        Raises:
            PartDoesNotFitError: it ran out of memory whatever was tried.
        """
        if not self.attempt(name, work):
            raise PartDoesNotFitError(name)

    def _survives(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as problem:
            if not self._hooks.is_oom(problem):
                raise
            return False
        return True
