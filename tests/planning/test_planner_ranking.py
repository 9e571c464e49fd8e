"""Which of the plans that fit is best: times, evictions, rectangles, streams, batches."""

from dataclasses import dataclass, replace

import pytest
from support.plan_cases import (
    ABLE,
    AUTO,
    BY_AREA,
    BY_VOLUME,
    CLIP,
    HALO,
    PICTURE,
    SPEED,
    WHOLE,
    WIDE,
)

from vram_supervisor.supervisor.planning.cost import ScaledCost
from vram_supervisor.supervisor.planning.planner import (
    plan_decode,
    plan_table,
)
from vram_supervisor.supervisor.planning.tiling import tile_count
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room
from vram_supervisor.supervisor.units import GiB, MiB


def kinds(table):
    return [(plan.kind, plan.fits) for plan in table.plans]


@dataclass
class Ranking:
    sentence: str
    room: Room
    kinds: list
    shape: DecodeShape = PICTURE
    cost: object = BY_AREA
    request: PlanRequest = AUTO
    abilities: Abilities = ABLE


RANKINGS = [
    Ranking("whole wins, tiles and the CPU are listed behind it", Room(WHOLE),
            [("whole", True), ("tiled", True), ("cpu", False)]),
    Ranking("whole wins against evicting, which is then not even listed", Room(WHOLE, WHOLE),
            [("whole", True), ("tiled", True), ("cpu", False)]),
    Ranking("exact quality evicts rather than joins tiles", Room(WHOLE // 2, WHOLE),
            [("evict", True), ("tiled", True), ("cpu", False), ("whole", False)]),
    Ranking("fast quality joins tiles rather than evicts", Room(WHOLE // 2, WHOLE),
            [("tiled", True), ("evict", True), ("cpu", False), ("whole", False)],
            request=PlanRequest(quality="fast")),
    Ranking("unless tiling is not wished for", Room(WHOLE // 2, WHOLE),
            [("evict", True), ("tiled", True), ("cpu", False), ("whole", False)],
            request=PlanRequest(quality="fast", tile=False)),
    Ranking("what does not fit even after evicting is listed behind the CPU",
            Room(WHOLE // 2, WHOLE // 4),
            [("tiled", True), ("cpu", False), ("whole", False), ("evict", False)]),
    Ranking("when nothing fits the CPU comes first, if only by default", Room(0),
            [("cpu", False), ("tiled", False), ("whole", False)]),
    Ranking("the CPU fits where there is memory for float32", Room(0, 0, 0, 2 * WHOLE),
            [("cpu", True), ("tiled", False), ("whole", False)]),
    Ranking("and does not with one byte less", Room(0, 0, 0, 2 * WHOLE - 1),
            [("cpu", False), ("tiled", False), ("whole", False)]),
    Ranking("a CPU that fits never goes before tiles that fit", Room(64 * MiB, 0, 0, 9 * WHOLE),
            [("tiled", True), ("cpu", True), ("whole", False)]),
    Ranking("streaming goes before tiles that need more of them", Room(2 * WHOLE),
            [("streamed", True), ("tiled", True), ("cpu", False), ("whole", False)],
            shape=CLIP, cost=BY_VOLUME, abilities=HALO),
]  # fmt: skip


@pytest.mark.parametrize("row", RANKINGS, ids=lambda row: row.sentence)
def test_rankings(row):
    table = plan_table(row.shape, row.cost, row.room, row.request, row.abilities)
    assert kinds(table) == row.kinds
    assert table.chosen == 0
    assert table.best == plan_decode(row.shape, row.cost, row.room, row.request, row.abilities)
    assert all("\n" not in plan.reason and "iB" in plan.reason for plan in table.plans)


def test_only_what_is_missing_is_evicted():
    plan = plan_decode(PICTURE, BY_AREA, Room(WHOLE - 5 * MiB, WHOLE), AUTO)
    assert (plan.kind, plan.evict_bytes) == ("evict", 5 * MiB)
    assert "5.0 MiB" in plan.reason


def test_tiles_that_fit_only_after_evicting_say_how_much():
    plan = plan_decode(PICTURE, BY_AREA, Room(10 * MiB, 60 * MiB), AUTO)
    assert (plan.kind, plan.tile_size, plan.evict_bytes) == ("tiled", 64, 54 * MiB)
    assert any("evicted first" in warning for warning in plan.warnings)


@pytest.mark.parametrize(
    ("sentence", "evictable", "next_use", "kind"),
    [
        ("models nobody needs again are evicted", 4 * GiB, 0, "evict"),
        ("models the queue needs next stay where exact tiles cost less", 4 * GiB, 4 * GiB, "tiled"),
        ("what is not needed next goes first", 16 * GiB, 4 * GiB, "evict"),
    ],
)
def test_the_queues_next_models_count(sentence, evictable, next_use, kind):
    # 16 megapixels; tiles decode 4.2 s more; evicting takes 3 s, loading again 3 s.
    shape = DecodeShape(1, 4, None, 512, 512, 8, 1)
    cost = ScaledCost(lambda _b, _t, h, w: h * w * 24 * 1024)
    room = Room(3 * GiB, evictable, next_use)
    abilities = replace(HALO, least_overlap_px=512)
    assert plan_decode(shape, cost, room, AUTO, abilities, times=SPEED).kind == kind


@pytest.mark.parametrize("upright", [False, True])
def test_rectangles_decode_less_than_squares_would(upright):
    shape = replace(WIDE, height=160, width=90) if upright else WIDE
    room = Room(4000 * MiB)
    squares = replace(HALO, square_tiles=True)
    square = plan_decode(shape, BY_AREA, room, AUTO, squares, times=SPEED)
    rectangle = plan_decode(shape, BY_AREA, room, AUTO, HALO, times=SPEED)
    assert (square.tile_width, square.tile_height) == (None, None)
    assert (square.tiles, rectangle.tiles) == (8, 5)
    assert rectangle.predicted_seconds < square.predicted_seconds
    assert rectangle.predicted_peak_bytes <= room.budget_bytes
    across = rectangle.tile_width if upright else rectangle.tile_height
    assert across == 90 * 8  # all of the shorter side: no cut along it
    assert rectangle.tile_size == max(rectangle.tile_width, rectangle.tile_height)


def test_the_tiles_of_a_rectangular_plan_are_as_even_as_can_be():
    plan = plan_decode(WIDE, BY_AREA, Room(4000 * MiB), AUTO, HALO)
    narrower = plan.tile_width - 8
    assert tile_count(1280, plan.tile_width, plan.overlap) == plan.tiles
    assert tile_count(1280, narrower, plan.overlap) > plan.tiles


def test_three_passes_need_what_the_hungriest_of_them_needs():
    # 90 x 160 latents. Tiles of 92: the pass in 184 x 46 is clipped to 90 x 46, the one in
    # 46 x 184 to 46 x 160, the one in 92 x 92 to 90 x 92.
    asked = []
    cost = ScaledCost(lambda _b, _t, h, w: asked.append((h, w)) or h * w * MiB)
    request = PlanRequest(manual=True, tile_size=92 * 8)
    plan = plan_decode(WIDE, cost, Room(1 << 50), request, replace(ABLE, passes=3))
    assert set(asked) == {(90, 92), (90, 46), (46, 160)}
    assert plan.predicted_peak_bytes == 90 * 92 * MiB
    assert plan.tiles == 2 + 3 + 4


def test_the_passes_of_a_wide_picture_can_need_more_than_its_square_tiles():
    shape = DecodeShape(1, 4, None, 40, 400, 8, 1)
    request = PlanRequest(manual=True, tile_size=64 * 8)
    once = plan_decode(shape, BY_AREA, Room(1 << 50), request, ABLE)
    thrice = plan_decode(shape, BY_AREA, Room(1 << 50), request, replace(ABLE, passes=3))
    assert once.predicted_peak_bytes == 40 * 64 * MiB
    assert thrice.predicted_peak_bytes == 32 * 128 * MiB


def test_a_streamed_clip_is_planned_with_the_streams_own_cost():
    stream = ScaledCost(lambda _b, _t, h, w: 2 * h * w * MiB)
    plan = plan_decode(CLIP, BY_VOLUME, Room(2 * WHOLE), AUTO, HALO, streamed_cost=stream)
    assert (plan.kind, plan.tiles) == ("streamed", 1)
    assert plan.predicted_peak_bytes == 2 * WHOLE
    less = plan_decode(CLIP, BY_VOLUME, Room(2 * WHOLE - 1), AUTO, HALO, streamed_cost=stream)
    assert less.kind == "streamed"
    assert less.tiles > 1
    assert less.predicted_peak_bytes < 2 * WHOLE


def test_pictures_are_never_streamed():
    table = plan_table(PICTURE, BY_AREA, Room(WHOLE // 2), AUTO, HALO)
    assert "streamed" not in {plan.kind for plan in table.plans}


@pytest.mark.parametrize(
    ("sentence", "budget", "kind", "batch"),
    [
        ("all items at once where they fit", 7 * WHOLE, "whole", 7),
        ("else as many as fit, evened out", 6 * WHOLE, "whole", 4),
        ("one by one", WHOLE, "whole", 1),
        ("and cut only where one does not fit", WHOLE - 1, "tiled", 1),
    ],
)
def test_batches(sentence, budget, kind, batch):
    plan = plan_decode(replace(PICTURE, batch=7), BY_AREA, Room(budget), AUTO)
    assert (plan.kind, plan.batch) == (kind, batch)
    assert plan.predicted_peak_bytes <= budget
    if kind == "whole":
        assert plan.tiles == -(-7 // batch)


def test_an_executor_that_takes_batches_only_whole_is_not_asked_for_parts():
    plan = plan_decode(
        replace(PICTURE, batch=7), BY_AREA, Room(6 * WHOLE), AUTO, replace(ABLE, batches=False)
    )
    assert (plan.kind, plan.batch) == ("tiled", 7)


def test_predicted_seconds_count_every_decoded_pixel():
    whole = plan_decode(PICTURE, BY_AREA, Room(WHOLE), AUTO, times=SPEED)
    assert whole.predicted_seconds == pytest.approx(512 * 512 * 1e-6, abs=1e-3)
    tiled = plan_decode(PICTURE, BY_AREA, Room(WHOLE - 1), AUTO, times=SPEED)
    assert tiled.overlap == 64
    assert tiled.predicted_seconds == pytest.approx(576 * 576 * 1e-6, abs=1e-3)


def test_predicted_seconds_count_eviction_and_reload():
    plain = plan_decode(PICTURE, BY_AREA, Room(WHOLE), AUTO, times=SPEED).predicted_seconds
    room = Room(WHOLE - GiB, 2 * GiB, int(1.5 * GiB))
    plan = plan_decode(PICTURE, BY_AREA, room, AUTO, times=SPEED)
    assert plan.kind == "evict"
    assert plan.predicted_seconds == pytest.approx(plain + 1.0 + 0.5, abs=2e-3)


def test_predicted_seconds_count_what_exact_tiles_park_on_the_host():
    parking = replace(HALO, moved_bytes_per_pixel=GiB / 512**2)
    plan = plan_decode(PICTURE, BY_AREA, Room(WHOLE - 1), AUTO, parking, times=SPEED)
    other = plan_decode(PICTURE, BY_AREA, Room(WHOLE - 1), AUTO, HALO, times=SPEED)
    assert plan.predicted_seconds > other.predicted_seconds + 1.0


def test_without_times_nothing_is_predicted_but_all_is_ranked():
    table = plan_table(CLIP, BY_VOLUME, Room(WHOLE), AUTO, HALO)
    assert {plan.predicted_seconds for plan in table.plans} == {None}
    timed = plan_table(CLIP, BY_VOLUME, Room(WHOLE), AUTO, HALO, times=SPEED)
    assert all(plan.predicted_seconds > 0 for plan in timed.plans)
