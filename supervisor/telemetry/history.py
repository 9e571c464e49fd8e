"""Keeps finished jobs on disk, or in memory where the disk does not serve.

What can go wrong, and what is done:

- The file is damaged: it is renamed aside, never deleted, and a new one is begun.
- The disk is full, the folder cannot be written, another process holds the file too long:
  records wait in memory (bounded) and are written as soon as it works again.
- A later version wrote the file: it is left alone and this process keeps to memory.

None of it reaches the caller; ``problem`` tells it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from ..errors import HistoryUnusableError
from ..units import MiB
from .history_file import HistoryFile, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from ..ports import Clock
    from ..types import JobRecord
    from .history_file import Connect

    Work: TypeAlias = Callable[[HistoryFile], None]

DAY_S: Final = 24 * 60 * 60.0
MAX_AGE_S: Final = 30 * DAY_S
MAX_BYTES: Final = 50 * MiB
REMEMBERED_JOBS: Final = 256
_SIDE_FILES: Final = ("", "-wal", "-shm")

_UNWRITABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What SQLite and its binding raise for a value they cannot store."""

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
        self._open_connection = open_connection
        self._lock = threading.Lock()
        self._file: HistoryFile | None = None
        self._unwritten: deque[JobRecord] = deque(maxlen=REMEMBERED_JOBS)
        self._set_aside: str | None = None
        self._failure: str | None = None
        self._is_final = False

    def add(self, record: JobRecord) -> None:
        """Keep one finished job, and write those that had to wait."""
        with self._lock:
            self._unwritten.append(record)
            self._attempt(self._write)

    def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
        """Newest first; those that still wait for the disk are included."""
        limit = max(0, limit)
        with self._lock:
            found: list[JobRecord] = []

            def read(file: HistoryFile) -> None:
                found.extend(file.jobs(limit, job_id, self._oldest_s()))

            self._attempt(read)
            waiting = reversed(self._unwritten)
            newest = [each for each in waiting if job_id is None or each.job_id == job_id]
            return [*newest, *found][:limit]

    def problem(self) -> str | None:
        """What is wrong now, or that a damaged file was set aside; never blocks."""
        return self._failure or self._set_aside

    def close(self) -> None:
        """Write what waits and let go of the file; a later call opens it again."""
        with self._lock:
            if self._unwritten:
                self._attempt(self._write)
            self._let_go()

    def _write(self, file: HistoryFile) -> None:
        while self._unwritten:
            record = self._unwritten[0]
            try:
                file.add(record)
            except _UNWRITABLE as error:
                # Left at the head it would keep every later job from the disk.
                _log.warning(
                    "The job %r cannot be written and is left out: %s", record.job_id, error
                )
            self._unwritten.popleft()
        file.prune(self._oldest_s(), self._max_bytes)

    def _oldest_s(self) -> float:
        return self._clock.time_s() - self._max_age_s

    def _attempt(self, work: Work) -> None:
        """Do something with the file; a damaged one is replaced once and the work repeated."""
        if self._is_final:
            return
        try:
            try:
                work(self._opened())
            except sqlite3.DatabaseError as error:
                # Its subclasses are about one statement or the disk, not about the file.
                if type(error) is not sqlite3.DatabaseError:
                    raise
                self._replace_damaged(error)
                work(self._opened())
        except HistoryUnusableError as error:
            self._is_final = True
            self._fail(str(error))
        except (sqlite3.Error, OSError) as error:
            self._fail(str(HistoryUnusableError(self.path, str(error))))
        else:
            self._failure = None

    def _opened(self) -> HistoryFile:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = HistoryFile(self.path, self._open_connection)
        return self._file

    def _let_go(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except sqlite3.Error as error:
            self._fail(str(HistoryUnusableError(self.path, str(error))))
        self._file = None

    def _fail(self, problem: str) -> None:
        """Say it once, not at every job."""
        if problem != self._failure:
            _log.warning(problem)
        self._failure = problem

    def _replace_damaged(self, damage: sqlite3.DatabaseError) -> None:
        """Rename a damaged file aside. Where another process already did and began a new
        one, that one is healthy and stays."""
        was_moved = self._file is not None and not self._file.is_in_place()
        self._let_go()
        if was_moved:
            return
        moment = datetime.fromtimestamp(self._clock.time_s(), tz=timezone.utc)
        aside = self._free_name(f"{self.path.name}.corrupt-{moment:%Y%m%dT%H%M%SZ}")
        for suffix in _SIDE_FILES:
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._set_aside = (
            f"The history {self.path} was damaged ({damage}). It was kept as {aside.name} and a "
            "new one was begun; delete the old one when you do not need it."
        )
        _log.warning(self._set_aside)

    def _free_name(self, name: str) -> Path:
        """The path itself, or with a number where two damaged files share a second."""
        candidate, number = self.path.with_name(name), 1
        while candidate.exists():
            number += 1
            candidate = self.path.with_name(f"{name}-{number}")
        return candidate
