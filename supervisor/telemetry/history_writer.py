"""Writes finished jobs to the history on a thread of its own.

Neither the thread that runs the job nor the event loop ever waits for the disk.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..ports import HistoryStore
    from ..types import JobRecord

WAITING_RECORDS: Final = 256

_log = logging.getLogger(__name__)


class HistoryWriter:
    """A bounded queue in front of a store. Call ``start`` and ``stop`` once each."""

    def __init__(self, store: HistoryStore, capacity: int = WAITING_RECORDS) -> None:
        self._store = store
        self._queue: queue.Queue[JobRecord | None] = queue.Queue(capacity)
        self._thread: threading.Thread | None = None
        self._is_behind = False

    @property
    def waiting(self) -> int:
        """Records that are not written yet, about."""
        return self._queue.qsize()

    def put(self, record: JobRecord) -> None:
        """Queue a record without waiting. Where the disk hangs and the queue is full, the
        record does not reach it and the log says so once."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            if not self._is_behind:
                _log.warning("The history does not keep up; new jobs are not written to it.")
            self._is_behind = True
        else:
            self._is_behind = False

    def start(self) -> threading.Thread:
        """Begin to write; gives the thread that does."""
        self._thread = threading.Thread(
            target=self._run, name="vram-supervisor-history", daemon=True
        )
        self._thread.start()
        return self._thread

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued and close the store; False if that took too long."""
        thread = self._thread or self.start()
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return False
        thread.join(timeout_s)
        return not thread.is_alive()

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            self._add(record)
        self._store.close()

    def _add(self, record: JobRecord) -> None:
        try:
            self._store.add(record)
        except Exception:  # noqa: BLE001 - one bad record must not end the history
            _log.exception("The job %r was not written to the history", record.job_id)
