import math
import random
from dataclasses import dataclass, replace

import pytest

from vram_supervisor.supervisor.errors import LatentNotDecodableError, MemoryFigureUnusableError
from vram_supervisor.supervisor.planning.cost import ScaledCost
from vram_supervisor.supervisor.planning.planner import (
    grows_with_time,
    plan_decode,
    plan_table,
    shrink,
    smallest_need_bytes,
)
from vram_supervisor.supervisor.planning.tiling import tile_count
from vram_supervisor.supervisor.planning.time_model import TimeModel
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room
from vram_supervisor.supervisor.units import GiB, MiB

# One latent costs 1 MiB a frame where time counts, 1 MiB in all where it does not.
BY_AREA = ScaledCost(lambda b, _t, h, w: b * h * w * MiB)
BY_VOLUME = ScaledCost(lambda b, t, h, w: b * (t or 1) * h * w * MiB)
PICTURE = DecodeShape(1, 4, None, 64, 64, 8, 1)
WIDE = DecodeShape(1, 16, None, 90, 160, 8, 1)
CLIP = DecodeShape(1, 16, 21, 64, 64, 8, 4)
WHOLE = 64 * 64 * MiB


AUTO = PlanRequest()
ABLE = Abilities()


@dataclass
class Row:
    sentence: str
    shape: DecodeShape
    cost: object
    budget: int
    kind: str
    evictable: int = 0
    tile_size: int | None = None
    temporal_size: int | None = None
    fits: bool = True
    request: PlanRequest = AUTO
    abilities: Abilities = ABLE


TABLE = [
    Row("what fits is decoded whole", PICTURE, BY_AREA, WHOLE, "whole"),
    Row("it fits to the byte", PICTURE, BY_AREA, WHOLE - 1, "tiled", tile_size=288),
    Row("evicting comes before tiling", PICTURE, BY_AREA, WHOLE // 2, "evict", evictable=WHOLE),
    Row(
        "nothing is evicted when even that would not do",
        PICTURE, BY_AREA, WHOLE // 2, "tiled", evictable=WHOLE // 4, tile_size=288,
    ),
    Row(
        "with no room at all, tiles wait for the eviction",
        PICTURE, BY_AREA, 0, "tiled", evictable=WHOLE // 2, tile_size=288,
    ),
    Row("tiles get as large as fits, then even", PICTURE, BY_AREA, 700 * MiB, "tiled",
        tile_size=192),
    Row("not even the smallest tile fits", PICTURE, BY_AREA, 63 * MiB, "cpu", fits=False),
    Row("the smallest tile is 64 pixels", PICTURE, BY_AREA, 64 * MiB, "tiled", tile_size=64),
    Row(
        "a clip whose memory ignores time is never cut through time",
        CLIP, BY_AREA, WHOLE // 2, "tiled", tile_size=288,
    ),
    Row(
        "a clip whose memory grows keeps all frames while tiles stay comfortable",
        CLIP, BY_VOLUME, 21 * 40 * 40 * MiB, "tiled", tile_size=288,
    ),
    Row(
        "then it is cut through time rather than smaller",
        CLIP, BY_VOLUME, 11 * 40 * 40 * MiB, "tiled", tile_size=288, temporal_size=44,
    ),
    Row(
        "an executor that cannot cut time gets small tiles instead",
        CLIP, BY_VOLUME, 21 * 16 * 16 * MiB, "tiled", tile_size=128,
        abilities=replace(ABLE, carves_time=False),
    ),
    Row(
        "with too little for comfort it ends at small tiles and short chunks",
        CLIP, BY_VOLUME, 2 * 8 * 8 * MiB, "tiled", tile_size=64, temporal_size=8,
    ),
    Row("manual sizes are used as given", PICTURE, BY_AREA, WHOLE, "tiled", tile_size=128,
        request=PlanRequest(manual=True, tile_size=128)),
    Row("manual sizes that do not fit are used too, and said not to fit",
        PICTURE, BY_AREA, 64 * MiB, "tiled", tile_size=256, fits=False,
        request=PlanRequest(manual=True, tile_size=256)),
    Row("a manual tile larger than the picture is the whole picture",
        PICTURE, BY_AREA, WHOLE, "whole", request=PlanRequest(manual=True, tile_size=1024)),
    Row("manual chunks of time are used as given", CLIP, BY_VOLUME, WHOLE * 21, "tiled",
        tile_size=1024, temporal_size=40,
        request=PlanRequest(manual=True, tile_size=1024, temporal_size=40)),
    Row("manual without tiling decodes whole", PICTURE, BY_AREA, WHOLE, "whole",
        request=PlanRequest(tile=False, manual=True, tile_size=128)),
    Row("a wish not to tile yields to running out of memory",
        PICTURE, BY_AREA, WHOLE - 1, "tiled", tile_size=288, request=PlanRequest(tile=False)),
]  # fmt: skip


def plan_row(row):
    return plan_decode(
        row.shape,
        row.cost,
        Room(row.budget, row.evictable),
        row.request,
        row.abilities,
    )


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_plans(row):
    plan = plan_row(row)
    assert (plan.kind, plan.tile_size, plan.temporal_size, plan.fits) == (
        row.kind,
        row.tile_size,
        row.temporal_size,
        row.fits,
    )
    if row.fits:
        assert plan.predicted_peak_bytes <= row.budget + row.evictable


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.sentence)
def test_the_reason_is_one_line_with_readable_sizes(row):
    reason = plan_row(row).reason
    assert "\n" not in reason
    assert "iB" in reason


