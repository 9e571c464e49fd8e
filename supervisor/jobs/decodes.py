"""The decodes and encodes of this process as they go on, for whoever watches.

A decode runs thousands of parts in a few seconds. What changed is told at most ten times a
second; what is left over then goes out with the next change or sample, at the latest with the end.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..types import DecodeProgress, DecodeSummary

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..ports import Clock, PositionSource
    from ..types import DecodeOutcome, Plan

TOLD_EVERY_S: Final = 0.1
REMEMBERED_DECODES: Final = 256
MOST_RECTANGLES: Final = 4096
"""Kept of one decode; further ones are told as they finish, and only counted afterwards."""

Finished: TypeAlias = "tuple[int, int, int, int, int, int]"
"""First frame, frames, left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What is decoded or encoded: pixels, and frames of all items together."""

    width: int
    height: int
    frames: int


@dataclass(slots=True)
class _Running:
    number: int
    job_id: str | None
    summary: DecodeSummary
    steps: int | None = None
    done: int = 0
    finished: list[Finished] = field(default_factory=list["Finished"])
    untold: list[Finished] = field(default_factory=list["Finished"])
    told_s: float = 0.0
    behind: bool = False
    """Something changed that was not told yet."""
    settling: bool = False
    """What was used when it began to follow its plan is of a sample taken before."""

    def snapshot(self, finished: tuple[Finished, ...], time_s: float) -> DecodeProgress:
        return DecodeProgress(
            self.number, self.job_id, self.summary, self.steps, self.done, finished, time_s
        )


class DecodeBoard:
    """Follows decodes. Every method may be called on any thread.

    Args:
        clock: time.
        positions: which job and node run.
        used_bytes: what is used on a device now, by everybody; None where not known.
        listener: told of changes, on the decoding thread or the one that calls ``sampled``, with
            a lock held: it must neither block nor ask the board.
    """

    def __init__(
        self,
        clock: Clock,
        positions: PositionSource,
        used_bytes: Callable[[str], int | None],
        listener: Callable[[DecodeProgress], None],
    ) -> None:
        self._clock, self._positions = clock, positions
        self._used_bytes, self._listener = used_bytes, listener
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}
        self._ended: deque[tuple[str | None, DecodeSummary]] = deque(maxlen=REMEMBERED_DECODES)
        self._count = 0

    def begin(
        self,
        what: Literal["decode", "encode"],
        device: str,
        *,
        family: str | None = None,
        pictures: Pictures | None = None,
    ) -> DecodeWatch:
        """A decode or encode begins in the node that runs now."""
        position = self._positions.position()
        summary = DecodeSummary(
            what,
            device,
            position.node_id,
            self._clock.time_s(),
            family=family,
            width=None if pictures is None else pictures.width,
            height=None if pictures is None else pictures.height,
            frames=None if pictures is None else pictures.frames,
            held_bytes=self._used_bytes(device),
        )
        with self._lock:
            self._count += 1
            number = self._count
            self._running[number] = _Running(number, position.job_id, summary)
        return DecodeWatch(self, number)

    def current(self) -> DecodeProgress | None:
        """The decode that began last and still runs, with all that is final of it."""
        with self._lock:
            if not self._running:
                return None
            running = self._running[next(reversed(self._running))]
            return running.snapshot(tuple(running.finished), self._clock.time_s())

    def of_job(self, job_id: str) -> tuple[DecodeSummary, ...]:
        """Those of a job that ended, oldest first."""
        with self._lock:
            return tuple(summary for owner, summary in self._ended if owner == job_id)

    def change(self, number: int, change: Callable[[_Running], None], *, now: bool) -> None:
        """Change a running decode and tell the listener; one that ended stays as it is."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            running = self._running.get(number)
            if running is None:
                return
            change(running)
            running.behind = True
            if now or now_s - running.told_s >= TOLD_EVERY_S:
                self._tell(running, now_s)
            if running.summary.outcome != "running":
                del self._running[number]
                self._ended.append((running.job_id, running.summary))

    def sampled(self, device: str, used_bytes: int | None) -> None:
        """After each sample: what was held back is told, for the next change of a decode in a few
        large parts can be long in coming; and a decode that evicted models before its first part
        began with less than the sample before that said."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            for running in self._running.values():
                summary = running.summary
                if running.settling and summary.device == device and used_bytes is not None:
                    least_bytes = min(used_bytes, summary.held_bytes or used_bytes)
                    running.summary = replace(summary, held_bytes=least_bytes)
                    running.settling, running.behind = False, True
                if running.behind and now_s - running.told_s >= TOLD_EVERY_S:
                    self._tell(running, now_s)

    def used_bytes(self, number: int) -> int | None:
        """What is used on a decode's device now, as far as that is known."""
        with self._lock:
            running = self._running.get(number)
        return None if running is None else self._used_bytes(running.summary.device)

    def _tell(self, running: _Running, now_s: float) -> None:
        """Under the lock: nobody hears of a decode after its end."""
        running.told_s, running.behind = now_s, False
        told = running.snapshot(tuple(running.untold), self._clock.time_s())
        running.untold.clear()
        self._listener(told)

    def ended_now_s(self) -> float:
        """The moment for a summary that ends."""
        return self._clock.time_s()


