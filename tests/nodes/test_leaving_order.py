"""Streamed models are listed by next use, and nothing leaves by that."""

import pytest

torch = pytest.importorskip("torch")

from support.card_world import GPU, Card, Pages, Patcher, uses_of  # noqa: E402

from vram_supervisor.supervisor.jobs.eviction import NEVER  # noqa: E402
from vram_supervisor.supervisor.units import MiB  # noqa: E402


def streamed(name, order, loaded=100 * MiB):
    patcher = Patcher(name, loaded, dynamic=True)
    patcher.model.dynamic_vbars = {GPU: Pages(name, order)}
    return patcher


def test_what_is_needed_last_is_the_first_to_leave():
    order = []
    models = [streamed(name, order) for name in ("Done", "Soon", "Late", "Unknown")]
    card = Card(1000 * MiB, *models, uses=uses_of(Done=NEVER, Soon=1, Late=9))
    assert card.memory.leave_in_order(GPU) == ("Done", "Unknown", "Late", "Soon")
    assert order == ["Done", "Unknown", "Late", "Soon"]
    assert [each.loaded for each in models] == [100 * MiB] * 4


def test_those_to_keep_come_after_all_others():
    order = []
    mine, other = streamed("Mine", order), streamed("Other", order)
    card = Card(1000 * MiB, mine, other, uses=uses_of(Mine=NEVER, Other=1))
    assert card.memory.leave_in_order(GPU, mine) == ("Other",)
    assert order == ["Other", "Mine"]


def test_the_order_of_the_host_stays_where_nobody_knows_the_queue():
    order = []
    card = Card(1000 * MiB, streamed("A", order), streamed("B", order))
    assert card.memory.leave_in_order(GPU) == ()
    assert order == ["A", "B"]


def test_one_without_pages_is_listed_but_not_told():
    order = []
    models = streamed("Here", order), streamed("Empty", order, loaded=0)
    card = Card(1000 * MiB, *models, uses=uses_of(Here=1, Empty=5))
    assert card.memory.leave_in_order(GPU) == ("Here",)
    assert order == ["Empty", "Here"]


@pytest.mark.parametrize(
    ("sentence", "dynamic", "pages"),
    [
        ("not streamed", False, None),
        ("never on a device", True, {}),
        ("a comfy-aimdo without the list", True, {GPU: object()}),
    ],
)
def test_others_are_left_alone(sentence, dynamic, pages):
    order = []
    other = Patcher("Other", 100 * MiB, dynamic=dynamic)
    if pages is not None:
        other.model.dynamic_vbars = pages
    card = Card(1000 * MiB, other, streamed("A", order), uses=uses_of(Other=9, A=1))
    assert card.memory.leave_in_order(GPU) == ("A",), sentence
