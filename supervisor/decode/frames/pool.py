"""A few threads that encode and write, with a bound on how many frames wait for them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Take = Callable[[], NDArray[np.uint8]]
    Use = Callable[[NDArray[np.uint8]], None]

HELD_FRAMES: Final = 12
"""In memory at once, waiting or being encoded."""
MOST_THREADS: Final = 8


class WriterFailed(Exception):  # noqa: N818
    """Raised in place of a worker's error, which is its cause."""


class Pool:
    """Frames are taken on the calling thread or a worker, and used on a worker.

    Args:
        held: how many frames may be in memory; more have to wait before they are taken.
        in_order: use them one after the other, and none after one that failed.
    """

    def __init__(self, held: int = HELD_FRAMES, *, in_order: bool = False) -> None:
        threads = 1 if in_order else min(MOST_THREADS, held, os.cpu_count() or 1)
        self._executor = ThreadPoolExecutor(threads, "frame-writer")
        self._held, self._in_order = held, in_order
        self._slots = threading.Semaphore(held)
        self._lock = threading.Lock()
        self._in_memory = 0
        self.most_held = 0
        """The most frames that were in memory at once."""
        self.failure: Exception | None = None
        """The first error of a worker."""

    def put(self, take: Take, use: Use, *, now: bool) -> None:
        """Have a frame used, as soon as there is room for it.

        Args:
            take: makes the frame.
            use: encodes and writes it.
            now: take it on this thread, for what it is made of does not stay.
        """
        self._slots.acquire()
        try:
            self._count(1)
            picture = take() if now else None
            self._executor.submit(self._work, picture, take, use)
        except BaseException:
            self._release()
            raise

    def drain(self) -> None:
        """Wait until nothing is held."""
        for _ in range(self._held):
            self._slots.acquire()
        self._slots.release(self._held)

    def raise_failure(self) -> None:
        """Once nothing is held any more, raise if something went wrong.

        Raises:
            WriterFailed: from what went wrong.
        """
        if self.failure is not None:
            self.drain()
            raise WriterFailed from self.failure

    def run(self, work: Callable[[], None]) -> None:
        """Do something else on a worker, after what was put before, and wait for it.

        Raises:
            WriterFailed: from what went wrong.
        """
        try:
            self._executor.submit(work).result()
        except Exception as problem:
            raise WriterFailed from problem

    def close(self) -> None:
        """Finish what was put, then end the threads."""
        self._executor.shutdown(wait=True)

    def _work(self, picture: NDArray[np.uint8] | None, take: Take, use: Use) -> None:
        try:
            if not (self._in_order and self.failure is not None):
                use(take() if picture is None else picture)
        except Exception as problem:  # noqa: BLE001 - told to whoever puts the next frame
            with self._lock:
                self.failure = self.failure or problem
        finally:
            del picture
            self._release()

    def _count(self, change: int) -> None:
        with self._lock:
            self._in_memory += change
            self.most_held = max(self.most_held, self._in_memory)

    def _release(self) -> None:
        self._count(-1)
        self._slots.release()
