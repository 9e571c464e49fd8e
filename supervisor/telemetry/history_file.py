"""The history's SQLite file: schema, queries and the limits on age and size."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final

from ..errors import HistoryUnusableError, StoreUnusableError
from ..sqlite_file import SHRINK_TO, SqliteFile
from .record_json import from_json, to_json

if TYPE_CHECKING:
    from ..types import JobRecord

SCHEMA_VERSION: Final = 1

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


class HistoryFile(SqliteFile):
    """An open history file."""

    schema = _SCHEMA
    schema_version = SCHEMA_VERSION
    unusable: ClassVar[type[StoreUnusableError]] = HistoryUnusableError

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
        while self.live_bytes() > max_bytes and self._forget_oldest(int(max_bytes * SHRINK_TO)):
            pass
        self.give_back_space()

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


def _record(row_id: int, text: str) -> JobRecord | None:
    try:
        return from_json(text)
    except (ValueError, TypeError, KeyError, AttributeError):
        _log.warning("Row %s of the history is not a job record and is left out.", row_id)
        return None
