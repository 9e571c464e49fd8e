"""The calibration store: what it keeps, and what it forgets."""

from contextlib import closing
from dataclasses import replace

import pytest
from support.calibrations import DRY_RUN, KEY, OTHER_KEY, edges, fill, measured
from support.clock import EPOCH_S

from vram_supervisor.supervisor.planning.calibration import Measurement
from vram_supervisor.supervisor.planning.calibration_store import TOUCH_EVERY_S
from vram_supervisor.supervisor.sqlite_file import connect
from vram_supervisor.supervisor.units import GiB, KiB, MiB


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


def test_it_opens_again_after_closing(open_store, caplog):
    store = open_store()
    store.add(KEY, measured(1))
    store.close()
    store.close()
    store.add(KEY, measured(2))
    assert edges(store.measurements(KEY)) == [1, 2]
    assert edges(open_store().measurements(KEY)) == [1, 2]
    assert caplog.text == ""


def test_memory_for_texts_is_bounded(open_store, monkeypatch):
    monkeypatch.setattr(
        "vram_supervisor.supervisor.planning.calibration_store.TEXTS_IN_MEMORY", 100
    )
    store = open_store(None)
    for name in "abc":
        store.remember(DRY_RUN, name, name * 40)
        store.cached(DRY_RUN, "a")
    assert [store.cached(DRY_RUN, name) is None for name in "abc"] == [False, True, False]