def test_the_tiles_are_counted_as_core_will_make_them():
    plan = plan_decode(WIDE, BY_AREA, Room(3000 * MiB), PlanRequest())
    count = tile_count(720, plan.tile_size, plan.overlap)
    assert plan.tiles == count * tile_count(1280, plan.tile_size, plan.overlap)


def test_an_overlap_never_takes_more_than_a_quarter_of_a_tile():
    plan = plan_decode(PICTURE, BY_AREA, Room(64 * MiB), PlanRequest(overlap=64))
    assert plan.overlap == plan.tile_size // 4


def test_an_executors_halo_is_kept_however_small_the_tile():
    plan = plan_decode(
        PICTURE,
        BY_AREA,
        Room(300 * MiB),
        PlanRequest(overlap=0),
        replace(ABLE, least_overlap_px=80),
    )
    assert plan.overlap == 80
    assert plan.tile_size > 80


def test_tiles_of_a_coarse_vae_are_whole_latents():
    shape = replace(WIDE, height=23, width=40, spatial_scale=48)
    plan = plan_decode(shape, BY_AREA, Room(300 * MiB), PlanRequest())
    assert plan.tile_size % 48 == 0
    assert plan.overlap % 48 == 0


def test_the_planner_says_that_it_tiled_against_the_wish():
    plan = plan_decode(PICTURE, BY_AREA, Room(WHOLE - 1), PlanRequest(tile=False))
    assert any("tile is off" in warning for warning in plan.warnings)


def test_manual_chunks_that_save_nothing_are_named():
    request = PlanRequest(manual=True, tile_size=256, temporal_size=16)
    plan = plan_decode(CLIP, BY_AREA, Room(WHOLE), request)
    assert any("temporal_size saves nothing" in warning for warning in plan.warnings)


def test_the_planner_asks_little():
    asked = []

    def count(_batch, _frames, height, width):
        asked.append((height, width))
        return height * width * MiB

    huge = DecodeShape(1, 4, None, 2048, 2048, 8, 1)
    plan_decode(huge, ScaledCost(count), Room(5000 * MiB), PlanRequest())
    assert len(asked) < 40  # a dry run may stand behind each question


@pytest.mark.parametrize(
    ("sentence", "frames", "cost", "grows"),
    [
        ("memory by volume grows", 21, BY_VOLUME, True),
        ("memory by area does not", 21, BY_AREA, False),
        ("a picture has no time", None, BY_VOLUME, False),
        ("three latent frames cannot be halved", 3, BY_VOLUME, False),
        ("an output that grows a little does not count", 21,
         ScaledCost(lambda _b, t, h, w: h * w * (1000 + t)), False),
    ],
)  # fmt: skip
def test_growth(sentence, frames, cost, grows):
    assert grows_with_time(replace(CLIP, frames=frames), cost) is grows


def shrink_to_the_end(shape, cost, request=None, abilities=ABLE):
    plan = plan_decode(shape, cost, Room(1 << 60), request or PlanRequest())
    steps = []
    while plan is not None and len(steps) < 50:
        steps.append(plan)
        plan = shrink(plan, shape, cost, request, abilities)
    return steps


