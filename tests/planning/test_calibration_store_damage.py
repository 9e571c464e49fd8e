"""The calibration store survives damaged files, full disks and files that vanish."""

import sqlite3
import sys
from contextlib import closing

import pytest
from support.calibrations import (
    DRY_RUN,
    KEY,
    OTHER_KEY,
    corrupt_files,
    edges,
    fill,
    measured,
)
from support.clock import StillClock

from vram_supervisor.supervisor.planning.calibration_file import SCHEMA_VERSION
from vram_supervisor.supervisor.sqlite_file import connect


def test_a_file_that_is_no_database_is_set_aside(open_store, path):
    path.parent.mkdir()
    path.write_bytes(b"this was never a database" * 100)
    store = open_store()
    store.add(KEY, measured())
    assert corrupt_files(path) == ["calibration.sqlite.corrupt-20231114T221320Z"]
    assert "calibration store" in store.problem()
    assert "was damaged" in store.problem()
    assert list(open_store().measurements(KEY)) == [measured()]


def test_damage_while_it_is_in_use_loses_nothing_of_this_process(open_store, path):
    theirs = open_store()
    theirs.add(KEY, measured(1))
    fill(theirs, StillClock(), [str(number) for number in range(10)])
    theirs.close()
    mine = open_store()
    mine.add(KEY, measured(2))
    mine._guard.close()  # its pages leave SQLite's cache
    with path.open("r+b") as file:
        for page in range(1, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    mine.add(KEY, measured(3))
    assert edges(mine.measurements(KEY)) == [2, 3]
    assert edges(open_store().measurements(KEY)) == [2, 3]
    assert len(corrupt_files(path)) == 1


def test_an_empty_file_is_begun(open_store, path):
    path.parent.mkdir()
    path.touch()
    store = open_store()
    store.add(KEY, measured())
    assert store.problem() is None
    assert list(open_store().measurements(KEY)) == [measured()]


def test_a_store_of_a_later_version_is_left_alone(open_store, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    store = open_store()
    store.add(KEY, measured())
    store.remember(DRY_RUN, "k", "text")
    assert list(store.measurements(KEY)) == [measured()], "kept in memory"
    assert store.cached(DRY_RUN, "k") == "text"
    assert "later version" in store.problem()
    assert "measurements are kept in memory" in store.problem()
    store.close()
    assert path.read_bytes() == before


@pytest.fixture
def blocked(tmp_path):
    """A path in a folder that cannot be made: a file is in its way."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "calibration.sqlite"


def test_a_folder_that_cannot_be_made_keeps_everything_in_memory(open_store, blocked):
    store = open_store(blocked)
    for edge in range(20):
        store.add(KEY, measured(edge))
    store.remember(DRY_RUN, "k", "text")
    assert edges(store.measurements(KEY)) == list(range(20))
    assert store.cached(DRY_RUN, "k") == "text"
    assert store.cached(DRY_RUN, "other") is None
    assert "cannot be used" in store.problem()


def test_a_directory_in_the_files_place_keeps_everything_in_memory(open_store, path):
    path.mkdir(parents=True)
    store = open_store()
    store.add(KEY, measured())
    assert list(store.measurements(KEY)) == [measured()]
    assert "unable to open" in store.problem()
    store.close()
    assert path.is_dir()


def test_what_waited_in_memory_is_written_once_the_disk_serves(open_store, blocked):
    store = open_store(blocked)
    store.add(KEY, measured(1))
    store.remember(DRY_RUN, "k", "text")
    blocked.parent.unlink()
    store.add(KEY, measured(2))
    assert store.problem() is None
    again = open_store(blocked)
    assert edges(again.measurements(KEY)) == [1, 2]
    assert again.cached(DRY_RUN, "k") == "text"


def test_a_store_that_may_only_be_read_is_read(open_store, path):
    writable = open_store()
    writable.add(KEY, measured(1))
    writable.remember(DRY_RUN, "k", "text")

    def read_only(where):
        connection = connect(where)
        connection.execute("PRAGMA query_only = ON")
        return connection

    store = open_store(open_connection=read_only)
    store.add(KEY, measured(2))
    assert edges(store.measurements(KEY)) == [1, 2]
    assert store.cached(DRY_RUN, "k") == "text"
    assert "readonly" in store.problem()
    assert "readonly" in store.problem(), "reading well does not hide it"


def test_a_full_disk_is_survived_and_made_up_for(open_store):
    """SQLite's own page limit fails like a full disk does."""
    connections = []

    def small(where):
        connection = connect(where)
        connection.execute("PRAGMA max_page_count = 20")
        connections.append(connection)
        return connection

    store = open_store(open_connection=small)
    fill(store, StillClock(), [str(number) for number in range(8)])
    store.add(KEY, measured())
    assert "full" in store.problem()
    assert store.cached(DRY_RUN, "7").startswith("7")
    assert list(store.measurements(KEY)) == [measured()]
    connections[-1].execute("PRAGMA max_page_count = 100000")
    store.add(KEY, measured(1))
    assert store.problem() is None
    again = open_store()
    assert edges(again.measurements(KEY)) == [64, 1]
    assert all(again.cached(DRY_RUN, str(number)) for number in range(8))


def test_a_store_another_process_holds_is_tried_again(open_store, path):
    def impatient(where):
        connection = connect(where)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    store = open_store(open_connection=impatient)
    store.add(KEY, measured(1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.add(KEY, measured(2))
        assert "locked" in store.problem()
        assert edges(store.measurements(KEY)) == [1, 2]
        assert "locked" in store.problem()
        other.execute("ROLLBACK")
    store.close()
    assert edges(open_store().measurements(KEY)) == [1, 2]


def delete(path):
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted there")
class TestDeletedWhileOpen:
    def test_what_this_process_measured_is_written_anew(self, open_store, path):
        store = open_store()
        store.add(KEY, measured(1))
        store.add(OTHER_KEY, measured(2))
        delete(path)
        store.add(KEY, measured(3))
        assert store.problem() is None
        again = open_store()
        assert edges(again.measurements(KEY)) == [1, 3]
        assert edges(again.measurements(OTHER_KEY)) == [2]

    def test_even_when_nothing_more_is_measured(self, open_store, path):
        store = open_store()
        store.add(KEY, measured(1))
        delete(path)
        store.close()
        assert edges(open_store().measurements(KEY)) == [1]

    def test_even_when_it_was_only_read_since(self, open_store, path):
        store = open_store()
        store.add(KEY, measured(1))
        delete(path)
        assert edges(store.measurements(KEY)) == [1]
        store.close()
        assert edges(open_store().measurements(KEY)) == [1]

    def test_a_file_put_in_its_place_is_read(self, open_store, path, tmp_path):
        elsewhere = tmp_path / "other.sqlite"
        theirs = open_store(elsewhere)
        theirs.add(KEY, measured(9))
        theirs.close()
        store = open_store()
        store.add(KEY, measured(1))
        delete(path)
        elsewhere.rename(path)
        assert sorted(edges(store.measurements(KEY))) == [1, 9]
