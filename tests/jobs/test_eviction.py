"""Who leaves first, and that no other order brings fewer bytes back."""

import random
from functools import cache

import pytest

from vram_supervisor.supervisor.jobs.eviction import (
    NEVER,
    Resident,
    Victim,
    leaving_order,
    needed_again_bytes,
    victims,
)

NOTHING_LEAVES = []


def whole(name, size, next_use=None):
    return Resident(name, size, next_use, divisible=False)


@pytest.mark.parametrize(
    ("sentence", "missing", "residents", "leave"),
    [
        ("nothing is missing", 0, [Resident("a", 10, 1)], NOTHING_LEAVES),
        ("what is needed last leaves first", 5, [Resident("a", 9, 1), Resident("b", 9, 7)], "b5"),
        (
            "only what is missing leaves of it",
            12,
            [Resident("a", 9, 1), Resident("b", 9, 7), Resident("c", 9, 3)],
            "b9 c3",
        ),
        (
            "what is never needed again goes before what nobody knows",
            9,
            [Resident("a", 9), Resident("b", 9, NEVER), Resident("c", 9, 400)],
            "b9",
        ),
        (
            "what nobody knows goes before what is known to be needed, however late",
            9,
            [Resident("a", 9, 400), Resident("b", 9)],
            "b9",
        ),
        (
            "what is needed now leaves last of all",
            20,
            [Resident("a", 9, 0), Resident("b", 9, 1), Resident("c", 9, 2)],
            "c9 b9 a2",
        ),
        (
            "of two that are never needed the one that suffices alone",
            10,
            [Resident("a", 4, NEVER), Resident("b", 11, NEVER)],
            "b10",
        ),
        (
            "of two indivisible ones the one with less to load again",
            4,
            [whole("a", 30, 5), whole("b", 6, 5)],
            "b6",
        ),
        (
            "where none suffices alone the larger begins",
            14,
            [Resident("a", 4, NEVER), Resident("b", 11, NEVER)],
            "b11 a3",
        ),
        (
            "of two alike the one loaded longest ago, which comes last",
            5,
            [Resident("a", 9, 5), Resident("b", 9, 5)],
            "b5",
        ),
        ("an indivisible one leaves whole", 1, [whole("a", 9, 5)], "a9"),
        ("what is not on the device cannot leave", 5, [Resident("a", 0, NEVER)], NOTHING_LEAVES),
        ("all of it is not enough", 50, [Resident("a", 9, 5), Resident("b", 9, 6)], "b9 a9"),
    ],
)
def test_who_leaves(sentence, missing, residents, leave):
    said = [f"{residents[v.index].name}{v.leaving_bytes}" for v in victims(residents, missing)]
    assert said == (leave if leave == NOTHING_LEAVES else leave.split()), sentence


def test_victims_are_told_by_their_place():
    assert victims([Resident("a", 3, 1), Resident("a", 3, 2)], 2) == (Victim(1, 2),)


@pytest.mark.parametrize(
    ("sentence", "residents", "order"),
    [
        ("nobody is there", [], ""),
        (
            "never, then unknown, then the farthest",
            [Resident("a", 9, 2), Resident("b", 9), Resident("c", 9, 7), Resident("d", 9, NEVER)],
            "dbca",
        ),
        (
            "of those alike the one loaded longest ago, whatever the sizes",
            [Resident("a", 9, NEVER), Resident("b", 1, NEVER), Resident("c", 0, 8)],
            "bac",
        ),
        ("what is needed now is the last", [Resident("a", 9, 0), Resident("b", 9, 1)], "ba"),
    ],
)
def test_who_is_the_first_to_leave(sentence, residents, order):
    assert "".join(residents[index].name for index in leaving_order(residents)) == order, sentence


def test_what_nobody_knows_counts_as_needed_again():
    residents = [Resident("a", 1), Resident("b", 2, NEVER), Resident("c", 4, 3)]
    assert needed_again_bytes(residents) == 5


def loaded_by(phases, sizes, card, next_use):
    """What the policy loads over a sequence of phases, each of which needs its model whole."""
    resident, total = dict.fromkeys(sizes, 0), 0
    for place, needed in enumerate(phases):
        total += sizes[needed] - resident[needed]
        resident[needed] = sizes[needed]
        others = [name for name in sizes if name != needed]
        told = [Resident(n, resident[n], next_use(phases[place + 1 :], n)) for n in others]
        for victim in victims(told, sum(resident.values()) - card):
            resident[others[victim.index]] -= victim.leaving_bytes
    return total


def next_use(coming, name):
    return coming.index(name) + 1 if name in coming else NEVER


def loaded_at_best(phases, sizes, card):
    """The least of all ways to keep and to let go, tried out unit by unit."""
    names = sorted(sizes)

    @cache
    def least(place, resident):
        if place == len(phases):
            return 0
        index = names.index(phases[place])
        cost = sizes[phases[place]] - resident[index]
        after = least_of(place + 1, index, kept_of(resident, index))
        return cost + after

    def kept_of(resident, index):
        return tuple(sizes[names[i]] if i == index else each for i, each in enumerate(resident))

    def least_of(place, running, resident):
        return min(least(place, kept) for kept in shrunk(resident, running) if sum(kept) <= card)

    def shrunk(resident, running, at=0):
        if at == len(resident):
            yield ()
            return
        choices = [resident[at]] if at == running else range(resident[at] + 1)
        for rest in shrunk(resident, running, at + 1):
            for here in choices:
                yield (here, *rest)

    return least(0, (0,) * len(names))


@pytest.mark.parametrize("seed", range(40))
def test_no_order_loads_fewer_bytes(seed):
    chance = random.Random(seed)
    sizes = {name: chance.randint(1, 4) for name in "abc"}
    card = chance.randint(max(sizes.values()), sum(sizes.values()))
    phases = "".join(chance.choice("abc") for _ in range(7))
    assert loaded_by(phases, sizes, card, next_use) == loaded_at_best(phases, sizes, card)


def test_letting_the_soonest_go_loads_more():
    sizes, card, phases = {"a": 3, "b": 3, "c": 1}, 5, "abcabcabc"
    best = loaded_by(phases, sizes, card, next_use)
    soonest_first = loaded_by(phases, sizes, card, lambda *asked: 9 - min(8, next_use(*asked)))
    assert best < soonest_first
