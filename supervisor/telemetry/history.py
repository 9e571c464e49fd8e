"""Keeps finished jobs on disk, or in memory where the disk does not serve.

What can go wrong with the file, and what is done about it, is ``sqlite_guard``'s; records that
cannot be written wait in memory (bounded) and are written as soon as it works again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from ..sqlite_file import UNWRITABLE, connect
from ..sqlite_guard import GuardedFile
from ..units import MiB
from .history_file import HistoryFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..ports import Clock
    from ..sqlite_file import Connect
    from ..types import JobRecord

DAY_S: Final = 24 * 60 * 60.0
MAX_AGE_S: Final = 30 * DAY_S
MAX_BYTES: Final = 50 * MiB
REMEMBERED_JOBS: Final = 256

_log = logging.getLogger(__name__)


class MemoryHistory:
    """Keeps the newest jobs until the process ends."""

    def __init__(self, capacity: int = REMEMBERED_JOBS, problem: str | None = None) -> None:
        self._records: deque[JobRecord] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._problem = problem

    def add(self, record: JobRecord) -> None:
        """Keep one finished job."""
        with self._lock:
            self._records.append(record)

    def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
        """Newest first."""
        with self._lock:
            records = list(reversed(self._records))
        wanted = [each for each in records if job_id is None or each.job_id == job_id]
        return wanted[: max(0, limit)]

    def keep_for(self, seconds: float) -> None:
        """As many as fit are kept, however old."""

    def problem(self) -> str | None:
        """Why records do not reach the disk; None where that was never asked for."""
        return self._problem

    def close(self) -> None:
        """Nothing is held."""


class SqliteHistory:
    """Keeps jobs in one SQLite file that several processes may share.

    The file is opened at the first use, for that may take a moment. Calls may block and come
    from any thread; they never raise for what is wrong with the file or the disk.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        max_age_s: float = MAX_AGE_S,
        max_bytes: int = MAX_BYTES,
        open_connection: Connect = connect,
    ) -> None:
        self.path = path
        self._clock = clock
        self._max_age_s = max_age_s
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._guard = GuardedFile(path, clock, HistoryFile, open_connection)
        self._unwritten: deque[JobRecord] = deque(maxlen=REMEMBERED_JOBS)

    def add(self, record: JobRecord) -> None:
        """Keep one finished job, and write those that had to wait."""
        with self._lock:
            self._unwritten.append(record)
            self._guard.attempt(self._write)

    def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
        """Newest first; those that still wait for the disk are included."""
        limit = max(0, limit)
        with self._lock:
            found: list[JobRecord] = []

            def read(file: HistoryFile) -> None:
                found.extend(file.jobs(limit, job_id, self._oldest_s()))

            self._guard.attempt(read, settles=not self._unwritten)
            waiting = reversed(self._unwritten)
            newest = [each for each in waiting if job_id is None or each.job_id == job_id]
            return [*newest, *found][:limit]

    def keep_for(self, seconds: float) -> None:
        """Forget jobs that ended longer ago, at once for readers and on disk at the next job."""
        self._max_age_s = seconds

    def problem(self) -> str | None:
        """What is wrong now, or that a damaged file was set aside; never blocks."""
        return self._guard.problem()

    def close(self) -> None:
        """Write what waits and let go of the file; a later call opens it again."""
        with self._lock:
            if self._unwritten:
                self._guard.attempt(self._write)
            self._guard.close()

    def _write(self, file: HistoryFile) -> None:
        while self._unwritten:
            record = self._unwritten[0]
            try:
                file.add(record)
            except UNWRITABLE as error:
                # Left at the head it would keep every later job from the disk.
                _log.warning(
                    "The job %r cannot be written and is left out: %s", record.job_id, error
                )
            self._unwritten.popleft()
        file.prune(self._oldest_s(), self._max_bytes)

    def _oldest_s(self) -> float:
        return self._clock.time_s() - self._max_age_s
