"""The history on disk: what it keeps, forgets, shares and survives."""

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import pytest
from support.clock import EPOCH_S, StillClock

from vram_supervisor.supervisor.sqlite_file import connect
from vram_supervisor.supervisor.telemetry.history import DAY_S, MemoryHistory, SqliteHistory
from vram_supervisor.supervisor.telemetry.history_file import SCHEMA_VERSION
from vram_supervisor.supervisor.telemetry.record_json import from_json, to_json
from vram_supervisor.supervisor.types import DecodeSummary, JobRecord, NodeRecord, Peak
from vram_supervisor.supervisor.units import KiB, MiB

PEAK = Peak("cuda:0", 10, 9, 8, torch_exact=False, torch_bound_bytes=11)


def record(job_id="a", ended_s=EPOCH_S, node_type="KSampler"):
    node = NodeRecord("3", node_type, ended_s - 2, ended_s - 1, (PEAK,))
    return JobRecord(job_id, ended_s - 3, ended_s, "success", (node,), (PEAK, Peak("cpu", 5)))


def ids(records):
    return [each.job_id for each in records]


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new folder" / "history.sqlite"


@pytest.fixture
def open_history(path, clock):
    opened = []

    def make(**options):
        opened.append(SqliteHistory(path, clock, **options))
        return opened[-1]

    yield make
    for history in opened:
        history.close()


def test_a_record_survives_the_journey_through_json():
    assert from_json(to_json(record())) == record()


def test_decodes_make_the_journey_too():
    decode = DecodeSummary(
        "decode", "cuda:0", "8", EPOCH_S, outcome="done", kind="tiled", retries=("a tile",)
    )
    told = replace(record(), decodes=(decode,))
    assert from_json(to_json(told)) == told


def test_a_record_from_before_decodes_were_told_is_read():
    values = json.loads(to_json(record()))
    del values["decodes"]
    assert from_json(json.dumps(values)) == record()


def test_fields_of_a_later_version_are_ignored():
    text = to_json(record()).replace('"job_id":', '"colour":"red","job_id":', 1)
    assert from_json(text) == record()


def test_records_come_back_newest_first_after_a_restart(open_history):
    first = open_history()
    for job_id in "abc":
        first.add(record(job_id))
    first.close()
    assert list(open_history().jobs(2)) == [record("c"), record("b")]


def test_one_job_can_be_asked_for(open_history):
    history = open_history()
    for job_id in "aba":
        history.add(record(job_id))
    assert ids(history.jobs(10, "a")) == ["a", "a"]
    assert ids(history.jobs(1, "a")) == ["a"]
    assert list(history.jobs(10, "z")) == []


def test_nothing_is_written_before_the_first_use(open_history, path):
    assert open_history().problem() is None
    assert not path.parent.exists()


def test_jobs_past_their_age_are_forgotten(open_history, clock):
    history = open_history(max_age_s=30 * DAY_S)
    history.add(record("old", EPOCH_S - 31 * DAY_S))
    history.add(record("young", EPOCH_S - 29 * DAY_S))
    assert ids(history.jobs(10)) == ["young"]
    clock.now_s = 2 * DAY_S
    history.add(record("new", EPOCH_S + 2 * DAY_S))
    assert ids(history.jobs(10)) == ["new"]


def test_another_age_counts_for_the_next_look(open_history):
    history = open_history(max_age_s=30 * DAY_S)
    history.add(record("old", EPOCH_S - 8 * DAY_S))
    history.add(record("young", EPOCH_S - 6 * DAY_S))
    history.keep_for(7 * DAY_S)
    assert ids(history.jobs(10)) == ["young"]


def size_bytes(path):
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))


def test_a_file_that_grows_too_large_really_shrinks(open_history, path):
    limit_bytes = 512 * KiB
    history = open_history(max_bytes=limit_bytes)
    largest = 0
    for number in range(60):
        history.add(record(str(number), node_type="x" * 32 * KiB))
        largest = max(largest, size_bytes(path))
    history.close()
    kept = ids(open_history().jobs(100))
    assert path.stat().st_size <= limit_bytes
    assert largest < 60 * 32 * KiB / 2, "it never held nearly all that was written"
    assert kept == [str(number) for number in range(59, 59 - len(kept), -1)], "the newest stay"
    assert len(kept) >= 5


