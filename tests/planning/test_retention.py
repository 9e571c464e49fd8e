"""Which measurements are kept. Rows are sentences."""

import pytest
from support.bounds import image

from vram_supervisor.supervisor.planning.retention import retained

RETAINED = [
    ("few are all kept", [("a", 1.1), ("a", 1.2)], 5, ["a1.1", "a1.2"]),
    ("repeats go before shapes", [("a", 1.2), ("b", 1.1), ("b", 1.1), ("b", 1.1)], 2,
     ["a1.2", "b1.1"]),
    ("the largest of a shape stays", [("a", 1.3), ("b", 1.1), ("b", 1.2), ("b", 1.1)], 2,
     ["a1.3", "b1.2"]),
    ("the largest ratio stays even of the oldest shape",
     [("a", 1.9), ("b", 1.1), ("c", 1.1), ("d", 1.1)], 2, ["a1.9", "d1.1"]),
    ("older shapes go before newer ones", [("a", 1.1), ("b", 1.1), ("c", 1.2)], 2,
     ["b1.1", "c1.2"]),
    ("newer repeats stay", [("a", 1.2), ("a", 1.1), ("a", 1.0)], 2, ["a1.2", "a1.0"]),
    ("the largest failed allocation stays", [("a", -2.0), ("b", -1.0), ("b", 1.1), ("c", 1.1)], 2,
     ["a-2.0", "c1.1"]),
    ("a wrong reading is not the largest", [("a", 99.0), ("b", 1.2), ("b", 1.1)], 1, ["b1.2"]),
    ("none at all", [("a", 1.0)], 0, []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "limit", "kept"), [row[1:] for row in RETAINED], ids=[row[0] for row in RETAINED]
)
def test_what_is_kept(known, limit, kept):
    """A negative ratio stands for a failed allocation."""
    edges = {"a": 10, "b": 20, "c": 30, "d": 40}
    names = {}
    for time_s, (name, ratio) in enumerate(known):
        each = image(edges[name], 1_000_000, abs(ratio), failed=ratio < 0, time_s=time_s + 1)
        names[each] = f"{name}{ratio}"
    assert [names[each] for each in retained(list(names), limit)] == kept
