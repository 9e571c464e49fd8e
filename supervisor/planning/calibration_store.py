"""Keeps measurements and dry runs on disk for the next process, or in memory without one.

What this process measured stays in memory as well, so that a broken disk, a damaged file or
one that somebody deleted loses none of it; see ``sqlite_guard`` for what is done about those.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..sqlite_file import UNWRITABLE, connect
from ..sqlite_guard import GuardedFile
from ..units import MiB
from .calibration_file import CalibrationFile
from .retention import retained

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ..ports import Clock
    from ..sqlite_file import Connect
    from .calibration import CalibrationKey, Measurement

FILE_NAME: Final = "calibration.sqlite"
MAX_BYTES: Final = 50 * MiB
MEASUREMENTS_PER_KEY: Final = 256
TEXTS_IN_MEMORY: Final = 16 * MiB
"""Characters of cached texts that are kept in memory; those unused longest go."""
TOUCH_EVERY_S: Final = 24 * 60 * 60.0
"""A use is noted on disk so often, for noting it is a write."""

PATIENCE_S: Final = 0.25
"""A decode waits no longer for another process that holds the file; what it measured is then
written the next time."""

_log = logging.getLogger(__name__)


def _connect(path: Path) -> sqlite3.Connection:
    return connect(path, PATIENCE_S)


class CalibrationStore:
    """Measurements by key, and texts by kind and key, in one SQLite file.

    The file is opened at the first use and several processes may share it. Calls may block on
    the disk and come from any thread; they never raise for what is wrong with it.

    Args:
        path: the file; None keeps to memory.
        clock: stamps what is kept.
        max_bytes: the file's limit.
        per_key: how many measurements of one key are kept.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        *,
        max_bytes: int = MAX_BYTES,
        per_key: int = MEASUREMENTS_PER_KEY,
        open_connection: Connect = _connect,
    ) -> None:
        self.path = path
        self._clock = clock
        self._max_bytes = max_bytes
        self._per_key = per_key
        self._lock = threading.Lock()
        self._guard: GuardedFile[CalibrationFile] | None = None
        if path is not None:
            self._guard = GuardedFile(path, clock, CalibrationFile, open_connection)
        self._file: CalibrationFile | None = None
        """The file that ``_copies`` and ``_unwritten`` are about."""
        self._version: int | None = None
        self._copies: dict[str, tuple[Measurement, ...]] = {}
        self._own: dict[str, list[Measurement]] = {}
        self._unwritten: dict[str, list[Measurement]] = {}
        self._texts = _Texts(TEXTS_IN_MEMORY)
        self._unwritten_texts: set[tuple[str, str]] = set()

    def add(self, key: CalibrationKey, measurement: Measurement) -> None:
        """Keep what one decode measured, and write what had to wait."""
        if measurement.time_s == 0:
            measurement = replace(measurement, time_s=self._clock.time_s())
        with self._lock:
            for kept in (self._own, self._unwritten):
                known = kept.get(key.text, [])
                kept[key.text] = retained([*known, measurement], self._per_key)
            self._copies.pop(key.text, None)
            self._attempt(self._write)

    def measurements(self, key: CalibrationKey) -> Sequence[Measurement]:
        """What is known under a key, oldest first; what other processes measured, too."""
        text = key.text
        with self._lock:
            on_disk: list[Measurement] = []

            def read(file: CalibrationFile) -> None:
                self._notice(file)
                if text not in self._copies:
                    on_disk[:] = file.measurements(text)

            is_read = self._attempt(read, settles=not self._is_behind())
            copy = self._copies.get(text)
            if copy is not None:
                return copy
            found = tuple(self._merged(on_disk, self._own.get(text, ())))
            if is_read:
                self._copies[text] = found
            return found

    def cached(self, kind: str, key: str) -> str | None:
        """A text that this or another process remembered, None where there is none."""
        with self._lock:
            now_s = self._clock.time_s()
            text = self._texts.get(kind, key)
            if text is None:
                text = self._read_text(kind, key)
            if text is not None and self._texts.is_due(kind, key, now_s):
                self._attempt(lambda file: file.touch(kind, key, now_s), settles=False)
            return text

    def remember(self, kind: str, key: str, text: str) -> None:
        """Keep a text, such as a dry run's result, that can be made again if it is lost."""
        with self._lock:
            self._texts.put(kind, key, text, self._clock.time_s())
            self._unwritten_texts.add((kind, key))
            self._attempt(self._write)

    def problem(self) -> str | None:
        """What is wrong now, or that a damaged file was set aside; never blocks."""
        return None if self._guard is None else self._guard.problem()

    def close(self) -> None:
        """Write what waits and let go of the file; a later call opens it again."""
        with self._lock:
            if self._guard is None:
                return
            # The open file may have been deleted since the last use.
            if self._is_behind() or (self._own and self._guard.is_open):
                self._attempt(self._write)
            self._guard.close()

    def _attempt(self, work: Callable[[CalibrationFile], None], *, settles: bool = True) -> bool:
        if self._guard is None:
            return False
        self._guard.let_go_if_moved()
        try:
            return self._guard.attempt(work, settles=settles)
        except UNWRITABLE:
            _log.exception("The calibration store was asked for what no file can hold.")
            return False

    def _is_behind(self) -> bool:
        return bool(self._unwritten or self._unwritten_texts)

    def _notice(self, file: CalibrationFile) -> None:
        """Drop the copies that may be out of date. Another file than before, since the old
        one was deleted or damaged, is to get everything that this process measured."""
        version = file.data_version()
        if file is not self._file:
            self._copies.clear()
            self._unwritten = {key: list(own) for key, own in self._own.items()}
        elif version != self._version:
            self._copies.clear()
        self._file, self._version = file, version

    def _merged(
        self, on_disk: Sequence[Measurement], own: Sequence[Measurement]
    ) -> list[Measurement]:
        return retained(list(dict.fromkeys((*on_disk, *own))), self._per_key)

    def _write(self, file: CalibrationFile) -> None:
        self._notice(file)
        for key in list(self._unwritten):
            try:
                file.add(key, self._unwritten[key], self._per_key)
            except UNWRITABLE as error:
                # Left there they would keep every later one from the disk.
                _log.warning("Measurements cannot be written and are left out: %s", error)
            del self._unwritten[key]
        while self._unwritten_texts:
            kind, key = next(iter(self._unwritten_texts))
            self._write_text(file, kind, key)
            self._unwritten_texts.discard((kind, key))
        file.prune(self._max_bytes)

    def _write_text(self, file: CalibrationFile, kind: str, key: str) -> None:
        text = self._texts.get(kind, key)
        # One that is nearly as large as the file may be would drive out all others.
        if text is None or len(text) > self._max_bytes // 4:
            return
        try:
            file.remember(kind, key, text, self._clock.time_s())
        except UNWRITABLE as error:
            _log.warning("The %s %r cannot be written and is left out: %s", kind, key, error)

    def _read_text(self, kind: str, key: str) -> str | None:
        found: list[str | None] = []

        def read(file: CalibrationFile) -> None:
            found.append(file.cached(kind, key))

        self._attempt(read, settles=not self._is_behind())
        text = found[-1] if found else None
        if text is not None:
            self._texts.put(kind, key, text, touched_s=None)
        return text


class _Texts:
    """The texts used last, up to a number of characters."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._texts: OrderedDict[tuple[str, str], tuple[str, float | None]] = OrderedDict()

    def get(self, kind: str, key: str) -> str | None:
        known = self._texts.get((kind, key))
        if known is None:
            return None
        self._texts.move_to_end((kind, key))
        return known[0]

    def put(self, kind: str, key: str, text: str, touched_s: float | None) -> None:
        old = self._texts.pop((kind, key), None)
        self._size += len(text) - (0 if old is None else len(old[0]))
        self._texts[kind, key] = (text, touched_s)
        while self._size > self._capacity and len(self._texts) > 1:
            _, (gone, _) = self._texts.popitem(last=False)
            self._size -= len(gone)

    def is_due(self, kind: str, key: str, now_s: float) -> bool:
        """Whether this use is to be noted on disk; the next ones are not for a while."""
        text, touched_s = self._texts[kind, key]
        if touched_s is not None and now_s - touched_s < TOUCH_EVERY_S:
            return False
        self._texts[kind, key] = (text, now_s)
        return True