def test_a_reader_in_another_process_costs_no_jobs(open_history, path):
    """It keeps the log from shrinking; deleting jobs would not help."""
    history = open_history(max_bytes=400 * KiB)
    history.add(record("first"))
    with closing(connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT COUNT(*) FROM jobs").fetchone()
        for number in range(200):
            history.add(record(str(number), node_type="x" * 5_000))
        assert history.problem() is None
        assert len(history.jobs(1000)) > 20
    history.add(record("last"))
    assert sum(each.stat().st_size for each in path.parent.iterdir()) < 600 * KiB


def test_jobs_past_their_age_are_not_shown_before_the_next_job_either(open_history, clock):
    open_history().add(record("old"))
    clock.now_s += 31 * DAY_S
    assert ids(open_history().jobs(10)) == []


def test_a_job_that_cannot_be_written_does_not_hold_up_the_others(open_history, caplog):
    history = open_history()
    history.add(record("\ud800"))
    history.add(record("after"))
    assert ids(open_history().jobs(10)) == ["after"]
    assert "left out" in caplog.text


def test_a_statement_that_is_refused_is_no_damage(open_history, path):
    history = open_history()
    history.add(record("kept"))

    def refuse(_file):
        raise sqlite3.IntegrityError("refused by the test")

    history._guard.attempt(refuse)
    assert "refused by the test" in history.problem()
    assert ids(open_history().jobs(10)) == ["kept"]
    assert not list(path.parent.glob("*.corrupt-*"))


def test_one_record_larger_than_the_limit_does_not_hang(open_history, path):
    history = open_history(max_bytes=64 * KiB)
    history.add(record("huge", node_type="x" * MiB))
    history.add(record("small"))
    assert ids(history.jobs(10)) in (["small"], [])
    assert history.problem() is None


def corrupt_files(path):
    return sorted(each.name for each in path.parent.glob("*.corrupt-*"))


def test_a_file_that_is_no_database_is_set_aside(open_history, path):
    path.parent.mkdir()
    path.write_bytes(b"this was never a database" * 100)
    history = open_history()
    history.add(record("a"))
    assert ids(history.jobs(10)) == ["a"]
    assert corrupt_files(path) == ["history.sqlite.corrupt-20231114T221320Z"]
    assert (path.parent / corrupt_files(path)[0]).read_bytes().startswith(b"this was never")
    assert "was damaged" in history.problem()


def test_a_second_damaged_file_of_the_same_second_gets_a_number(open_history, path):
    path.parent.mkdir()
    for _ in range(2):
        path.write_bytes(b"not a database at all" * 100)
        history = open_history()
        history.add(record("a"))
        history.close()
        path.unlink()
    assert [name.partition("Z")[2] for name in corrupt_files(path)] == ["", "-2"]


def test_damage_while_it_is_in_use_is_survived(open_history, path):
    history = open_history()
    for number in range(50):
        history.add(record(str(number), node_type="x" * 4096))
    history.close()
    with path.open("r+b") as file:
        for page in range(2, 60):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    again = open_history()
    again.add(record("after"))
    assert ids(again.jobs(10)) == ["after"]
    assert len(corrupt_files(path)) == 1


def test_a_new_file_begun_by_another_process_is_not_set_aside(open_history, path):
    """This process still has the damaged file open when the other one has replaced it."""
    mine, theirs = open_history(), open_history()
    mine.add(record("a"))
    path.rename(path.with_name("history.sqlite.corrupt-by-them"))
    for side_file in path.parent.glob("history.sqlite-*"):
        side_file.unlink()
    theirs.add(record("theirs"))
    mine._guard.replace_damaged(sqlite3.DatabaseError("database disk image is malformed"))
    mine.add(record("mine"))
    assert ids(theirs.jobs(10)) == ["mine", "theirs"]
    assert corrupt_files(path) == ["history.sqlite.corrupt-by-them"]


def test_a_row_that_is_no_record_is_left_out(open_history, path, caplog):
    history = open_history()
    history.add(record("a"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO jobs (job_id, ended_s, record) VALUES ('x', 2e9, '{}')")
        other.commit()
    assert ids(history.jobs(10)) == ["a"]
    assert "is not a job record" in caplog.text


def test_a_file_of_a_later_version_is_left_alone(open_history, path):
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as later:
        later.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = path.read_bytes()
    history = open_history()
    history.add(record("a"))
    assert ids(history.jobs(10)) == ["a"], "kept in memory"
    assert "later version" in history.problem()
    history.close()
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_keeps_records_in_memory(tmp_path, clock):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    history = SqliteHistory(in_the_way / "history.sqlite", clock)
    history.add(record("a"))
    assert ids(history.jobs(10)) == ["a"]
    assert "cannot be used" in history.problem()
    history.close()


def test_a_database_that_may_only_be_read_keeps_records_in_memory(open_history, path):
    writable = open_history()
    writable.add(record("before"))
    writable.close()

    def read_only(where):
        return sqlite3.connect(
            f"{where.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    history = open_history(open_connection=read_only)
    history.add(record("a"))
    assert ids(history.jobs(10))[0] == "a"
    assert "readonly" in history.problem()


def test_a_full_disk_is_survived_and_made_up_for(open_history):
    """SQLite's own page limit fails like a full disk does."""
    connections = []

    def small(where):
        connection = connect(where)
        connection.execute("PRAGMA max_page_count = 40")
        connections.append(connection)
        return connection

    history = open_history(open_connection=small)
    for number in range(12):
        history.add(record(str(number), node_type="x" * 16 * KiB))
    assert "full" in history.problem()
    assert ids(history.jobs(100)) == [str(number) for number in range(11, -1, -1)]
    connections[-1].execute("PRAGMA max_page_count = 100000")
    history.add(record("12"))
    assert history.problem() is None
    history.close()
    assert ids(open_history().jobs(100)) == [str(number) for number in range(12, -1, -1)]


def test_memory_is_bounded_where_the_disk_does_not_serve(tmp_path, clock):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    history = SqliteHistory(in_the_way / "history.sqlite", clock)
    for number in range(1000):
        history.add(record(str(number)))
    assert len(history.jobs(10_000)) == 256
    assert ids(history.jobs(1)) == ["999"]


def test_a_database_another_process_holds_is_tried_again(open_history, path):
    def impatient(where):
        connection = connect(where)
        connection.execute("PRAGMA busy_timeout = 0")
        return connection

    history = open_history(open_connection=impatient)
    history.add(record("a"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        history.add(record("b"))
        assert "locked" in history.problem()
        assert ids(history.jobs(10)) == ["b", "a"]
        other.execute("ROLLBACK")
    history.add(record("c"))
    assert history.problem() is None
    assert ids(history.jobs(10)) == ["c", "b", "a"]


WRITER = """
import sys
from pathlib import Path
from vram_supervisor.supervisor.telemetry.clock import SystemClock
from vram_supervisor.supervisor.telemetry.history import SqliteHistory
from vram_supervisor.supervisor.types import JobRecord
import time
history = SqliteHistory(Path(sys.argv[1]), SystemClock())
for number in range(int(sys.argv[3])):
    history.add(JobRecord(f"{sys.argv[2]}{number}", time.time(), time.time(), "success"))
assert history.problem() is None, history.problem()
"""


def spawn(path, name, count, ending="history.close()"):
    code = WRITER + ending
    return subprocess.Popen([sys.executable, "-c", code, str(path), name, str(count)])


def test_two_processes_share_one_file(open_history, path, clock):
    writers = [spawn(path, name, 40) for name in ("left", "right")]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    clock.now_s = 0
    found = ids(open_history().jobs(1000))
    assert sorted(found) == sorted(f"{name}{n}" for name in ("left", "right") for n in range(40))
    assert corrupt_files(path) == []


def test_what_a_killed_process_left_in_its_log_is_kept(open_history, path):
    writer = spawn(path, "lost", 3, "import os; os._exit(9)")
    assert writer.wait(120) == 9
    log = path.with_name(path.name + "-wal")
    assert log.stat().st_size > 0, "the process died before its log was written back"
    assert ids(open_history().jobs(10)) == ["lost2", "lost1", "lost0"]


def test_a_log_without_its_database_does_no_harm(open_history, path):
    writer = spawn(path, "gone", 3, "import os; os._exit(9)")
    writer.wait(120)
    path.unlink()
    history = open_history()
    history.add(record("a"))
    assert ids(history.jobs(10)) == ["a"]
    assert history.problem() is None


def test_it_opens_again_after_closing(open_history):
    history = open_history()
    history.add(record("a"))
    history.close()
    history.add(record("b"))
    assert ids(history.jobs(10)) == ["b", "a"]


def test_any_thread_may_use_it(open_history):
    history = open_history()
    threads = [threading.Thread(target=history.add, args=(record(str(n)),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(history.jobs(100))) == [str(number) for number in range(8)]


def test_history_in_memory():
    history = MemoryHistory(capacity=2)
    for job_id in "abc":
        history.add(record(job_id))
    assert ids(history.jobs(10)) == ["c", "b"]
    assert ids(history.jobs(10, "b")) == ["b"]
    assert ids(history.jobs(0)) == []
    assert history.problem() is None
