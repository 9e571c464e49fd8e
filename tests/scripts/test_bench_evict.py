"""``bench.py evict``: the best order worked out offline really is the best, and how rows count."""

import math
import random
from functools import cache
from itertools import product

import pytest
from _bench_evict_best import Phase, least_reloaded_bytes

torch = pytest.importorskip("torch")

from _bench_evict import ratio, reloaded_bytes  # noqa: E402
from _bench_evict_host import workflow  # noqa: E402


def least_of_all(phases, sizes, card, margin):
    """Every way to keep and to let go, tried out unit by unit."""
    names = sorted(sizes)

    @cache
    def least(place, resident):
        if place == len(phases):
            return 0
        phase = phases[place]
        mine = names.index(phase.model)
        missing = sizes[phase.model] - resident[mine]
        first = phase.model not in {each.model for each in phases[:place]}
        wanted = math.ceil(missing * margin) + phase.room_bytes
        found = []
        for kept in product(*(range(each + 1) for each in resident)):
            everything_left = sum(kept) == kept[mine]
            fits = card - sum(kept) >= wanted or everything_left
            if kept[mine] == resident[mine] and fits:
                after = tuple(
                    sizes[phase.model] if i == mine else each for i, each in enumerate(kept)
                )
                found.append((0 if first else missing) + least(place + 1, after))
        return min(found)

    return least(0, (0,) * len(names))


@pytest.mark.parametrize("margin", [1.0, 1.1, 1.5])
@pytest.mark.parametrize("seed", range(12))
def test_no_order_loads_fewer_bytes(seed, margin):
    chance = random.Random(seed)
    sizes = {name: chance.randint(1, 4) for name in "abc"}
    room = chance.randint(0, 2)
    card = room + chance.randint(max(sizes.values()), sum(sizes.values()))
    phases = [Phase(chance.choice("abc"), room) for _ in range(6)]
    best = least_reloaded_bytes(phases, sizes, card, margin)
    assert best == least_of_all(phases, sizes, card, margin)


def test_what_does_not_fit_at_all_has_no_best_order():
    assert least_reloaded_bytes([Phase("a", 3)], {"a": 8}, 10) is None


def test_only_later_runs_count_as_loaded_again():
    assert reloaded_bytes([("a", 5), ("b", 7), ("a", 2), ("b", 0), ("a", 1)]) == 3


def test_nothing_is_compared_with_nothing():
    assert [ratio(5, 10), ratio(5, 0), ratio(5, None)] == [0.5, None, None]


@pytest.mark.parametrize(("cleanup", "widget"), [("none", None), ("all", True), ("queue", False)])
def test_a_prompt_cleans_up_before_each_phase_as_asked(cleanup, widget):
    nodes = workflow(("A", "VAE"), {"A": 3, "VAE": 1}, 7, cleanup=cleanup)
    cleanups = [each for each in nodes.values() if each["class_type"] == "IAMCCS_VRAMCleanup"]
    widgets = {each["inputs"]["unload_all_models"] for each in cleanups}
    assert widgets == (set() if widget is None else {widget})
    assert len(cleanups) == (0 if widget is None else 2)
    assert nodes["end"]["inputs"]["latent"] == ["run 1", 0]
