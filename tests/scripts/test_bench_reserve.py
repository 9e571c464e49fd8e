"""``bench.py reserve``: what its rows say, and the other program it runs."""

import pytest

torch = pytest.importorskip("torch")

from _bench_reserve import GIB, HEADINGS, changes, row  # noqa: E402
from _bench_reserve_host import MEMORY, Course, workflow  # noqa: E402
from _bench_reserve_neighbour import Neighbour, NeighbourFailedError  # noqa: E402

MIB = 1 << 20


def test_figures_over_time_show_once_until_they_change():
    assert changes([GIB, GIB, 2 * GIB, 2 * GIB, GIB]) == "1.00 -> 2.00 -> 1.00"
    assert changes([None, None]) == changes([]) == "-"


@pytest.mark.parametrize(("step", "said"), [(None, "no"), (3, "at step 4")])
def test_a_row_has_a_cell_for_every_heading(step, said):
    course = Course(GIB, step, [3 * GIB, 5 * GIB], [{MEMORY[0]: GIB}, {MEMORY[0]: 2 * GIB}])
    cells = row(("off", "adaptive"), course, (GIB, 2 * GIB), 0, 1.25)
    assert len(cells) == len(HEADINGS)
    assert list(cells[2:]) == [said, "1.00", "1.00", "5.00", "2.00", "1.00 -> 2.00", "-", "1.2"]


def test_the_ballast_is_no_part_of_the_headroom_that_is_shown():
    course = Course(GIB, None, [], [{MEMORY[1]: GIB // 4}, {MEMORY[1]: 132 * GIB}])
    cells = row(("on", "adaptive"), course, (GIB, GIB), 128 * GIB, 1.0)
    assert cells[HEADINGS.index("headroom over time GiB")] == "0.25 -> 4.00"


def test_without_a_reserve_the_prompt_asks_for_none():
    asks = {
        way: workflow(3, 1, reserve=way)["support"]["inputs"]
        for way in ("off", "adaptive", "auto_used_plus")
    }
    assert [each["apply_reserved_vram"] for each in asks.values()] == [False, True, True]
    assert asks["adaptive"]["reserved_vram_mode"] == "adaptive"


def test_the_other_program_grows_shrinks_and_ends():
    neighbour = Neighbour(cpu=True)
    assert neighbour.hold(8 * MIB) == 8 * MIB
    assert neighbour.hold(20 * MIB + 5, 1.0) == 20 * MIB + 5
    assert neighbour.hold(0) == 0
    neighbour.end()


def test_another_program_that_died_is_told_of():
    neighbour = Neighbour(cpu=True)
    neighbour.process.kill()
    neighbour.process.wait()
    with pytest.raises(NeighbourFailedError, match="it ended"):
        neighbour.hold(MIB)