class DecodeWatch:
    """One decode, told of by whoever runs it. Nothing here raises or blocks."""

    def __init__(self, board: DecodeBoard, number: int) -> None:
        self._board, self._number = board, number

    def planned(self, plan: Plan | None, *, predicted_bytes: int | None = None) -> None:
        """It follows this plan from now on; steps of an earlier one do not count any more, nor
        does what was used before models left for it.

        ``predicted_bytes`` is what it is to add where that is better known than by the plan.
        """
        used_bytes = self._board.used_bytes(self._number)

        def change(running: _Running) -> None:
            running.steps, running.done = (None, 0) if plan is None else (plan.tiles, 0)
            running.summary = replace(running.summary, held_bytes=used_bytes)
            running.settling = True
            if plan is None:
                running.summary = replace(
                    running.summary, kind=None, plan=None, predicted_bytes=predicted_bytes
                )
                return
            known_bytes = plan.predicted_peak_bytes
            running.summary = replace(
                running.summary,
                kind=plan.kind,
                plan=plan.reason,
                predicted_bytes=known_bytes if predicted_bytes is None else predicted_bytes,
                predicted_seconds=plan.predicted_seconds,
            )

        self._board.change(self._number, change, now=True)

    def advanced(self) -> None:
        """One part was run."""

        def change(running: _Running) -> None:
            running.done += 1

        self._board.change(self._number, change, now=False)

    def finished(self, first_frame: int, frames: int, rect: Rectangle) -> None:
        """Pixels of the output are final: ``(left, top, right, bottom)`` in those frames."""
        made = (first_frame, frames, *rect)

        def change(running: _Running) -> None:
            _add(running.untold, made)
            if len(running.finished) < MOST_RECTANGLES:
                _add(running.finished, made)

        self._board.change(self._number, change, now=False)

    def said(self, line: str) -> None:
        """Something went otherwise than planned, in words."""

        def change(running: _Running) -> None:
            retries = (*running.summary.retries, line)
            running.summary = replace(running.summary, retries=retries)

        self._board.change(self._number, change, now=True)

    def ended(
        self,
        outcome: DecodeOutcome,
        *,
        measured_bytes: int | None = None,
        seconds: float | None = None,
        retries: tuple[str, ...] = (),
    ) -> None:
        """It is over; what comes later is ignored. ``retries`` is the whole story."""
        ended_s = self._board.ended_now_s()

        def change(running: _Running) -> None:
            if outcome == "done" and running.steps is not None:
                running.done = running.steps
            running.summary = replace(
                running.summary,
                outcome=outcome,
                ended_s=ended_s,
                measured_bytes=measured_bytes,
                seconds=seconds,
                retries=retries or running.summary.retries,
            )

        self._board.change(self._number, change, now=True)


Rectangle: TypeAlias = "tuple[int, int, int, int]"
"""Left, top, right, bottom."""


def _add(rects: list[Finished], made: Finished) -> None:
    """Add a rectangle; one right below or beside the last one, in the same frames, joins it."""
    if rects:
        joined = _joined(rects[-1], made)
        if joined is not None:
            rects[-1] = joined
            return
    rects.append(made)


def _joined(one: Finished, other: Finished) -> Finished | None:
    first, frames, left, top, right, bottom = one
    if (first, frames) != other[:2]:
        return None
    if (left, right, bottom) == (other[2], other[4], other[3]):
        return (first, frames, left, top, right, other[5])
    if (top, bottom, right) == (other[3], other[5], other[2]):
        return (first, frames, left, top, other[4], bottom)
    return None
