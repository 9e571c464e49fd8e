"""Smaller plans after one ran out: time first, then tiles, until nothing is smaller."""

from dataclasses import replace

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
    shrink,
    smallest_need_bytes,
)
from vram_supervisor.supervisor.planning.types import PlanRequest, Room
from vram_supervisor.supervisor.units import MiB


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
