"""The calibration store: what it keeps, forgets, shares and survives."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from support.clock import EPOCH_S, StillClock

from vram_supervisor.supervisor.planning.calibration import CalibrationKey, Measurement
from vram_supervisor.supervisor.planning.calibration_file import SCHEMA_VERSION
from vram_supervisor.supervisor.planning.calibration_store import TOUCH_EVERY_S, CalibrationStore
from vram_supervisor.supervisor.sqlite_file import connect
from vram_supervisor.supervisor.units import GiB, KiB, MiB

KEY = CalibrationKey(
    "NVIDIA X", "570.1", "2.9", "91002", "native", "a1", "bf16", "pytorch", autotune=False
)
OTHER_KEY = replace(KEY, vae="b2")
DRY_RUN = "dry run"


def measured(edge=64, ratio=1.2, **more):
    return Measurement(1, None, edge, edge, GiB, int(GiB * ratio), **{"time_s": EPOCH_S, **more})


def edges(measurements):
    return [each.height for each in measurements]


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "calibration.sqlite"


@pytest.fixture
def open_store(path, clock):
    opened = []

    def make(where=path, **options):
        opened.append(CalibrationStore(where, clock, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


def test_measurements_come_back_after_a_restart(open_store):
    full = Measurement(
        2, 9, 60, 104, 3 * GiB, 4 * GiB, exact=False, failed=True, seconds=1.25, pixels=10**9,
        tiles=6, moved_bytes=5 * GiB, time_s=EPOCH_S + 0.1,
    )  # fmt: skip
    first = open_store()
    first.add(KEY, measured())
    first.add(KEY, full)
    first.add(OTHER_KEY, measured(8))
    first.close()
    again = open_store()
    assert list(again.measurements(KEY)) == [measured(), full]
    assert list(again.measurements(OTHER_KEY)) == [measured(8)]
    assert list(again.measurements(replace(KEY, autotune=True))) == []
    assert again.problem() is None


def test_the_clock_stamps_what_has_no_time(open_store, clock):
    clock.now_s = 7.0
    store = open_store()
    store.add(KEY, measured(time_s=0))
    assert [each.time_s for each in store.measurements(KEY)] == [EPOCH_S + 7]


def test_nothing_is_written_before_the_first_use(open_store, path):
    assert open_store().problem() is None
    open_store().close()
    assert not path.parent.exists()


def test_without_a_path_everything_is_kept_in_memory(open_store):
    store = open_store(None)
    store.add(KEY, measured())
    store.remember(DRY_RUN, "k", "text")
    assert list(store.measurements(KEY)) == [measured()]
    assert store.cached(DRY_RUN, "k") == "text"
    assert store.problem() is None


def test_what_another_process_measured_is_seen_at_once(open_store):
    mine, theirs = open_store(), open_store()
    mine.add(KEY, measured(1))
    assert edges(theirs.measurements(KEY)) == [1]
    for edge in (2, 3):
        mine.add(KEY, measured(edge))
        assert edges(theirs.measurements(KEY)) == list(range(1, edge + 1))
    theirs.add(KEY, measured(4))
    assert edges(mine.measurements(KEY)) == [1, 2, 3, 4]


def test_the_file_is_read_only_when_another_process_wrote(open_store):
    """Counted by the statements SQLite ran."""
    statements = []

    def traced(where):
        connection = connect(where)
        connection.set_trace_callback(statements.append)
        return connection

    store, other = open_store(open_connection=traced), open_store()
    store.add(KEY, measured(1))
    assert edges(store.measurements(KEY)) == [1]
    statements.clear()
    for _ in range(5):
        store.measurements(KEY)
    assert not [each for each in statements if each.startswith("SELECT")]
    other.add(KEY, measured(2))
    assert edges(store.measurements(KEY)) == [1, 2]


def test_a_cached_text_comes_back_after_a_restart(open_store):
    first = open_store()
    first.remember(DRY_RUN, "a", "one")
    first.remember(DRY_RUN, "a", "two")
    first.remember("another kind", "a", "three")
    first.close()
    again = open_store()
    assert again.cached(DRY_RUN, "a") == "two"
    assert again.cached("another kind", "a") == "three"
    assert again.cached(DRY_RUN, "b") is None


def test_a_text_that_is_in_memory_is_not_read_again(open_store, path):
    store = open_store()
    store.remember(DRY_RUN, "a", "text")
    with closing(connect(path)) as other:
        other.execute("DELETE FROM texts")
    assert store.cached(DRY_RUN, "a") == "text"
    assert open_store().cached(DRY_RUN, "a") is None


def fill(store, clock, names, size_bytes=20 * KiB):
    for name in names:
        clock.now_s += 1
        store.remember(DRY_RUN, name, name.ljust(size_bytes, "."))


def test_the_text_unused_for_longest_is_forgotten_first(open_store, path, clock):
    """The order is that of the last use, not of the writing; measurements stay."""
    limit_bytes = 256 * KiB
    fill(open_store(), clock, ["first", "second", "third", "fourth", "fifth"])
    clock.now_s += 2 * TOUCH_EVERY_S
    store = open_store(max_bytes=limit_bytes)
    store.add(KEY, measured())
    assert store.cached(DRY_RUN, "first") is not None
    fill(store, clock, [str(number) for number in range(8)])
    again = open_store()
    assert again.cached(DRY_RUN, "second") is None
    assert all(again.cached(DRY_RUN, name) for name in ("first", "0", "7"))
    assert list(again.measurements(KEY)) == [measured()]


def test_a_file_that_grows_too_large_really_shrinks(open_store, path, clock):
    limit_bytes = 512 * KiB
    store = open_store(max_bytes=limit_bytes)
    store.add(KEY, measured())
    fill(store, clock, [str(number) for number in range(100)])
    store.close()
    again = open_store()
    assert again.cached(DRY_RUN, "99") is not None
    assert again.cached(DRY_RUN, "0") is None
    assert list(again.measurements(KEY)) == [measured()]
    again.close()
    assert path.stat().st_size <= limit_bytes


def test_a_text_as_large_as_the_file_may_be_drives_nothing_out(open_store):
    store = open_store(max_bytes=MiB)
    store.remember(DRY_RUN, "small", "text")
    store.remember(DRY_RUN, "huge", "x" * MiB)
    assert store.cached(DRY_RUN, "huge") is not None, "kept in memory"
    assert store.problem() is None
    again = open_store()
    assert again.cached(DRY_RUN, "small") == "text"
    assert again.cached(DRY_RUN, "huge") is None


def test_keys_measured_longest_ago_go_when_there_are_too_many(open_store, path):
    limit_bytes = 128 * KiB
    store = open_store(max_bytes=limit_bytes)
    keys = [replace(KEY, driver=str(number)) for number in range(60)]
    for number, key in enumerate(keys):
        for edge in range(12):
            store.add(key, measured(edge, time_s=EPOCH_S + number))
    assert len(store.measurements(keys[0])) == 12, "what this process measured stays in memory"
    store.close()
    again = open_store()
    assert len(again.measurements(keys[-1])) == 12
    assert len(again.measurements(keys[0])) == 0
    again.close()
    assert path.stat().st_size <= limit_bytes


def test_distinct_shapes_are_kept_before_repeats(open_store):
    store = open_store(per_key=10)
    for edge in range(8):
        store.add(KEY, measured(edge, ratio=1.2 + edge / 100, time_s=EPOCH_S + edge))
    for number in range(50):
        store.add(KEY, measured(7, ratio=1.1, time_s=EPOCH_S + 100 + number))
    for each in (store, open_store()):
        kept = each.measurements(KEY)
        assert len(kept) == 10
        assert set(edges(kept)) == set(range(8))
        assert max(m.ratio for m in kept) == pytest.approx(1.27, rel=1e-6)


def test_more_than_256_measurements_of_a_key_are_not_kept(open_store, path):
    store = open_store()
    for edge in range(300):
        store.add(KEY, measured(edge, time_s=EPOCH_S + edge))
    store.close()
    with closing(connect(path)) as file:
        assert file.execute("SELECT COUNT(*) FROM measurements").fetchone() == (256,)
    assert edges(open_store().measurements(KEY))[-1] == 299


def test_fields_of_a_later_version_are_ignored(open_store, path):
    store = open_store()
    store.add(KEY, measured())
    with closing(connect(path)) as file:
        file.execute(
            "UPDATE measurements SET measurement ="
            ' replace(measurement, \'"batch"\', \'"colour":"red","batch"\')'
        )
    assert list(open_store().measurements(KEY)) == [measured()]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "not json",
        "null",
        '{"batch":1,"frames":null,"height":"64","width":64,"base_bytes":1,"measured_bytes":1}',
        '{"batch":1,"frames":null,"height":64,"width":64,"base_bytes":null,"measured_bytes":1}',
    ],
)
def test_a_row_that_is_no_measurement_is_left_out(open_store, path, caplog, text):
    open_store().add(KEY, measured())
    with closing(connect(path)) as file:
        file.execute(
            "INSERT INTO measurements (key, measured_s, measurement) VALUES (?, 0, ?)",
            (KEY.text, text),
        )
    store = open_store(per_key=2)
    assert list(store.measurements(KEY)) == [measured()]
    assert "is no measurement" in caplog.text
    for edge in (1, 2):
        store.add(KEY, measured(edge, ratio=1.3))
    assert len(open_store().measurements(KEY)) == 2


def test_what_cannot_be_written_does_not_hold_up_the_rest(open_store, caplog):
    store = open_store()
    store.remember(DRY_RUN, "odd", "\ud800")
    store.add(KEY, measured())
    store.add(OTHER_KEY, replace(measured(1), seconds=object()))
    assert store.cached(DRY_RUN, "\ud800") is None
    assert store.cached(DRY_RUN, "odd") == "\ud800", "kept in memory"
    store.close()
    again = open_store()
    assert list(again.measurements(KEY)) == [measured()]
    assert list(again.measurements(OTHER_KEY)) == []
    assert caplog.text.count("left out") == 2


def corrupt_files(path):
    return sorted(each.name for each in path.parent.glob("*.corrupt-*"))


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


WRITER = """
import sys
from pathlib import Path
from vram_supervisor.supervisor.planning.calibration import CalibrationKey, Measurement
from vram_supervisor.supervisor.planning.calibration_store import CalibrationStore
from vram_supervisor.supervisor.telemetry.clock import SystemClock
key = CalibrationKey("NVIDIA X", "570.1", "2.9", "91002", "native", "a1", "bf16", "pytorch", False)
first, count = int(sys.argv[2]), int(sys.argv[3])
store = CalibrationStore(Path(sys.argv[1]), SystemClock())
for edge in range(first, first + count):
    store.add(key, Measurement(1, None, edge, edge, 1000, 1200))
    store.remember("dry run", str(edge), "text")
