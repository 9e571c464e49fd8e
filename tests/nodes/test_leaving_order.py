"""Streamed models are listed by next use, and nothing leaves by that."""

import pytest

torch = pytest.importorskip("torch")

from support.card_world import GPU, Card, Pages, Patcher, uses_of  # noqa: E402

from vram_supervisor.nodes.host.leaving_order import leave_in_order  # noqa: E402
from vram_supervisor.supervisor.jobs.eviction import NEVER  # noqa: E402
from vram_supervisor.supervisor.units import MiB  # noqa: E402

SMALL_BYTES = MiB // 64
"""Of weights too small to be streamed: they lie there as a whole."""


def streamed(name, order, in_pages=100 * MiB):
    patcher = Patcher(name, in_pages + SMALL_BYTES, dynamic=True)
    patcher.model.dynamic_vbars = {GPU: Pages(name, order, in_pages)}
    return patcher


def listed(card, *keep, **next_uses):
    return leave_in_order(card.memory, uses_of(**next_uses), GPU, keep)


def test_what_is_needed_last_is_the_first_to_leave():
    order = []
    models = [streamed(name, order) for name in ("Done", "Soon", "Late", "Unknown")]
    before = [each.loaded for each in models]
    names = ("Done", "Unknown", "Late", "Soon")
    assert listed(Card(1000 * MiB, *models), Done=NEVER, Soon=1, Late=9) == names
    assert order == list(names)
    assert [each.loaded for each in models] == before


def test_those_to_keep_come_after_all_others():
    order = []
    mine, other = streamed("Mine", order), streamed("Other", order)
    assert listed(Card(1000 * MiB, mine, other), mine, Mine=NEVER, Other=1) == ("Other",)
    assert order == ["Other", "Mine"]


def test_the_order_of_the_host_stays_where_of_none_the_next_use_is_known():
    order = []
    card = Card(1000 * MiB, streamed("A", order), streamed("B", order))
    assert listed(card) == ()
    assert order == ["A", "B"]


def test_of_two_needed_alike_the_one_loaded_longest_ago_leaves_first():
    """The host lists the most recently loaded first. Who runs a workflow again with another seed
    needs the last one, the diffusion model; the text encoder's results are cached."""
    order = []
    models = [streamed(name, order) for name in ("Unet", "Clip")]
    assert listed(Card(1000 * MiB, *models), Unet=NEVER, Clip=NEVER) == ("Clip", "Unet")


def test_one_without_pages_is_listed_but_not_told():
    order = []
    models = streamed("Here", order), streamed("Empty", order, in_pages=0)
    assert listed(Card(1000 * MiB, *models), Here=1, Empty=5) == ("Here",)
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
    assert listed(Card(1000 * MiB, other, streamed("A", order)), Other=9, A=1) == ("A",), sentence
