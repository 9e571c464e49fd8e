"""One calibration store for several processes and threads."""

import subprocess
import sys
import threading

from support.calibrations import DRY_RUN, KEY, corrupt_files, edges, measured
from support.clock import EPOCH_S

from vram_supervisor.supervisor.sqlite_file import connect


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
