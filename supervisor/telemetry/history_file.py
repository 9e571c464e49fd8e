"""The history's SQLite file: schema, queries and the limits on age and size.

This layer raises what SQLite raises; ``history`` decides what to do about it.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from ..errors import HistoryUnusableError
from .record_json import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeAlias

    from ..types import JobRecord

    Connect: TypeAlias = Callable[[Path], sqlite3.Connection]

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_S: Final = 5.0
SHRINK_TO: Final = 0.8
"""A file that is too large is cut to this share, so that not every job cuts it again."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL,
    ended_s REAL NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_job_id ON jobs (job_id);
CREATE INDEX IF NOT EXISTS jobs_by_ended_s ON jobs (ended_s);
"""

_log = logging.getLogger(__name__)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, making it if need be. The caller sees to it that one thread at a time
    uses the connection."""
    return sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )


class HistoryFile:
    """An open history file. Several processes may hold the same one.

    Raises:
        HistoryUnusableError: a later version of this program wrote the file.
        sqlite3.Error: SQLite cannot use it.
    """

    def __init__(self, path: Path, open_connection: Connect = connect) -> None:
        self.path = path
        self._connection = open_connection(path)
        try:
            self._prepare()
            self._identity = _identity(path)
        except BaseException:
            self._connection.close()
            raise

    def add(self, record: JobRecord) -> None:
        """Write one job."""
        ended_s = record.started_s if record.ended_s is None else record.ended_s
        self._connection.execute(
            "INSERT INTO jobs (job_id, ended_s, record) VALUES (?, ?, ?)",
            (record.job_id, ended_s, to_json(record)),
        )

    def jobs(self, limit: int, job_id: str | None, oldest_s: float) -> list[JobRecord]:
        """Newest first, none that ended before ``oldest_s``. A row that cannot be read is left
        out and logged."""
        query = "SELECT id, record FROM jobs WHERE ended_s >= ?"
        values: tuple[object, ...] = (oldest_s,)
        if job_id is not None:
            query, values = f"{query} AND job_id = ?", (oldest_s, job_id)
        rows = self._connection.execute(f"{query} ORDER BY id DESC LIMIT ?", (*values, limit))
        records = (_record(row_id, text) for row_id, text in rows.fetchall())
        return [record for record in records if record is not None]

    def prune(self, oldest_s: float, max_bytes: int) -> None:
        """Forget jobs that ended before ``oldest_s`` and, while the file is larger than
        ``max_bytes``, the oldest ones; the space goes back to the file system."""
        self._connection.execute("DELETE FROM jobs WHERE ended_s < ?", (oldest_s,))
        if self.size_bytes() <= max_bytes:
            return
        # The log, or pages that hold nothing any more, may be all that is too large.
        while self._live_bytes() > max_bytes and self._forget_oldest(int(max_bytes * SHRINK_TO)):
            pass
        self._give_back_space()

    def size_bytes(self) -> int:
        """What the file and its write-ahead log take on disk."""
        log = self.path.with_name(self.path.name + "-wal")
        return sum(each.stat().st_size for each in (self.path, log) if each.exists())

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that was opened: another process may
        have set it aside and begun a new one."""
        return _identity(self.path) == self._identity

    def close(self) -> None:
        """Write everything into the file itself and let go of it."""
        self._connection.close()

    def _prepare(self) -> None:
        run = self._connection.execute
        # First, for a later version's file is not to be touched in any way.
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > SCHEMA_VERSION:
            raise HistoryUnusableError(
                self.path, f"it was written by a later version (schema {version})"
            )
        # Only takes effect before the first table, and is what lets the file shrink later.
        run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with closing(run("PRAGMA quick_check(1)")) as check:
            verdict = str(check.fetchone()[0])
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if version < SCHEMA_VERSION:
            # Two processes may get here at once: every statement may be repeated.
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    def _forget_oldest(self, keep_bytes: int) -> bool:
        """Delete the oldest jobs beyond ``keep_bytes`` of records; False if none was left."""
        cut = self._connection.execute(
            "SELECT id FROM (SELECT id, SUM(LENGTH(record)) OVER (ORDER BY id DESC) AS total"
            " FROM jobs) WHERE total > ? ORDER BY id DESC LIMIT 1",
            (keep_bytes,),
        ).fetchone()
        if cut is None:
            # Indexes and half-filled pages count too: go on with the oldest tenth.
            cut = self._connection.execute(
                "SELECT id FROM jobs ORDER BY id LIMIT 1 OFFSET (SELECT COUNT(*) / 10 FROM jobs)"
            ).fetchone()
        if cut is None:
            return False
        self._connection.execute("DELETE FROM jobs WHERE id <= ?", cut)
        return True

    def _live_bytes(self) -> int:
        """What the pages in use take. Unlike the file and its log, which only shrink once no
        other process reads, this follows every deletion at once."""
        pages, free, page_bytes = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * page_bytes

    def _give_back_space(self) -> None:
        """Shrink the file and empty the log; while another process reads, the next job's
        record tries again."""
        # It frees one page per step, and only a script is stepped to its end.
        self._connection.executescript("PRAGMA incremental_vacuum")
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")


def _record(row_id: int, text: str) -> JobRecord | None:
    try:
        return from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError):
        _log.warning("Row %s of the history is not a job record and is left out.", row_id)
        return None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
