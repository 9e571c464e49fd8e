"""LTX: how often its layers are called, and where that cuts time."""

from __future__ import annotations

import pytest

from vram_supervisor.supervisor.decode.families._ltx_noise import Block, Draw, Size, calls_of


def block(*steps, draws=(), owes=0, doubles=False, channels=1, grows=1, scale=1):
    return Block(steps, frozenset(draws), owes, doubles, channels, scale, grows)


CALLS = {
    "one block draws twice in its one call": (
        [block(1, draws=[1])],
        Size(3, 1, 1, 1, None),
        [(1, 0, 0), (1, 0, 1)],
        {1: [3]},
    ),
    "a block after one whose result is cut in two is called twice": (
        [block(0), block(1, draws=[1])],
        Size(3, 1, 1, 1, 2),
        [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)],
        {1: [2, 3]},
    ),
    "the second block's calls come before the first one's next": (
        [block(0), block(1, draws=[1]), block(2, draws=[2])],
        Size(2, 1, 1, 1, 1),
        [(1, 0, 0), (1, 0, 1), (2, 0, 0), (2, 0, 1), (1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 1, 1)],
        {1: [1, 2], 2: [1, 2]},
    ),
    "layers that look ahead hold back frames from those after them": (
        [block(0), block(1, 2, draws=[2], owes=2)],
        Size(6, 1, 1, 1, 3),
        [(2, 0, 0), (2, 0, 1), (2, 1, 0), (2, 1, 1)],
        {2: [1, 4]},
    ),
    "nothing is called with what a block holds back": (
        [block(0), block(1, owes=2), block(2, draws=[2])],
        Size(4, 1, 1, 1, 2),
        [(2, 0, 0), (2, 0, 1), (2, 1, 0), (2, 1, 1)],
        {2: [2, 4]},
    ),
    "frames that double fill two calls": (
        [block(0, doubles=True, channels=1), block(1, draws=[1])],
        Size(2, 1, 1, 1, 2),
        [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)],
        {1: [2, 3]},
    ),
    "larger pictures are cut finer": (
        [block(0, grows=2), block(1, draws=[1], scale=2)],
        Size(2, 1, 1, 1, 4),
        [(1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)],
        {1: [1, 2]},
    ),
}


@pytest.mark.parametrize(("blocks", "size", "draws", "cuts"), CALLS.values(), ids=CALLS)
def test_calls_are_gone_through_by_number(blocks, size, draws, cuts):
    found, found_cuts = calls_of(blocks, size)
    scales = {step: each.scale for each in blocks for step in each.steps}
    assert found == [Draw(step, call, turn, scales[step]) for step, call, turn in draws]
    assert found_cuts == cuts
