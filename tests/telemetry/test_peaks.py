"""Peaks of a stretch of work, read off a counter that others may reset."""

import pytest
from support.clock import StillClock
from support.instruments import CUDA, FakeCounter, make_sample

from vram_supervisor.supervisor.telemetry.peaks import PeakBook, TorchPeak

KEY = CUDA.key


@pytest.fixture
def clock():
    return StillClock()


def mark(value):
    return ("mark", value)


def live(value):
    return ("live", value)


REASONING = [
    # (what was seen in order, known, exact, bound, why)
    ([], None, None, None, "nothing seen, nothing known"),
    ([mark(None), live(None)], None, None, None, "a backend that does not count tells nothing"),
    ([mark(0), live(0), mark(0)], 0, True, None, "nothing held, and that is exact"),
    ([mark(5), live(2), mark(9)], 9, True, None, "a mark that rose was reached inside"),
    (
        [mark(9), live(4), mark(9)],
        4,
        False,
        9,
        "it did not rise: the largest figure seen, at most the mark",
    ),
    ([mark(9), live(9), mark(9)], 9, True, None, "seen right at the mark, it is exact after all"),
    ([mark(9), mark(9)], None, None, 9, "never looked inside: only the bound is known"),
    (
        [mark(9), live(3), mark(5)],
        5,
        False,
        None,
        "it fell: what it rose to since the reset is reached",
    ),
    (
        [mark(9), live(8), mark(5)],
        8,
        False,
        None,
        "more was seen than the mark says since the reset",
    ),
    (
        [mark(5), mark(12), mark(8)],
        12,
        False,
        None,
        "the mark before the reset was reached inside too",
    ),
    (
        [mark(5), mark(2), mark(9)],
        9,
        False,
        None,
        "once reset, a high mark is no longer the whole truth",
    ),
    (
        [mark(5), live(8), mark(6)],
        8,
        False,
        None,
        "more was seen than the mark: a reset went unseen",
    ),
]


@pytest.mark.parametrize(("seen", "known", "exact", "bound", "why"), REASONING)
def test_what_is_known_of_torchs_peak(seen, known, exact, bound, why):
    peak = TorchPeak()
    for kind, value in seen:
        getattr(peak, kind)(value)
    assert (peak.known_bytes, peak.is_exact(), peak.bound_bytes()) == (known, exact, bound), why


def test_overlapping_stretches_are_measured_from_their_own_beginning(clock):
    counter = FakeCounter({KEY: 5})
    book = PeakBook(counter, clock, [KEY])
    first = book.watch()
    counter.peaks[KEY] = 20
    second = book.watch()
    (of_first,) = first.end()
    (of_second,) = second.end()
    assert (of_first.torch_bytes, of_first.torch_exact) == (20, True)
    assert (of_second.torch_bytes, of_second.torch_bound_bytes) == (None, 20)


def test_a_reset_is_noticed_through_other_watches(clock):
    """A node ends between two resets: the job around it must not call its last mark exact."""
    counter = FakeCounter({KEY: 5})
    book = PeakBook(counter, clock, [KEY])
    job, node = book.watch(), book.watch()
    counter.peaks[KEY] = 12
    node.end()
    counter.peaks[KEY] = 8
    (of_job,) = job.end()
    assert (of_job.torch_bytes, of_job.torch_exact) == (12, False)


def test_samples_count_for_every_open_watch(clock):
    book = PeakBook(FakeCounter(), clock)
    job, node = book.watch(), book.watch()
    book.observe(make_sample(1, used_bytes=70, process_bytes=30, torch_allocated_bytes=20))
    (of_node,) = node.end()
    book.observe(make_sample(2, used_bytes=60, process_bytes=50, torch_allocated_bytes=10))
    (of_job,) = job.end()
    assert (of_node.used_bytes, of_node.process_bytes, of_node.torch_bytes) == (70, 30, 20)
    assert (of_job.used_bytes, of_job.process_bytes, of_job.torch_bytes) == (70, 50, 20)


def test_a_sample_taken_before_the_work_began_does_not_count(clock):
    book = PeakBook(FakeCounter(), clock)
    clock.now_s = 10.0
    watch = book.watch()
    book.observe(make_sample(9.9, used_bytes=99))
    book.observe(make_sample(10.1, used_bytes=40))
    assert [peak.used_bytes for peak in watch.end()] == [40]


def test_unknown_figures_do_not_hide_known_ones(clock):
    book = PeakBook(FakeCounter(), clock)
    watch = book.watch()
    book.observe(make_sample(1, used_bytes=40))
    book.observe(make_sample(2, used_bytes=None))
    (peak,) = watch.end()
    assert (peak.used_bytes, peak.process_bytes, peak.torch_exact) == (40, None, None)


def test_a_device_nothing_is_known_of_has_no_peak(clock):
    book = PeakBook(FakeCounter(), clock, ["cpu", KEY])
    watch = book.watch()
    book.observe(make_sample(1))
    assert watch.end() == ()


def test_ending_twice_gives_the_same_peaks_and_leaves_nothing_open(clock):
    counter = FakeCounter({KEY: 1})
    book = PeakBook(counter, clock, [KEY])
    watch = book.watch()
    counter.peaks[KEY] = 4
    first = watch.end()
    counter.peaks[KEY] = 9
    assert watch.end() == first
    assert book.open_watches == 0


def test_the_counter_is_never_reset():
    """The port has no way to, which is the point: a reset would not type-check."""
    from vram_supervisor.supervisor.ports import AllocatorCounter

    public = {name for name in vars(AllocatorCounter) if not name.startswith("_")}
    assert public == {"allocated_bytes", "peak_allocated_bytes"}
