"""Samples every device at a rate that follows what goes on.

The probes are read on a thread that also does the waiting: waking one thread is a fraction of
the price of waking an event loop that then wakes a worker for each device. The loop's own task
looks once a second for a call that has not come back. Such a call is not repeated; a sample says
that the figures are unknown, and why. The other devices move on to a thread of their own then,
and also when a device is slow twice running: a driver that hangs or stalls never delays the
event loop, and the other devices only at first.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from ..types import Reading, Sample

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from typing import TypeAlias

    from ..ports import Clock, PositionSource, Probe

    Pause: TypeAlias = Callable[[float, threading.Event], object]
    """Blocks for so many seconds or until the event is set, whichever comes first."""

BUSY_INTERVAL_S: Final = 0.1
IDLE_INTERVAL_S: Final = 1.0
WATCH_INTERVAL_S: Final = 1.0
SLOW_CALL_S: Final = 0.05
ROUNDING_S: Final = 1e-6
"""Sums of intervals miss the clock by some bits; what is due so soon is due now."""

_log = logging.getLogger(__name__)


def pause(seconds: float, event: threading.Event) -> None:
    """Wait for the event, at most so many seconds."""
    event.wait(seconds)


def latest_due_s(due_s: float, now_s: float, interval_s: float) -> float:
    """The newest moment not after ``now_s`` on the grid that ``due_s`` lies on.

    Samples keep to the grid, so small delays do not add up; what was missed is skipped.
    """
    return due_s + max(0, int((now_s - due_s) // interval_s)) * interval_s


class _Crew:
    """A thread and the probes it reads in turn."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        self.probes = tuple(probes)
        self.thread: threading.Thread | None = None
        self.roused = threading.Event()
        self._lock = threading.Lock()
        self._reading: Probe | None = None
        self._since_s = 0.0
        self._slow: set[Probe] = set()
        """Probes whose last read was slow."""

    def begins(self, probe: Probe, now_s: float) -> bool:
        """The thread is about to read; False if the probe is not its own any more."""
        with self._lock:
            if probe not in self.probes:
                return False
            self._reading, self._since_s = probe, now_s
            return True

    def ends(self, now_s: float) -> tuple[Probe, ...]:
        """The read came back. Returns the probes that this thread gives up, because this read
        was slow and so was the one before: a single one may have loaded a library."""
        with self._lock:
            probe, self._reading = self._reading, None
            if probe is None:
                return ()
            if now_s - self._since_s < SLOW_CALL_S:
                self._slow.discard(probe)
                return ()
            if probe in self._slow:
                return self._keep_only(probe)
            self._slow.add(probe)
            return ()

    def stuck(self, now_s: float) -> tuple[Probe, float, tuple[Probe, ...]] | None:
        """The probe whose read has been out too long, for how many seconds, and the probes
        that this thread gives up because of it; None when all is well."""
        with self._lock:
            waited_s = now_s - self._since_s
            if self._reading is None or waited_s < WATCH_INTERVAL_S:
                return None
            return self._reading, waited_s, self._keep_only(self._reading)

    def _keep_only(self, kept: Probe) -> tuple[Probe, ...]:
        others = tuple(probe for probe in self.probes if probe is not kept)
        self.probes = (kept,)
        return others


