"""Samples every device at a rate that follows what goes on.

Each probe is read on a thread of its own that also does the waiting: an idle thread costs
nothing, and waking one is half the price of waking an event loop that then wakes a worker.
So a driver that hangs delays neither the event loop nor the other devices. The loop's own task
looks once a second for calls that have not come back: they are not repeated, and a sample says
that the figures are unknown, and why.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from ..types import Reading, Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from ..ports import Clock, PositionSource, Probe

    Pause: TypeAlias = Callable[[float, threading.Event], object]
    """Blocks for so many seconds or until the event is set, whichever comes first."""

BUSY_INTERVAL_S: Final = 0.1
IDLE_INTERVAL_S: Final = 1.0
WATCH_INTERVAL_S: Final = 1.0

_log = logging.getLogger(__name__)


def pause(seconds: float, event: threading.Event) -> None:
    """Wait for the event, at most so many seconds."""
    event.wait(seconds)


def latest_due_s(due_s: float, now_s: float, interval_s: float) -> float:
    """The newest moment not after ``now_s`` on the grid that ``due_s`` lies on.

    Samples keep to the grid, so small delays do not add up; what was missed is skipped.
    """
    return due_s + max(0, int((now_s - due_s) // interval_s)) * interval_s


class _Line:
    """One probe, its thread and the call it is in."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.thread: threading.Thread | None = None
        self.roused = threading.Event()
        self.call_started_s: float | None = None
        """When the read under way began; None between two reads."""


class Sampler:
    """Reads the probes until cancelled.

    Args:
        sink: takes each sample, on a worker thread; may be called on several at once.
        is_busy: whether to sample at the busy rate; asked often, must be cheap.
        wait: how a reading thread waits; tests inject a wait they control.
        rest: how the watch over stuck calls waits, in seconds.
    """

    def __init__(
        self,
        probes: Sequence[Probe],
        clock: Clock,
        position: PositionSource,
        sink: Callable[[Sample], None],
        is_busy: Callable[[], bool],
        *,
        busy_interval_s: float = BUSY_INTERVAL_S,
        idle_interval_s: float = IDLE_INTERVAL_S,
        wait: Pause = pause,
        rest: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._clock = clock
        self._position = position
        self._sink = sink
        self._is_busy = is_busy
        self._busy_interval_s = busy_interval_s
        self._idle_interval_s = idle_interval_s
        self._wait = wait
        self._rest = rest
        self._lines = tuple(_Line(probe) for probe in probes)
        self._stopping = threading.Event()

    @property
    def interval_s(self) -> float:
        """Seconds between two samples of a device right now."""
        return self._busy_interval_s if self._is_busy() else self._idle_interval_s

    async def run(self) -> None:
        """Sample until cancelled. Runs once."""
        for line in self._lines:
            name = f"vram-supervisor {line.probe.device.key}"
            # A daemon, so that a driver that never answers cannot keep the process from ending.
            line.thread = threading.Thread(
                target=self._follow, args=(line,), name=name, daemon=True
            )
            line.thread.start()
        try:
            await self._watch()
        finally:
            self._stopping.set()
            self.wake()

    def wake(self) -> None:
        """Apply a rate that has changed now. Callable from any thread, at any time."""
        for line in self._lines:
            line.roused.set()

    def close_probes(self, timeout_s: float) -> None:
        """Close every probe once ``run`` has ended.

        A probe whose driver still has not answered is left open after ``timeout_s``: taking
        the library away under a running call would crash the process.
        """
        for line in self._lines:
            if line.thread is not None:
                line.thread.join(timeout_s)
            if line.thread is None or not line.thread.is_alive():
                line.probe.close()
            else:
                _log.warning("%s still does not answer and is left open.", line.probe.device.key)

    # --- the reading threads --------------------------------------------------------------

    def _follow(self, line: _Line) -> None:
        due_s = self._clock.monotonic_s()
        while not self._stopping.is_set():
            self._deliver(line.probe, self._read(line))
            due_s = self._await_due(line, due_s)

    def _await_due(self, line: _Line, due_s: float) -> float:
        """Wait until the next sample is due, by a rate that may change meanwhile."""
        while not self._stopping.is_set():
            # Cleared before the rate is read: a change that comes in between wakes the wait.
            line.roused.clear()
            now_s = self._clock.monotonic_s()
            following_s = due_s + self.interval_s
            if following_s <= now_s:
                return latest_due_s(due_s, now_s, following_s - due_s)
            if not self._stopping.is_set():
                self._wait(following_s - now_s, line.roused)
        return due_s

    def _read(self, line: _Line) -> Reading:
        line.call_started_s = self._clock.monotonic_s()
        try:
            return line.probe.read()
        except Exception as error:  # noqa: BLE001 - one bad probe must not end the monitor
            _log.exception("Probe %s broke its promise not to raise", line.probe.device.key)
            return Reading(error=f"{type(error).__name__}: {error}")
        finally:
            line.call_started_s = None

    def _deliver(self, probe: Probe, reading: Reading) -> None:
        sample = Sample(
            time_s=self._clock.time_s(),
            monotonic_s=self._clock.monotonic_s(),
            device=probe.device,
            reading=reading,
            position=self._position.position(),
        )
        try:
            self._sink(sample)
        except Exception:  # noqa: BLE001 - nor one bad listener
            _log.exception("A sample of %s could not be delivered", probe.device.key)

    # --- the task -------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Tell of every call that has been out for a whole interval of the watch."""
        while True:
            await self._rest(WATCH_INTERVAL_S)
            for line in self._lines:
                started_s = line.call_started_s
                if started_s is None:
                    continue
                waited_s = self._clock.monotonic_s() - started_s
                if waited_s >= WATCH_INTERVAL_S:
                    reading = Reading(error=f"the driver has not answered for {waited_s:.1f} s")
                    await anyio.to_thread.run_sync(self._deliver, line.probe, reading)
