"""The calibration's SQLite file: measurements by key and cached texts, with their limits."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import CalibrationUnusableError, StoreUnusableError
from ..sqlite_file import SHRINK_TO, SqliteFile
from .calibration import Measurement
from .retention import retained

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS measurements (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    measured_s REAL NOT NULL,
    measurement TEXT NOT NULL,
    UNIQUE (key, measurement)
);
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    used_s REAL NOT NULL,
    value TEXT NOT NULL,
    UNIQUE (kind, key)
);
CREATE INDEX IF NOT EXISTS texts_by_used_s ON texts (used_s);
"""

_FIELDS: Final = frozenset(each.name for each in fields(Measurement))
_OPTIONAL: Final = ("frames", "seconds", "pixels")

_log = logging.getLogger(__name__)


class CalibrationFile(SqliteFile):
    """An open calibration file."""

    schema = _SCHEMA
    schema_version = SCHEMA_VERSION
    unusable: ClassVar[type[StoreUnusableError]] = CalibrationUnusableError

    def add(self, key: str, measurements: Iterable[Measurement], limit: int) -> None:
        """Write measurements of one key, all or none; one that is there already stays as it
        is. Beyond ``limit`` the key's least useful ones go."""
        rows = [(key, each.time_s, _to_json(each)) for each in measurements]
        with self.transaction():
            self._connection.executemany(
                "INSERT OR IGNORE INTO measurements (key, measured_s, measurement)"
                " VALUES (?, ?, ?)",
                rows,
            )
            self._keep(key, limit)

    def measurements(self, key: str) -> list[Measurement]:
        """Oldest first. A row that cannot be read is left out and logged."""
        return list(self._rows(key).values())

    def cached(self, kind: str, key: str) -> str | None:
        """A text that was remembered, None where there is none."""
        row = self._connection.execute(
            "SELECT value FROM texts WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return None if row is None else str(row[0])

    def touch(self, kind: str, key: str, now_s: float) -> None:
        """Note that a text was used, so that others are forgotten before it."""
        self._connection.execute(
            "UPDATE texts SET used_s = ? WHERE kind = ? AND key = ? AND used_s < ?",
            (now_s, kind, key, now_s),
        )

    def remember(self, kind: str, key: str, text: str, now_s: float) -> None:
        """Keep a text; it replaces the one that was there."""
        with self.transaction():
            self._connection.execute(
                "INSERT INTO texts (kind, key, used_s, value) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE"
                " SET used_s = excluded.used_s, value = excluded.value",
                (kind, key, now_s, text),
            )

    def prune(self, max_bytes: int) -> None:
        """While the file is larger than ``max_bytes``, forget the texts unused for longest,
        then the keys that were measured longest ago; the space goes back."""
        if self.size_bytes() <= max_bytes:
            return
        keep_bytes = int(max_bytes * SHRINK_TO)
        with self.transaction():
            while self.live_bytes() > max_bytes and (
                self._forget_texts(keep_bytes) or self._forget_a_key()
            ):
                pass
        self.give_back_space()

    def _keep(self, key: str, limit: int) -> None:
        ids = self._connection.execute(
            "SELECT id FROM measurements WHERE key = ?", (key,)
        ).fetchall()
        if len(ids) <= limit:
            return
        rows = self._rows(key)
        kept = set(map(id, retained(list(rows.values()), limit)))
        # A row that cannot be read has no use: it goes with the others.
        gone = [row for row in ids if id(rows.get(row[0])) not in kept]
        self._connection.executemany("DELETE FROM measurements WHERE id = ?", gone)

    def _rows(self, key: str) -> dict[int, Measurement]:
        rows = self._connection.execute(
            "SELECT id, measurement FROM measurements WHERE key = ? ORDER BY id", (key,)
        ).fetchall()
        found = ((row_id, _measurement(row_id, text)) for row_id, text in rows)
        return {row_id: each for row_id, each in found if each is not None}

    def _forget_texts(self, keep_bytes: int) -> bool:
        """Delete what was unused longest beyond ``keep_bytes`` of texts, or else the older
        half; False if none was left."""
        deleted = self._connection.execute(
            "DELETE FROM texts WHERE id IN (SELECT id FROM (SELECT id,"
            " SUM(LENGTH(value)) OVER (ORDER BY used_s DESC, id DESC) AS total FROM texts)"
            " WHERE total > ?)",
            (keep_bytes,),
        ).rowcount
        if deleted == 0:
            # Other columns, indexes and half-filled pages count too.
            deleted = self._connection.execute(
                "DELETE FROM texts WHERE id IN (SELECT id FROM texts ORDER BY used_s DESC, id DESC"
                " LIMIT -1 OFFSET (SELECT COUNT(*) / 2 FROM texts))"
            ).rowcount
        return deleted > 0

    def _forget_a_key(self) -> bool:
        deleted = self._connection.execute(
            "DELETE FROM measurements WHERE key = (SELECT key FROM measurements GROUP BY key"
            " ORDER BY MAX(measured_s), MAX(id) LIMIT 1)"
        ).rowcount
        return deleted > 0


def _to_json(measurement: Measurement) -> str:
    return json.dumps(asdict(measurement), separators=(",", ":"))


_LARGEST: Final = 1 << 63


def _measurement(row_id: int, text: str) -> Measurement | None:
    try:
        return _from_json(text)
    except (ValueError, TypeError, AttributeError, RecursionError):
        _log.warning("Row %s of the calibration is no measurement and is left out.", row_id)
        return None


def _from_json(text: str) -> Measurement:
    """What was written; fields of later versions are ignored.

    Raises:
        ValueError, TypeError, AttributeError: the text is no measurement.
    """
    values: dict[str, Any] = json.loads(text)
    known = {name: value for name, value in values.items() if name in _FIELDS}
    wrong = [name for name, value in known.items() if not _is_number_or_unknown(name, value)]
    if wrong:
        raise TypeError(wrong)
    return Measurement(**known)


def _is_number_or_unknown(name: str, value: object) -> bool:
    if value is None:
        return name in _OPTIONAL
    # Whole numbers beyond 64 bits are damage, and too large to reckon with.
    return isinstance(value, int | float) and not abs(value) > _LARGEST
