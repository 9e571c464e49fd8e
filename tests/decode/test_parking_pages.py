"""Host memory that is kept between decodes: what is free of it, when it goes back to the system,
and what happens where none can be page-locked."""

import threading
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.clock import StillClock  # noqa: E402

from vram_supervisor.supervisor.decode import parking  # noqa: E402
from vram_supervisor.supervisor.decode.parking import KEPT_S, HostPages  # noqa: E402

PAGE = 64


@pytest.fixture
def clock():
    made = StillClock()
    made.now_s = 1000.0
    return made


@pytest.fixture
def pages(clock):
    return HostPages(PAGE, locks=False, clock=clock.monotonic_s)


# What is free.


def test_pages_are_idle_from_when_they_are_given_back(pages):
    assert (pages.idle_bytes, pages.held_bytes) == (0, 0)
    taken = pages.take_for(3 * PAGE)
    assert (pages.idle_bytes, pages.held_bytes) == (0, 3 * PAGE)
    pages.give(taken[:1])
    assert (pages.idle_bytes, pages.held_bytes) == (PAGE, 3 * PAGE)
    pages.give(taken[1:])
    assert (pages.idle_bytes, pages.held_bytes) == (3 * PAGE, 3 * PAGE)
    pages.take()
    assert (pages.idle_bytes, pages.held_bytes) == (2 * PAGE, 3 * PAGE)


def test_a_page_that_could_not_be_made_is_not_counted(pages, monkeypatch):
    def none_left():
        raise MemoryError

    monkeypatch.setattr(pages, "_new", none_left)
    with pytest.raises(MemoryError):
        pages.take()
    assert (pages.taken, pages.held_bytes) == (0, 0)


# When it goes back.


@pytest.mark.parametrize(
    ("sentence", "idle_s", "freed"),
    [
        ("just used", 0, 0),
        ("used a moment ago", KEPT_S - 1, 0),
        ("used long enough ago", KEPT_S, 2 * PAGE),
        ("used very long ago", 100 * KEPT_S, 2 * PAGE),
    ],
)
def test_memory_that_nobody_uses_goes_back_after_a_while(pages, clock, sentence, idle_s, freed):
    pages.give(pages.take_for(2 * PAGE))
    clock.now_s += idle_s
    assert pages.rest() == freed, sentence
    assert pages.held_bytes == 2 * PAGE - freed


def test_the_while_begins_anew_with_each_use(pages, clock):
    first = pages.take_for(2 * PAGE)
    pages.give(first)
    clock.now_s += KEPT_S - 1
    pages.give([pages.take()])
    clock.now_s += KEPT_S - 1
    assert pages.rest() == 0
    clock.now_s += 1
    assert pages.rest() == 2 * PAGE


def test_nothing_goes_back_while_a_decode_runs_however_long(pages, clock):
    taken = pages.take_for(2 * PAGE)
    pages.give(taken[:1])
    clock.now_s += 1000 * KEPT_S
    assert pages.rest() == 0
    assert pages.idle_bytes == PAGE
    pages.give(taken[1:])
    assert pages.rest() == 0, "the while begins when the decode ends"
    clock.now_s += KEPT_S
    assert pages.rest() == 2 * PAGE


def test_what_went_back_is_made_again_when_it_is_needed(pages, clock):
    pages.give(pages.take_for(2 * PAGE))
    clock.now_s += KEPT_S
    pages.rest()
    assert pages.rest() == 0
    pages.give(pages.take_for(PAGE))
    assert pages.held_bytes == PAGE


def test_while_one_thread_gives_back_another_takes_and_no_page_serves_two(clock):
    pages = HostPages(PAGE, locks=False, clock=clock.monotonic_s)
    pages.give(pages.take_for(8 * PAGE))
    clock.now_s += KEPT_S
    ends = threading.Event()

    def give_back():
        while not ends.is_set():
            pages.rest()
            pages.trim()

    other = threading.Thread(target=give_back)
    other.start()
    try:
        for _ in range(500):
            held = pages.take_for(4 * PAGE)
            assert len({page.data.data_ptr() for page in held}) == 4
            assert pages.taken == 4
            pages.give(held)
    finally:
        ends.set()
        other.join()
    assert pages.taken == 0
    assert pages.held_bytes == pages.idle_bytes


# Page-locking.


class Runtime:
    """CUDA's own functions: locks so many pages, then no more."""

    def __init__(self, most):
        self.most, self.asked, self.unlocked = most, 0, []

    def cudaHostRegister(self, address, size_bytes, flags):
        self.asked += 1
        assert size_bytes == PAGE
        return 0 if self.asked <= self.most else 2

    def cudaHostUnregister(self, address):
        self.unlocked.append(address)


@pytest.fixture
def locking(monkeypatch):
    """Makes a system that locks so many pages, and counts how often its error was cleared."""

    def make(most):
        runtime = Runtime(most)
        runtime.cleared = 0

        def clear():
            runtime.cleared += 1

        monkeypatch.setattr(parking, "_runtime", lambda: runtime)
        monkeypatch.setattr(parking, "_clear_last_error", clear)
        return runtime, HostPages(PAGE, locks=True)

    return make


def test_pages_are_locked_while_the_system_does_it(locking, caplog):
    runtime, pages = locking(most=9)
    taken = pages.take_for(3 * PAGE)
    assert [page.locked for page in taken] == [True] * 3
    assert (runtime.asked, runtime.cleared, caplog.text) == (3, 0, "")


@pytest.mark.parametrize("most", [0, 2])
def test_a_system_that_locks_no_more_is_asked_once_and_told_of_once(locking, caplog, most):
    runtime, pages = locking(most)
    taken = pages.take_for(5 * PAGE)
    assert [page.locked for page in taken] == [True] * most + [False] * (5 - most)
    assert runtime.asked == most + 1
    assert runtime.cleared == 1, "the next kernel's check must not find the error"
    told = [each for each in caplog.records if "could not be page-locked" in each.message]
    assert len(told) == 1
    assert "CUDA error 2" in told[0].message


def test_only_what_was_locked_is_unlocked(locking):
    runtime, pages = locking(2)
    taken = pages.take_for(4 * PAGE)
    locked = [page.data.data_ptr() for page in taken if page.locked]
    pages.give(taken)
    assert pages.trim() == 4 * PAGE
    assert sorted(runtime.unlocked) == sorted(locked)


def test_pages_that_are_not_locked_hold_what_they_are_given(locking):
    _, pages = locking(0)
    page = pages.take()
    page.data.fill_(7)
    assert int(page.data.sum()) == 7 * PAGE


def test_clearing_meets_the_error_that_it_clears(monkeypatch):
    """The call that fails is the one that takes the error with it."""
    asked = []

    def fails(*args, **how):
        asked.append(how["device"])
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(parking, "torch", SimpleNamespace(ones=fails))
    parking._clear_last_error()
    assert asked == ["cuda"]
