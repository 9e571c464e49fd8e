"""A SQLite file that several processes share: how it is opened, checked, measured and shrunk.

What a room keeps in such a file is its own subclass: a schema and its queries. This layer
raises what SQLite raises; ``sqlite_guard`` decides what to do about it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path
    from typing import TypeAlias

    from .errors import StoreUnusableError

    Connect: TypeAlias = Callable[[Path], sqlite3.Connection]
    Identity: TypeAlias = tuple[int, int]

BUSY_TIMEOUT_S: Final = 5.0
SHRINK_TO: Final = 0.8
"""A file that is too large is cut to this share, so that not every write cuts it again."""

UNWRITABLE: Final = (
    ValueError,
    TypeError,
    OverflowError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)
"""What SQLite and its binding raise for a value they cannot store."""


def connect(path: Path, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
    """Open the file, making it if need be. The caller sees to it that one thread at a time
    uses the connection, and waits ``timeout_s`` for other processes."""
    return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)


class SqliteFile:
    """An open file. Several processes may hold the same one.

    Subclasses set what they keep in it:
        schema: statements that make the tables; each may be repeated.
        schema_version: of those tables; a file of a later version is left alone.
        unusable: the error that says so.

    Raises:
        StoreUnusableError: a later version of this program wrote the file.
        sqlite3.Error: SQLite cannot use it.
    """

    schema: ClassVar[str]
    schema_version: ClassVar[int]
    unusable: ClassVar[type[StoreUnusableError]]

    def __init__(self, path: Path, open_connection: Connect = connect) -> None:
        self.path = path
        self._connection = open_connection(path)
        try:
            self._prepare()
            self.identity = identity(path)
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All that is written inside, or none of it. Other writers wait; readers do not."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # a full disk may have ended it already
                self._connection.execute("ROLLBACK")
            raise
        try:
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def size_bytes(self) -> int:
        """What the file and its write-ahead log take on disk."""
        log = self.path.with_name(self.path.name + "-wal")
        return sum(each.stat().st_size for each in (self.path, log) if each.exists())

    def live_bytes(self) -> int:
        """What the pages in use take. Unlike the file and its log, which only shrink once no
        other process reads, this follows every deletion at once."""
        pages, free, page_bytes = (
            int(self._connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * page_bytes

    def data_version(self) -> int:
        """Another number than before when another connection has written since."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file that was opened: another process may
        have set it aside and begun a new one."""
        return identity(self.path) == self.identity

    def close(self) -> None:
        """Write everything into the file itself and let go of it."""
        self._connection.close()

    def give_back_space(self) -> None:
        """Shrink the file and empty the log; while another process reads, the next call
        tries again."""
        # It frees one page per step, and only a script is stepped to its end.
        self._connection.executescript("PRAGMA incremental_vacuum")
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")

    def _prepare(self) -> None:
        run = self._connection.execute
        # First, for a later version's file is not to be touched in any way.
        version = int(run("PRAGMA user_version").fetchone()[0])
        if version > self.schema_version:
            raise self.unusable(self.path, f"it was written by a later version (schema {version})")
        if version < self.schema_version:
            # Only takes effect before the first table, and is what lets the file shrink later.
            # A file that may only be read would refuse it.
            run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        with closing(run("PRAGMA quick_check(1)")) as check:
            verdict = str(check.fetchone()[0])
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if version < self.schema_version:
            # Two processes may get here at once: every statement may be repeated.
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {self.schema} PRAGMA user_version = {self.schema_version};"
                " COMMIT;"
            )


def identity(path: Path) -> Identity | None:
    """Which file a path leads to now; None where it leads nowhere."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