@pytest.mark.parametrize(
    ("sentence", "shape", "cost"),
    [
        ("a picture", PICTURE, BY_AREA),
        ("a wide picture", WIDE, BY_AREA),
        ("a clip that grows with time", CLIP, BY_VOLUME),
        ("a clip that does not", CLIP, BY_AREA),
    ],
)
def test_every_step_down_needs_less_until_nothing_is_smaller(sentence, shape, cost):
    steps = shrink_to_the_end(shape, cost)
    needs = [step.predicted_peak_bytes for step in steps]
    assert needs == sorted(set(needs), reverse=True)
    assert len(steps) > 2
    assert needs[-1] <= smallest_need_bytes(shape, cost)


def test_shrinking_cuts_time_before_tiles_become_uncomfortable():
    steps = shrink_to_the_end(CLIP, BY_VOLUME)
    first_chunk = next(step for step in steps if step.temporal_size is not None)
    smallest_before = min(s.tile_size or 512 for s in steps[: steps.index(first_chunk)])
    assert first_chunk.tile_size == smallest_before
    assert smallest_before > 128


def test_shrinking_leaves_time_alone_where_it_saves_nothing():
    assert all(step.temporal_size is None for step in shrink_to_the_end(CLIP, BY_AREA))


# One second for each megapixel decoded, one for each GiB evicted or loaded again.
SPEED = TimeModel(
    per_pixel_s=1e-6,
    per_tile_s=0.0,
    per_moved_byte_s=1.0 / GiB,
    evict_per_byte_s=1.0 / GiB,
    reload_per_byte_s=1.0 / GiB,
    cpu_per_pixel_s=1e-4,
)
HALO = Abilities(
    square_tiles=False, streams_time=True, exact_tiles=True, least_overlap_px=96, carves_time=False
)


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


def test_a_batch_that_ran_out_is_halved_before_it_is_cut():
    shape = replace(PICTURE, batch=7)
    plan = plan_decode(shape, BY_AREA, Room(7 * WHOLE), AUTO)
    steps = []
    while plan is not None:
        steps.append((plan.kind, plan.batch))
        plan = shrink(plan, shape, BY_AREA)
    assert steps[:4] == [("whole", 7), ("whole", 4), ("whole", 2), ("whole", 1)]
    assert {kind for kind, _ in steps[4:]} == {"tiled"}


def test_rectangles_and_streams_shrink_to_the_end_too():
    shape = replace(CLIP, width=200)
    plan = plan_decode(shape, BY_VOLUME, Room(WHOLE), AUTO, HALO)
    steps = []
    while plan is not None:
        steps.append(plan)
        plan = shrink(plan, shape, BY_VOLUME, None, HALO)
    needs = [step.predicted_peak_bytes for step in steps]
    assert needs == sorted(set(needs), reverse=True)
    assert {step.kind for step in steps} == {"streamed"}
    assert steps[-1].tile_size <= 160  # the smallest that still owns something inside its halo


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


def test_a_decoder_that_needs_more_for_less_is_never_trusted_below():
    # Between 30 and 40 latents it switches to larger chunks of its own.
    def jumpy(_b, _t, h, w):
        return h * w * MiB + (4 * GiB if 30 <= h < 40 else 0)

    for budget in range(64, 4096, 97):
        plan = plan_decode(PICTURE, ScaledCost(jumpy), Room(budget * MiB), AUTO)
        edge = plan.tile_size // 8
        assert jumpy(1, None, edge, edge) == plan.predicted_peak_bytes <= budget * MiB


def random_case(draw):
    video = draw.random() < 0.6
    shape = DecodeShape(
        draw.choice([1, 1, 2, 7, 64]), 4, draw.randint(1, 300) if video else None,
        draw.randint(1, 2048), draw.randint(1, 2048), draw.choice([4, 8, 16, 32, 48]),
        draw.choice([1, 4, 6, 8]),
    )  # fmt: skip
    abilities = Abilities(
        square_tiles=draw.random() < 0.5,
        streams_time=draw.random() < 0.3,
        exact_tiles=draw.random() < 0.5,
        least_overlap_px=draw.choice([0, 0, 6 * shape.spatial_scale]),
        passes=draw.choice([1, 3]),
        batches=draw.random() < 0.7,
    )
    request = PlanRequest(
        quality=draw.choice(["exact", "balanced", "fast"]), overlap=draw.choice([0, 64, 512])
    )
    return shape, abilities, request, draw.random(), 10 ** draw.uniform(-5, 0.1)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_asked_the_planner_asks_little_and_never_breaks_the_budget(seed):
    draw = random.Random(seed)
    for _ in range(60):
        shape, abilities, request, growth, share = random_case(draw)
        asked = []

        def need(b, t, h, w, growth=growth, asked=asked):
            asked.append((b, t, h, w))
            return b * h * w * 1000 * ((t or 1) * growth + 1)

        size = (shape.batch, shape.frames, shape.height, shape.width)
        whole = need(*size)
        asked.clear()
        room = Room(int(whole * share), int(whole * share * draw.choice([0, 0.5, 10])))
        try:
            table = plan_table(shape, ScaledCost(need), room, request, abilities)
        except LatentNotDecodableError:
            continue
        assert len(asked) <= 200
        assert len(asked) == len(set(asked))
        assert any(plan.kind == "whole" for plan in table.plans)
        best = table.best
        if best.kind == "cpu":
            assert not any(plan.fits for plan in table.plans)
        else:
            assert best.predicted_peak_bytes <= room.budget_bytes + best.evict_bytes
            assert best.evict_bytes <= room.evictable_bytes


