"""Keeps what is wrong with a SQLite file or its disk away from who keeps things in it.

- The file is damaged: it is renamed aside, never deleted, and a new one is begun.
- The disk is full, the folder cannot be written, another process holds the file too long:
  the work is not done, and the next attempt may succeed.
- A later version wrote the file: it is left alone and never tried again.

None of it reaches the caller; ``problem`` tells it.
"""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from .errors import StoreUnusableError
from .sqlite_file import SqliteFile, connect, identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .ports import Clock
    from .sqlite_file import Connect, Identity

_SIDE_FILES: Final = ("", "-wal", "-shm")

_log = logging.getLogger(__name__)

FileT = TypeVar("FileT", bound=SqliteFile)


class GuardedFile(Generic[FileT]):
    """A file that is opened at the first use, for that may take a moment.

    The caller sees to it that one thread at a time uses it; only ``problem`` is free.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        file_type: type[FileT],
        open_connection: Connect = connect,
    ) -> None:
        self.path = path
        self._clock = clock
        self._file_type = file_type
        self._open_connection = open_connection
        self._file: FileT | None = None
        self._opening: Identity | None = None
        """The file that was last tried to open."""
        self._set_aside: str | None = None
        self._failure: str | None = None
        self._is_final = False

    def attempt(self, work: Callable[[FileT], None], *, settles: bool = True) -> bool:
        """Do something with the file; a damaged one is replaced once and the work repeated.

        Args:
            work: may be called twice.
            settles: success means that all is well again.

        Returns:
            Whether the work was done; else ``problem`` says why not.
        """
        if self._is_final:
            return False
        try:
            self._do(work)
        except StoreUnusableError as error:
            self._is_final = True
            self._fail(str(error))
        except (sqlite3.Error, OSError) as error:
            self._fail(str(self._file_type.unusable(self.path, str(error))))
        else:
            if settles:
                self._failure = None
            return True
        return False

    def problem(self) -> str | None:
        """What is wrong now, or that a damaged file was set aside; never blocks."""
        return self._failure or self._set_aside

    @property
    def is_open(self) -> bool:
        """Whether the file is held now."""
        return self._file is not None

    def let_go_if_moved(self) -> None:
        """Where the file was deleted or replaced, open what is there now at the next use."""
        if self._file is not None and not self._file.is_in_place():
            self.close()

    def close(self) -> None:
        """Let go of the file; a later use opens it again."""
        if self._file is None:
            return
        try:
            self._file.close()
        except sqlite3.Error as error:
            self._fail(str(self._file_type.unusable(self.path, str(error))))
        self._file = None

    def replace_damaged(self, damage: sqlite3.DatabaseError) -> None:
        """Rename a damaged file aside. Where another process already did and began a new
        one, that one is healthy and stays."""
        damaged = self._opening if self._file is None else self._file.identity
        self.close()
        if damaged != identity(self.path):
            return
        moment = datetime.fromtimestamp(self._clock.time_s(), tz=timezone.utc)
        aside = self._free_name(f"{self.path.name}.corrupt-{moment:%Y%m%dT%H%M%SZ}")
        for suffix in _SIDE_FILES:
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._set_aside = (
            f"The {self._file_type.unusable.store} {self.path} was damaged ({damage}). It was kept "
            f"as {aside.name} and a new one was begun; delete the old one when you do not need it."
        )
        _log.warning(self._set_aside)

    def _do(self, work: Callable[[FileT], None]) -> None:
        try:
            work(self._opened())
        except sqlite3.DatabaseError as error:
            # Its subclasses are about one statement or the disk, not about the file.
            if type(error) is not sqlite3.DatabaseError:
                raise
            self.replace_damaged(error)
            work(self._opened())

    def _opened(self) -> FileT:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._opening = identity(self.path)
            self._file = self._file_type(self.path, self._open_connection)
        return self._file

    def _fail(self, problem: str) -> None:
        """Say it once, not at every use."""
        if problem != self._failure:
            _log.warning(problem)
        self._failure = problem

    def _free_name(self, name: str) -> Path:
        """The path itself, or with a number where two damaged files share a second."""
        candidate, number = self.path.with_name(name), 1
        while candidate.exists():
            number += 1
            candidate = self.path.with_name(f"{name}-{number}")
        return candidate
