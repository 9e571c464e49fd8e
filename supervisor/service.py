"""The supervisor: one background monitor with its jobs, events, peaks and history.

Everything that samples runs on a daemon thread with an event loop of its own, so neither the
host's loop nor its jobs wait for a driver or a disk. Hosts have no reliable shutdown hook:
``start`` registers ``stop`` with ``atexit``.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections import deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from .errors import StreamLimitReachedError, SupervisorStoppedError
from .jobs.decodes import DecodeBoard
from .jobs.tracker import JobTracker
from .telemetry.allocator import TorchCounter
from .telemetry.clock import SystemClock
from .telemetry.history import MemoryHistory, SqliteHistory
from .telemetry.history_writer import HistoryWriter
from .telemetry.peaks import PeakBook
from .telemetry.probes.discover import discover_probes
from .telemetry.ring import EventRing
from .telemetry.sampler import Sampler
from .types import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .planning.time_model import TimeModel
    from .ports import AllocatorCounter, Clock, HistoryStore, OutsideTorch, Probe
    from .telemetry.ring import Subscription
    from .types import DecodeProgress, DecodeSummary, DeviceInfo, JobChange, Sample

STREAM_LIMIT: Final = 64
RING_CAPACITY: Final = 8192
RECENT_SAMPLES: Final = 600
RETRY_AFTER_S: Final = 5
MONITOR_ONLY: Final = "nvml:"
"""Prefix of devices that are watched though torch cannot compute on them."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Watches the devices and the jobs of this process.

    Args:
        on_sample: called in a worker thread after each sample, never twice at once; hosts
            that can only be polled do it there.
    """

    def __init__(
        self,
        *,
        probes: Sequence[Probe],
        history: HistoryStore,
        counter: AllocatorCounter,
        clock: Clock | None = None,
        on_sample: Callable[[], None] | None = None,
        stream_limit: int = STREAM_LIMIT,
        ring_capacity: int = RING_CAPACITY,
    ) -> None:
        clock = clock or SystemClock()
        self.on_sample = on_sample
        self.times: Mapping[str, TimeModel] = {}
        """How long decodes take here, by VAE family; whoever decodes fills it."""
        self.history = history
        self.counter = counter
        self.ring = EventRing(ring_capacity)
        self.peaks = PeakBook(counter, clock, [probe.device.key for probe in probes])
        self.jobs = JobTracker(clock, self._job_changed, self.peaks, self._decodes_of)
        self.decodes = DecodeBoard(clock, self.jobs, self._used_bytes, self._decode_changed)
        self._clock = clock
        self._state = State(clock.time_s())
        self._probes = tuple(probes)
        self._stream_limit = stream_limit
        self._streams = 0
        self._hurried = 0
        """Of the streams, those that want samples at the busy rate."""
        self._writer = HistoryWriter(history)
        self._sampler = Sampler(
            probes,
            clock,
            self.jobs,
            self.record,
            self._is_busy,
            secondary=() if self.primary_device() == "cpu" else ("cpu",),
        )
        self._lock = threading.Lock()
        self._polling = threading.Lock()
        self._latest: dict[str, Sample] = {}
        self._recent: dict[str, deque[Sample]] = {}
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._ready = threading.Event()
        self._cancel: Callable[[], None] | None = None

    # --- life -----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether samples are being taken."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to sample; nothing happens if it has begun.

        Raises:
            SupervisorStoppedError: it was stopped before.
        """
        with self._lock:
            if self._stopped:
                raise SupervisorStoppedError
            if self._thread is not None:
                return
            self._writer.start()
            self._thread = threading.Thread(target=self._run, name="vram-supervisor", daemon=True)
            self._thread.start()
        atexit.register(self.stop)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop sampling, write finished jobs to the history and let go of the devices.

        A driver or a disk that does not answer is left behind after ``timeout_s`` each.
        """
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            thread = self._thread
        if thread is not None:
            self._stop_thread(thread, timeout_s)
        if not self._writer.stop(timeout_s):
            _log.warning("The history took longer than %.0f s and is left behind.", timeout_s)
        self._sampler.close_probes(timeout_s)
        atexit.unregister(self.stop)

    def _stop_thread(self, thread: threading.Thread, timeout_s: float) -> None:
        self._ready.wait(timeout_s)
        if self._cancel is not None:
            self._cancel()
        thread.join(timeout_s)
        if thread.is_alive():
            _log.warning("The monitor did not stop within %.0f s.", timeout_s)

    def _run(self) -> None:
        try:
            anyio.run(self._main)
        except Exception:  # noqa: BLE001 - nobody else would hear of it on this thread
            _log.exception("The monitor ended; figures stay as they are until a restart.")
        finally:
            self._ready.set()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            self._cancel = lambda: _call_on(loop, scope.cancel)
            self._ready.set()
            await self._sampler.run()

    # --- figures --------------------------------------------------------------------------

    @property
    def devices(self) -> tuple[DeviceInfo, ...]:
        """Every device that is watched; ``cpu`` comes last."""
        return tuple(probe.device for probe in self._probes)

    def latest(self) -> dict[str, Sample]:
        """The newest sample of each device, by key; a device not read yet is missing."""
        with self._lock:
            return dict(self._latest)

    def recent_samples(self, device: str, limit: int) -> list[Sample]:
        """The newest samples of a device, oldest first; at most a minute at the busy rate."""
        with self._lock:
            samples = list(self._recent.get(device, ()))
        return samples[-limit:] if limit > 0 else []

    def primary_device(self) -> str:
        """The first device torch can compute on that is not the CPU, else ``"cpu"``."""
        keys = (device.key for device in self.devices if device.kind != "cpu")
        return next((key for key in keys if not key.startswith(MONITOR_ONLY)), "cpu")

    def health(self) -> dict[str, object]:
        """How the supervisor itself is doing, as a JSON-ready dict; never blocks."""
        errors = {key: sample.reading.error for key, sample in self.latest().items()}
        return {
            "running": self.running,
            "rate_hz": round(1.0 / self._sampler.interval_s, 3),
            "streams": self._streams,
            "stream_limit": self._stream_limit,
            "history_problem": self.history.problem(),
            "history_waiting": self._writer.waiting,
            "probe_errors": {key: error for key, error in errors.items() if error is not None},
        }

    def set_rate(self, rate_hz: float) -> None:
        """Sample so often while a job runs or somebody watches."""
        self._sampler.set_busy_interval(1.0 / rate_hz)

    # --- events ---------------------------------------------------------------------------

    def open_stream(
        self, last_event_id: int | None, notify: Callable[[], None], *, hurried: bool = True
    ) -> Subscription:
        """Follow the events after ``last_event_id`` (None: from now on). ``notify`` is called on
        other threads. ``hurried``: samples come at the busy rate until it is closed; else as
        they come anyway.

        Raises:
            StreamLimitReachedError: as many streams are open as are allowed.
        """
        with self._lock:
            if self._streams >= self._stream_limit:
                raise StreamLimitReachedError(self._stream_limit, RETRY_AFTER_S)
            self._streams += 1
            self._hurried += hurried
        closed = partial(self._stream_closed, hurried=hurried)
        subscription = self.ring.subscribe(last_event_id, notify, closed)
        self._sampler.wake()
        return subscription

    def _stream_closed(self, *, hurried: bool) -> None:
        with self._lock:
            self._streams -= 1
            self._hurried -= hurried

    def _is_busy(self) -> bool:
        return self._hurried > 0 or self.jobs.position().job_id is not None

    def _job_changed(self, change: JobChange) -> None:
        """On the job's thread: nothing here waits."""
        self.ring.publish("job", change)
        if change.phase == "start":
            self._sampler.wake()
        if change.record is not None:
            self._writer.put(change.record)

    def _decode_changed(self, progress: DecodeProgress) -> None:
        """On the decoding thread or the sampler's: nothing here waits."""
        self.ring.publish("decode", progress)

    def _decodes_of(self, job_id: str) -> tuple[DecodeSummary, ...]:
        return self.decodes.of_job(job_id)

    def _used_bytes(self, device: str) -> int | None:
        sample = self.latest().get(device)
        return None if sample is None else sample.reading.used_bytes

    @property
    def state(self) -> State:
        """What holds for the whole process now."""
        return self._state

    def tell_state(
        self,
        *,
        reserve_bytes: int | None,
        reserve_words: str | None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Something of it may have changed; nothing is published where it has not."""
        state = State(self._clock.time_s(), reserve_bytes, reserve_words, warnings)
        with self._lock:
            if replace(state, time_s=self._state.time_s) == self._state:
                return
            self._state = state
        self.ring.publish("state", state)

    def record(self, sample: Sample) -> None:
        """Take in a sample; the sampler does, on its worker threads."""
        key = sample.device.key
        self.peaks.observe(sample)
        with self._lock:
            newest = self._latest.get(key)
            if newest is None or newest.monotonic_s <= sample.monotonic_s:
                self._latest[key] = sample
            self._recent.setdefault(key, deque(maxlen=RECENT_SAMPLES)).append(sample)
        self.ring.publish("telemetry", sample)
        self.decodes.sampled(key, sample.reading.used_bytes)
        self._poll_host()

    def _poll_host(self) -> None:
        """Two devices' samples may come at once; the second one's poll is not needed."""
        if self.on_sample is None or not self._polling.acquire(blocking=False):
            return
        try:
            self.on_sample()
        finally:
            self._polling.release()


def build_supervisor(
    history_path: Path | None, outside_torch: OutsideTorch | None = None
) -> Supervisor:
    """The standard supervisor: every device of this process, history in ``history_path``.

    None keeps the history in memory. ``outside_torch`` tells what the process is known to
    hold outside torch where the driver does not. Call ``start`` on the result.
    """
    clock = SystemClock()
    history = MemoryHistory() if history_path is None else SqliteHistory(history_path, clock)
    return Supervisor(
        probes=discover_probes(clock, outside_torch),
        history=history,
        counter=TorchCounter(),
        clock=clock,
    )


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Run on a loop of another thread; nothing is left to do where it has closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        _log.debug("The monitor's loop had closed already.")