class Sampler:
    """Reads the probes until cancelled.

    Args:
        sink: takes each sample, on a worker thread; may be called on several at once.
        is_busy: whether to sample at the busy rate; asked often, must be cheap.
        secondary: keys of devices that no job computes on, such as system RAM beside a GPU.
            They are read at half the busy rate, for they cost as much as the others.
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
        secondary: Collection[str] = (),
        busy_interval_s: float = BUSY_INTERVAL_S,
        idle_interval_s: float = IDLE_INTERVAL_S,
        wait: Pause = pause,
        rest: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._clock = clock
        self._position = position
        self._sink = sink
        self._is_busy = is_busy
        self._secondary = frozenset(secondary)
        self._busy_interval_s = busy_interval_s
        self._idle_interval_s = idle_interval_s
        self._wait = wait
        self._rest = rest
        self._crews = [_Crew(probes)] if probes else []
        self._stopping = threading.Event()

    @property
    def interval_s(self) -> float:
        """Seconds between two samples of a device right now."""
        return self._busy_interval_s if self._is_busy() else self._idle_interval_s

    async def run(self) -> None:
        """Sample until cancelled. Runs once."""
        for crew in self._crews:
            self._start(crew)
        try:
            await self._watch()
        finally:
            self._stopping.set()
            self.wake()

    def set_busy_interval(self, seconds: float) -> None:
        """Sample so often while a job runs or somebody watches, from now on."""
        self._busy_interval_s = seconds
        self.wake()

    def wake(self) -> None:
        """Apply a rate that has changed now. Callable from any thread, at any time."""
        for crew in tuple(self._crews):
            crew.roused.set()

    def close_probes(self, timeout_s: float) -> None:
        """Close every probe once ``run`` has ended.

        A probe whose driver still has not answered is left open after ``timeout_s``: taking
        the library away under a running call would crash the process.
        """
        for crew in self._crews:
            if crew.thread is not None:
                crew.thread.join(timeout_s)
            if crew.thread is None or not crew.thread.is_alive():
                for probe in crew.probes:
                    probe.close()
            else:
                names = ", ".join(probe.device.key for probe in crew.probes)
                _log.warning("%s still does not answer and is left open.", names)

    # --- the reading threads --------------------------------------------------------------

    def _crew_of(self, probes: Sequence[Probe]) -> None:
        """Give probes that another thread gave up a thread of their own."""
        if probes:
            crew = _Crew(probes)
            self._crews.append(crew)
            self._start(crew)

    def _start(self, crew: _Crew) -> None:
        # A daemon, so that a driver that never answers cannot keep the process from ending.
        crew.thread = threading.Thread(
            target=self._follow, args=(crew,), name="vram-supervisor probes", daemon=True
        )
        crew.thread.start()

    def _follow(self, crew: _Crew) -> None:
        due_s = self._clock.monotonic_s()
        skip = False
        while not self._stopping.is_set():
            for probe in crew.probes:
                if skip and probe.device.key in self._secondary:
                    continue
                if crew.begins(probe, self._clock.monotonic_s()):
                    reading = self._read(probe)
                    self._crew_of(crew.ends(self._clock.monotonic_s()))
                    self._deliver(probe, reading)
            due_s = self._await_due(crew, due_s)
            skip = self._is_busy() and not skip

    def _await_due(self, crew: _Crew, due_s: float) -> float:
        """Wait until the next sample is due, by a rate that may change meanwhile."""
        while not self._stopping.is_set():
            # Cleared before the rate is read: a change that comes in between wakes the wait.
            crew.roused.clear()
            now_s = self._clock.monotonic_s()
            interval_s = self.interval_s
            following_s = due_s + interval_s
            if following_s - now_s <= ROUNDING_S:
                return latest_due_s(following_s, now_s, interval_s)
            if not self._stopping.is_set():
                self._wait(following_s - now_s, crew.roused)
        return due_s

    def _read(self, probe: Probe) -> Reading:
        try:
            return probe.read()
        except Exception as error:  # noqa: BLE001 - one bad probe must not end the monitor
            _log.exception("Probe %s broke its promise not to raise", probe.device.key)
            return Reading(error=f"{type(error).__name__}: {error}")

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
            now_s = self._clock.monotonic_s()
            for crew in tuple(self._crews):
                stuck = crew.stuck(now_s)
                if stuck is None:
                    continue
                probe, waited_s, others = stuck
                self._crew_of(others)
                reading = Reading(error=f"the driver has not answered for {waited_s:.1f} s")
                await anyio.to_thread.run_sync(self._deliver, probe, reading)
