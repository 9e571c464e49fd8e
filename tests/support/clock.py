"""Time that moves when the test says so."""

from __future__ import annotations

import threading

import anyio

EPOCH_S = 1_700_000_000.0
PATIENCE_S = 60.0


class StillClock:
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def time_s(self) -> float:
        return EPOCH_S + self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


class FakeClock(StillClock):
    """Also two ways to wait on it: for threads (``wait``) and for tasks (``rest``)."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_s: list[float] = []
        """Every duration a thread asked to wait for, rounded to the millisecond."""
        self._change = threading.Condition()
        self._threads: list[tuple[float, threading.Event]] = []
        self._tasks: list[tuple[float, anyio.Event]] = []

    def advance(self, seconds: float) -> None:
        """Move on and wake whoever is due. Call it on the event loop of the resting tasks."""
        with self._change:
            self.now_s = round(self.now_s + seconds, 6)
            for due_s, woken in (*self._threads, *self._tasks):
                if due_s <= self.now_s:
                    woken.set()

    def wait(self, seconds: float, event: threading.Event) -> None:
        """Like ``sampler.pause``. Reaching the time sets the same event: who waits looks at
        the clock anyway."""
        sleeper = (round(self.now_s + seconds, 6), event)
        with self._change:
            self.asked_s.append(round(seconds, 3))
            self._threads.append(sleeper)
            self._change.notify_all()
        assert event.wait(PATIENCE_S), "the test never moved the clock"
        with self._change:
            self._threads.remove(sleeper)

    async def rest(self, seconds: float) -> None:
        """Like ``anyio.sleep``."""
        sleeper = (round(self.now_s + seconds, 6), anyio.Event())
        self._tasks.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._tasks.remove(sleeper)

    async def asleep(self, count: int) -> None:
        """Until exactly so many threads sleep, none of them due."""
        await anyio.to_thread.run_sync(self._asleep, count)

    def _asleep(self, count: int) -> None:
        with self._change:
            assert self._change.wait_for(lambda: self._sleeping() == count, PATIENCE_S)

    def _sleeping(self) -> int:
        return len([event for _, event in self._threads if not event.is_set()])

    async def resting(self) -> None:
        """Until a task rests that is not due."""
        while all(woken.is_set() for _, woken in self._tasks):
            await anyio.lowlevel.checkpoint()
