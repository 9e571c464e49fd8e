"""Decodes of a host VAE in exact parts, on a small real network behind a faked host."""

import pytest

torch = pytest.importorskip("torch")

from support.exact_world import PLENTY, Network, Told, World, decoded, facts, least  # noqa: E402
from support.toy_decoders import chunks_of, noise, relative  # noqa: E402

from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest, Room  # noqa: E402


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


@pytest.fixture
def clips(monkeypatch):
    """A video VAE whose need shrinks with its tiles."""
    return World(
        monkeypatch,
        Network(normed=False),
        noise(2, 4, 5, 12, 9),
        facts=facts(temporal_scale=2),
        frames=lambda frames: 2 * frames,
        program=lambda net: net.streamed(chunks_of(1, 2)),
    )


# What is planned.


def test_with_plenty_of_room_nothing_is_cut(world):
    way = world.way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    assert plan.fits
    assert (plan.tile_height, plan.tile_width) == (40, 26)
    assert way.knows(plan)
    assert way.base_bytes(plan) == plan.predicted_peak_bytes
    assert plan.evict_bytes == 0


@pytest.mark.parametrize("budget", [1.0, 1.2, 1.5, 2.0, 4.0])
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_no_plan_needs_more_than_there_is(world, budget, ratio):
    way = world.way(forecast=Told(ratio))
    room = Room(int(least(way, world, ratio) * budget))
    plan = way.plan(room, PlanRequest(), None)
    assert plan.fits
    assert plan.predicted_peak_bytes <= room.budget_bytes + 1
    assert way.base_bytes(plan) * ratio <= plan.predicted_peak_bytes + 1


def test_with_too_little_room_the_smallest_parts_are_tried_with_a_warning(world):
    plan = world.way().plan(Room(1000), PlanRequest(), None)
    assert not plan.fits
    assert any("smallest parts" in warning for warning in plan.warnings)


def test_what_must_be_evicted_is_only_what_is_missing(world):
    way = world.way()
    needed = least(way, world)
    plan = way.plan(Room(needed // 3, evictable_bytes=10 * needed), PlanRequest(), None)
    assert plan.fits
    assert plan.evict_bytes == plan.predicted_peak_bytes - needed // 3


def test_a_vae_that_tiles_itself_is_left_alone(monkeypatch):
    world = World(monkeypatch, facts=facts(tiles_itself=True))
    assert world.way().plan(PLENTY, PlanRequest(), None) is None


def test_a_size_given_by_hand_is_kept(world):
    plan = world.way().plan(PLENTY, PlanRequest(manual=True, tile_size=16, overlap=4), None)
    assert plan.tile_height == 12


def test_after_a_plan_failed_there_is_one_for_less(clips):
    way = clips.way()
    room = Room(4 * least(way, clips))
    plan = way.plan(room, PlanRequest(), None)
    smaller = way.shrunk(plan, room, PlanRequest())
    assert smaller.predicted_peak_bytes <= 0.7 * plan.predicted_peak_bytes
    assert way.knows(smaller)


def test_no_more_waits_in_system_memory_than_is_free(world):
    way = world.way()
    budget_bytes = least(way, world)
    for host_bytes in (0, 1000, 1 << 20, 1 << 30):
        plan = way.plan(Room(budget_bytes, host_bytes=host_bytes), PlanRequest(), None)
        if plan is not None and plan.fits:
            layout = way._layouts[next(reversed(way._layouts))]
            assert layout.host_bytes <= host_bytes


# What is decoded.


@pytest.mark.parametrize("budget", [1.0, 1.5, 3.0, 1000.0])
def test_parts_equal_the_whole_for_every_item(world, budget):
    way = world.way()
    plan = way.plan(Room(int(least(way, world) * budget)), PlanRequest(), None)
    made = decoded(way, plan)
    assert made.shape == (2, 40, 26, 3)
    assert relative(made, world.wanted()) < 1e-6
    assert world.pages.taken == 0


@pytest.mark.parametrize("quality", ["exact", "balanced", "fast"])
def test_clips_come_frame_after_frame(clips, quality):
    world, way = clips, clips.way()
    plan = way.plan(Room(least(way, world)), PlanRequest(quality=quality), None)
    assert plan.kind == "streamed"
    made = decoded(way, plan)
    assert made.shape == (20, 24, 18, 3)
    assert relative(made, world.wanted()) < 1e-6


def test_on_the_cpu_the_same_parts_go_on(world):
    way = world.way()
    plan = way.plan(Room(least(way, world)), PlanRequest(), None)
    moved = way.on_cpu(plan)
    assert moved.kind == "cpu"
    assert way.knows(moved)
    assert relative(decoded(way, moved), world.wanted()) < 1e-6


def test_what_is_final_stays_when_a_smaller_plan_follows(clips):
    world, way = clips, clips.way()
    room = Room(2 * least(way, world))
    plan = way.plan(room, PlanRequest(), None)
    sink, finished = TensorSink(), []

    def fails_after(progress):
        finished.append(progress)
        if len(finished) > 7:
            raise PartDoesNotFitError("a part")

    with pytest.raises(PartDoesNotFitError):
        way.decode(plan, sink, Hooks(progress=fails_after), lambda: 1 << 40)
    smaller = way.shrunk(plan, room, PlanRequest())
    before = len(finished)
    way.decode(smaller, sink, Hooks(progress=finished.append), lambda: 1 << 40)
    assert relative(sink.pixels, world.wanted()) < 1e-6
    assert len(finished) > before


def test_a_plan_counts_the_parts_of_all_items(world):
    """What the progress bar is long, for two items are run one after the other."""
    ran = []
    way = world.way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    hooks = Hooks(progress=ran.append)
    way.decode(plan, TensorSink(), hooks, lambda: PLENTY.budget_bytes)
    assert world.latent.shape[0] == 2
    assert len(ran) == plan.tiles
