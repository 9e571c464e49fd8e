"""Plans for what is asked and what is free. Rows are sentences."""

import math
import random
from dataclasses import dataclass, replace

import pytest
from support.plan_cases import ABLE, AUTO, BY_AREA, BY_VOLUME, CLIP, PICTURE, WHOLE, WIDE

from vram_supervisor.supervisor.errors import LatentNotDecodableError, MemoryFigureUnusableError
from vram_supervisor.supervisor.planning.cost import ScaledCost
from vram_supervisor.supervisor.planning.planner import (
    grows_with_time,
    plan_decode,
    plan_table,
)
from vram_supervisor.supervisor.planning.tiling import tile_count
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest, Room
from vram_supervisor.supervisor.units import GiB, MiB


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
