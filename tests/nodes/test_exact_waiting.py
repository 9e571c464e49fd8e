"""System memory that results of exact parts wait in, from one decode to the next."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.exact_decode import clips  # noqa: E402
from support.exact_world import Network, decoded, least  # noqa: E402
from support.toy_decoders import chunks_of, noise, relative  # noqa: E402

from vram_supervisor.nodes.host import runtime  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest, Room  # noqa: E402


@pytest.fixture
def waits(monkeypatch):
    """A clip, normed frame by frame, whose results wait in system memory in small budgets."""
    return clips(
        monkeypatch,
        Network(),
        noise(1, 4, 9, 20, 16),
        program=lambda net: net.program(chunks_of(1, 2)),
    )


def fits(way, budget, host_bytes):
    plan = way.plan(Room(budget, host_bytes=host_bytes), PlanRequest(), None)
    return plan if plan is not None and plan.fits else None


def least_host_bytes(way, budget):
    """The least free system memory with which there is a plan, to 1 %."""
    low, high = 1 << 10, 1 << 40
    while high > low * 1.01:
        middle = int((low * high) ** 0.5)
        low, high = (low, middle) if fits(way, budget, middle) else (middle, high)
    return high


@pytest.mark.parametrize("share", [1, 1.5, 2])
def test_pages_that_a_decode_left_count_as_free_for_the_next_one(waits, share):
    way = waits.way()
    budget = int(share * least(way, waits))
    host_bytes = least_host_bytes(way, budget)
    first = fits(way, budget, host_bytes)
    assert "waiting in system memory" in first.reason
    assert relative(decoded(way, first), waits.wanted()) < 1e-6
    held = waits.pages.idle_bytes
    assert held > 0
    assert waits.pages.taken == 0
    again = waits.way()
    second = fits(again, budget, host_bytes - held)
    assert second is not None, "what is kept for it is not missing"
    assert relative(decoded(again, second), waits.wanted()) < 1e-6
    assert waits.pages.held_bytes == held, "the same pages served"


def test_pages_that_somebody_uses_are_not_free(waits):
    way = waits.way()
    budget = int(1.5 * least(way, waits))
    host_bytes = least_host_bytes(way, budget)
    decoded(way, fits(way, budget, host_bytes))
    held = waits.pages.idle_bytes
    waits.pages.take_for(held)
    assert fits(waits.way(), budget, host_bytes - held) is None


def test_system_memory_that_rules_parts_out_is_told_once(waits):
    way = waits.way()
    for _ in range(2):
        assert fits(way, least(way, waits), 0) is None
    told = [note for note in way.notes if "of system memory" in note]
    assert len(told) == 1
    assert "close other programs" in told[0]


@pytest.mark.parametrize("host_bytes", [None, 1 << 40], ids=["unknown", "plenty"])
def test_where_system_memory_suffices_nothing_is_told(waits, host_bytes):
    way = waits.way()
    assert fits(way, least(way, waits), host_bytes)
    assert not fits(way, 1000, host_bytes)
    assert not any("system memory" in note for note in way.notes)


@pytest.mark.parametrize(
    ("sentence", "works", "rests"), [("a job waits", True, 0), ("nothing is to be done", False, 1)]
)
def test_what_nobody_uses_goes_back_while_the_queue_is_empty(monkeypatch, sentence, works, rests):
    called, rested = [], []
    look = SimpleNamespace(look=lambda: called.append("look"))
    monkeypatch.setattr(runtime, "has_work", lambda queue: works)
    exacts = SimpleNamespace(pages=SimpleNamespace(rest=lambda: rested.append(1)))
    built = SimpleNamespace(
        reserves=look,
        spill=look,
        forecaster=SimpleNamespace(exacts=exacts),
        tell_state=lambda: called.append("tell"),
    )
    runtime._after_sample(built, SimpleNamespace(poll=lambda: called.append("poll")), None)
    assert called == ["poll", "look", "look", "tell"]
    assert len(rested) == rests, sentence