assert store.problem() is None, store.problem()
assert {m.height for m in store.measurements(key)} >= set(range(first, first + count))
"""


def spawn(path, first, count, ending="store.close()"):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER + ending, str(path), str(first), str(count)]
    )


def test_two_processes_write_at_once(open_store, path):
    writers = [spawn(path, first, 40) for first in (1000, 2000)]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = open_store()
    wanted = [*range(1000, 1040), *range(2000, 2040)]
    assert sorted(edges(store.measurements(KEY))) == wanted
    assert all(store.cached(DRY_RUN, str(edge)) for edge in wanted)
    assert corrupt_files(path) == []


def test_what_a_killed_process_measured_is_kept(open_store, path):
    writer = spawn(path, 1, 3, "import os; os._exit(9)")
    assert writer.wait(120) == 9
    assert edges(open_store().measurements(KEY)) == [1, 2, 3]


def test_two_processes_share_one_limit(open_store):
    mine, theirs = open_store(per_key=6), open_store(per_key=6)
    for edge in range(5):
        mine.add(KEY, measured(edge, time_s=EPOCH_S + 2 * edge))
        theirs.add(KEY, measured(100 + edge, time_s=EPOCH_S + 2 * edge + 1))
    assert len(open_store().measurements(KEY)) == 6
    assert set(edges(mine.measurements(KEY))) >= {103, 3, 104, 4}


def test_it_opens_again_after_closing(open_store, caplog):
    store = open_store()
    store.add(KEY, measured(1))
    store.close()
    store.close()
    store.add(KEY, measured(2))
    assert edges(store.measurements(KEY)) == [1, 2]
    assert edges(open_store().measurements(KEY)) == [1, 2]
    assert caplog.text == ""


def test_any_thread_may_use_it(open_store):
    store = open_store()

    def use(number):
        store.add(KEY, measured(number))
        store.remember(DRY_RUN, str(number), "text")
        assert store.cached(DRY_RUN, str(number)) == "text"

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(edges(store.measurements(KEY))) == list(range(8))


def test_memory_for_texts_is_bounded(open_store, monkeypatch):
    monkeypatch.setattr(
        "vram_supervisor.supervisor.planning.calibration_store.TEXTS_IN_MEMORY", 100
    )
    store = open_store(None)
    for name in "abc":
        store.remember(DRY_RUN, name, name * 40)
        store.cached(DRY_RUN, "a")
    assert [store.cached(DRY_RUN, name) is None for name in "abc"] == [False, True, False]