@pytest.mark.parametrize(
    ("sentence", "sizes"),
    [
        ("no rows", {"height": 0}),
        ("no columns", {"width": 0}),
        ("no frames", {"frames": 0}),
        ("no items", {"batch": 0}),
        ("negative rows", {"height": -4}),
        ("a scale of nothing", {"spatial_scale": 0}),
        ("a frame of more than 2**31 pixels", {"height": 1 << 14, "width": 1 << 14}),
        ("more frames than any memory holds", {"frames": 1 << 40}),
    ],
)
def test_a_latent_nobody_can_decode_is_refused_by_name(sentence, sizes):
    shape = replace(CLIP, **sizes)
    with pytest.raises(LatentNotDecodableError, match="cannot be decoded") as caught:
        plan_decode(shape, BY_AREA, Room(WHOLE), AUTO)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(LatentNotDecodableError):
        plan_table(shape, BY_AREA, Room(WHOLE), AUTO)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "field", ["budget_bytes", "evictable_bytes", "next_use_bytes", "host_bytes"]
)
def test_memory_that_is_no_number_is_refused_by_name(field, value):
    room = replace(Room(WHOLE), **{field: value})
    with pytest.raises(MemoryFigureUnusableError, match="no amount of memory"):
        plan_decode(PICTURE, BY_AREA, room, AUTO)


def test_a_negative_budget_is_no_memory_and_leads_to_an_honest_answer():
    plan = plan_decode(PICTURE, BY_AREA, Room(-5 * GiB, -1, -1, -1), AUTO)
    assert (plan.kind, plan.fits) == ("cpu", False)
    assert "0 B" in plan.reason
    assert any("system memory does not suffice" in warning for warning in plan.warnings)


def test_a_latent_of_one_position_has_a_plan():
    tiny = DecodeShape(1, 4, 1, 1, 1, 8, 4)
    assert plan_decode(tiny, BY_AREA, Room(MiB), AUTO).kind == "whole"
    assert plan_decode(tiny, BY_AREA, Room(MiB - 1), AUTO).kind == "cpu"


def test_manual_sizes_come_first_in_the_table():
    table = plan_table(PICTURE, BY_AREA, Room(WHOLE), PlanRequest(manual=True, tile_size=128))
    assert (table.best.kind, table.best.tile_size) == ("tiled", 128)
    assert any(plan.kind == "whole" for plan in table.plans)


def test_a_smaller_plan_predicts_its_time_too():
    plan = plan_decode(PICTURE, BY_AREA, Room(WHOLE), AUTO, times=SPEED)
    smaller = shrink(plan, PICTURE, BY_AREA, times=SPEED)
    assert smaller.predicted_seconds > plan.predicted_seconds
    assert (smaller.fits, smaller.evict_bytes) == (True, 0)
    assert shrink(plan, PICTURE, BY_AREA).predicted_seconds is None


def test_a_stream_that_ran_out_shrinks_by_its_own_cost():
    stream = ScaledCost(lambda _b, _t, h, w: 2 * h * w * MiB)
    plan = plan_decode(CLIP, BY_VOLUME, Room(2 * WHOLE), AUTO, HALO, streamed_cost=stream)
    smaller = shrink(plan, CLIP, BY_VOLUME, None, HALO, streamed_cost=stream)
    assert smaller.kind == "streamed"
    assert smaller.predicted_peak_bytes < plan.predicted_peak_bytes
