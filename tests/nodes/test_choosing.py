"""A plan is asked about closely before it is followed."""

from vram_supervisor.nodes.choosing import ATTEMPTS, choose
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room

SHAPE = DecodeShape(1, 4, None, 128, 128, 8, 1)
MiB = 1 << 20
ABLE = Abilities.of_host(video=False)


class Estimated:
    """Says 64 bytes for each pixel until it was asked closely: then the truth, a multiple."""

    def __init__(self, truth=1.0):
        self.truth, self.known = truth, {}
        self.asked = []

    def need_bytes(self, batch, frames, height, width):
        area = height * width
        factor = self.truth if area in self.known else 1.0
        return int(batch * area * 64 * 64 * factor)

    def exact(self, plan):
        edge = 128 if plan.tile_size is None else plan.tile_size // 8
        self.asked.append(plan.tile_size)
        self.known[edge * edge] = True
        return self.need_bytes(1, None, edge, edge)


def chosen(cost, free, **request):
    return choose(
        SHAPE, cost, Room(free), PlanRequest(**request), ABLE, exact_need=cost.exact
    )  # fmt: skip


def test_a_plan_that_closely_asked_fits_is_followed_with_that_figure():
    cost = Estimated(truth=1.2)
    table = chosen(cost, 100 * MiB)
    assert table.best.kind == "whole"
    assert table.best.predicted_peak_bytes == int(64 * MiB * 1.2)
    assert cost.asked == [None]


def test_a_plan_that_closely_asked_does_not_fit_is_planned_again():
    cost = Estimated(truth=1.2)
    table = chosen(cost, 70 * MiB)
    assert cost.asked[0] is None
    assert table.best.kind == "tiled"
    assert table.best.predicted_peak_bytes <= 70 * MiB
    assert any(plan.kind == "whole" and not plan.fits for plan in table.plans)


def test_it_is_planned_again_three_times_at_most():
    class Growing(Estimated):
        def exact(self, plan):
            self.asked.append(plan.tile_size)
            return 1 << 40

    cost = Growing()
    table = chosen(cost, 70 * MiB)
    assert len(cost.asked) == ATTEMPTS == 4
    assert table.best.predicted_peak_bytes == 1 << 40, "the truth is told, fitting or not"
    assert not table.best.fits


def test_sizes_given_by_hand_are_kept_whatever_they_need():
    cost = Estimated(truth=3)
    table = chosen(cost, 4 * MiB, manual=True, tile_size=256)
    assert table.best.tile_size == 256
    assert len(cost.asked) == 1
    assert not table.best.fits


def test_a_whole_decode_that_closely_asked_needs_an_eviction_says_so():
    cost = Estimated(truth=1.2)
    room = Room(70 * MiB, evictable_bytes=50 * MiB)
    best = choose(SHAPE, cost, room, PlanRequest(), ABLE, exact_need=cost.exact).best
    assert (best.kind, best.fits) == ("evict", True)
    assert best.evict_bytes == int(64 * MiB * 1.2) - 70 * MiB
    assert "asked closely" in best.reason


def test_where_nothing_fits_nothing_is_asked():
    cost = Estimated()
    assert chosen(cost, 1).best.kind == "cpu"
    assert cost.asked == []
