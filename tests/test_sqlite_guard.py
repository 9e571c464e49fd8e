"""A shared SQLite file and its guard: transactions, damage, other processes' files."""

import sqlite3
from contextlib import closing
from typing import ClassVar

import pytest
from support.clock import StillClock

from vram_supervisor.supervisor.errors import HistoryUnusableError
from vram_supervisor.supervisor.sqlite_file import SqliteFile, connect
from vram_supervisor.supervisor.sqlite_guard import GuardedFile


class Words(SqliteFile):
    schema = "CREATE TABLE IF NOT EXISTS words (word TEXT);"
    schema_version = 3
    unusable: ClassVar = HistoryUnusableError

    def add(self, *words):
        with self.transaction():
            for word in words:
                self._connection.execute("INSERT INTO words VALUES (?)", (word,))

    def all(self):
        return [word for (word,) in self._connection.execute("SELECT word FROM words")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "words.sqlite"


@pytest.fixture
def guard(path):
    with closing(GuardedFile(path, StillClock(), Words)) as guarded:
        yield guarded


def words(guard):
    found = []
    assert guard.attempt(lambda file: found.extend(file.all()))
    return found


def test_work_is_done_and_stays(guard):
    assert guard.attempt(lambda file: file.add("a", "b"))
    guard.close()
    assert not guard.is_open
    assert words(guard) == ["a", "b"]
    assert guard.is_open


def test_nothing_is_opened_before_the_first_use(guard, path):
    guard.let_go_if_moved()
    guard.close()
    assert not path.parent.exists()
    assert guard.problem() is None


@pytest.mark.parametrize("bad", [object(), "\ud800"], ids=["no value for SQLite", "no text"])
def test_a_transaction_is_written_whole_or_not_at_all(guard, bad):
    guard.attempt(lambda file: file.add("before"))
    with pytest.raises((sqlite3.Error, UnicodeEncodeError)):
        guard._file.add("lost", bad)
    guard.attempt(lambda file: file.add("after"))
    assert words(guard) == ["before", "after"]


def test_a_full_disk_in_a_transaction_leaves_the_file_usable(guard):
    guard.attempt(lambda file: file.add("before"))
    guard.attempt(lambda file: file._connection.execute("PRAGMA max_page_count = 5"))
    assert not guard.attempt(lambda file: file.add(*["x" * 4000] * 40))
    assert "full" in guard.problem()
    guard.attempt(lambda file: file._connection.execute("PRAGMA max_page_count = 1000"))
    assert guard.attempt(lambda file: file.add("after"))
    assert words(guard) == ["before", "after"]


def test_work_that_does_not_settle_leaves_the_problem(guard, path):
    assert words(guard) == []
    with closing(connect(path)) as other:
        guard.attempt(lambda file: file._connection.execute("PRAGMA busy_timeout = 0"))
        other.execute("BEGIN IMMEDIATE")
        assert not guard.attempt(lambda file: file.add("a"))
        assert guard.attempt(lambda file: file.all(), settles=False)
        assert "locked" in guard.problem()
        assert guard.attempt(lambda file: file.all())
        assert guard.problem() is None


def test_a_later_versions_file_is_tried_once(path):
    opened = []

    def counted(where):
        opened.append(where)
        return connect(where)

    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 4")
    before = path.read_bytes()
    guard = GuardedFile(path, StillClock(), Words, counted)
    for _ in range(3):
        assert not guard.attempt(lambda file: file.add("a"))
    assert len(opened) == 1
    assert "later version (schema 4)" in guard.problem()
    assert path.read_bytes() == before


def test_another_connections_writing_is_noticed(guard, path):
    versions = []
    guard.attempt(lambda file: file.add("mine"))
    guard.attempt(lambda file: versions.append(file.data_version()))
    guard.attempt(lambda file: file.add("mine"))
    guard.attempt(lambda file: versions.append(file.data_version()))
    with closing(connect(path)) as other:
        other.execute("INSERT INTO words VALUES ('theirs')")
    guard.attempt(lambda file: versions.append(file.data_version()))
    assert versions[0] == versions[1] != versions[2]


def test_a_moved_file_is_let_go_and_a_new_one_begun(guard, path):
    guard.attempt(lambda file: file.add("old"))
    guard.let_go_if_moved()
    assert guard.is_open, "it is where it was"
    for part in path.parent.iterdir():
        part.rename(part.with_name(f"moved-{part.name}"))
    guard.let_go_if_moved()
    assert not guard.is_open
    assert words(guard) == []


def test_a_healthy_file_begun_while_this_process_failed_to_open_is_kept(path):
    """Another process set the damaged file aside between the attempt and the renaming."""
    path.parent.mkdir()
    path.write_bytes(b"this was never a database" * 100)

    def meanwhile_replaced(where):
        connection = connect(where)
        if b"never" in where.read_bytes():
            where.rename(where.with_name("set aside by them"))
            with closing(GuardedFile(where, StillClock(), Words)) as theirs:
                theirs.attempt(lambda file: file.add("theirs"))
        return connection

    with closing(GuardedFile(path, StillClock(), Words, meanwhile_replaced)) as guard:
        assert words(guard) == ["theirs"]
        assert not list(path.parent.glob("*.corrupt-*"))


def test_work_may_be_done_twice_but_not_three_times(guard, path):
    calls = []

    def damaged(_file):
        calls.append(1)
        raise sqlite3.DatabaseError("damaged by the test")

    assert not guard.attempt(damaged)
    assert len(calls) == 2
    assert "damaged by the test" in guard.problem()
    assert len(list(path.parent.glob("*.corrupt-*Z"))) == 1


def test_a_mistake_of_the_caller_is_not_hidden(guard):
    with pytest.raises(ZeroDivisionError):
        guard.attempt(lambda file: 1 / 0)
