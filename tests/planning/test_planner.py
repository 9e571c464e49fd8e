from dataclasses import dataclass, replace

import pytest

from vram_supervisor.supervisor.planning.cost import ScaledCost
from vram_supervisor.supervisor.planning.planner import (
    grows_with_time,
    plan_decode,
    shrink,
    smallest_need_bytes,
)
from vram_supervisor.supervisor.planning.tiling import tile_count
from vram_supervisor.supervisor.planning.types import DecodeShape, PlanRequest
from vram_supervisor.supervisor.units import MiB

# One latent costs 1 MiB a frame where time counts, 1 MiB in all where it does not.
BY_AREA = ScaledCost(lambda b, _t, h, w: b * h * w * MiB)
BY_VOLUME = ScaledCost(lambda b, t, h, w: b * (t or 1) * h * w * MiB)
PICTURE = DecodeShape(1, 4, None, 64, 64, 8, 1)
WIDE = DecodeShape(1, 16, None, 90, 160, 8, 1)
CLIP = DecodeShape(1, 16, 21, 64, 64, 8, 4)
WHOLE = 64 * 64 * MiB


AUTO = PlanRequest()


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
    temporal_tiling: bool = True


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
        CLIP, BY_VOLUME, 21 * 16 * 16 * MiB, "tiled", tile_size=128, temporal_tiling=False,
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
        row.budget,
        row.request,
        evictable_bytes=row.evictable,
        temporal_tiling=row.temporal_tiling,
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
    plan = plan_decode(WIDE, BY_AREA, 3000 * MiB, PlanRequest())
    count = tile_count(720, plan.tile_size, plan.overlap)
    assert plan.tiles == count * tile_count(1280, plan.tile_size, plan.overlap)


def test_an_overlap_never_takes_more_than_a_quarter_of_a_tile():
    plan = plan_decode(PICTURE, BY_AREA, 64 * MiB, PlanRequest(overlap=64))
    assert plan.overlap == plan.tile_size // 4


def test_an_executors_halo_is_kept_however_small_the_tile():
    plan = plan_decode(PICTURE, BY_AREA, 300 * MiB, PlanRequest(overlap=0), least_overlap_px=80)
    assert plan.overlap == 80
    assert plan.tile_size > 80


def test_tiles_of_a_coarse_vae_are_whole_latents():
    shape = replace(WIDE, height=23, width=40, spatial_scale=48)
    plan = plan_decode(shape, BY_AREA, 300 * MiB, PlanRequest())
    assert plan.tile_size % 48 == 0
    assert plan.overlap % 48 == 0


def test_the_planner_says_that_it_tiled_against_the_wish():
    plan = plan_decode(PICTURE, BY_AREA, WHOLE - 1, PlanRequest(tile=False))
    assert any("tile is off" in warning for warning in plan.warnings)


def test_manual_chunks_that_save_nothing_are_named():
    request = PlanRequest(manual=True, tile_size=256, temporal_size=16)
    plan = plan_decode(CLIP, BY_AREA, WHOLE, request)
    assert any("temporal_size saves nothing" in warning for warning in plan.warnings)


def test_the_planner_asks_little():
    asked = []

    def count(_batch, _frames, height, width):
        asked.append((height, width))
        return height * width * MiB

    huge = DecodeShape(1, 4, None, 2048, 2048, 8, 1)
    plan_decode(huge, ScaledCost(count), 5000 * MiB, PlanRequest())
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


def shrink_to_the_end(shape, cost, request=None, **options):
    plan = plan_decode(shape, cost, 1 << 60, request or PlanRequest())
    steps = []
    while plan is not None and len(steps) < 50:
        steps.append(plan)
        plan = shrink(plan, shape, cost, request, **options)
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
