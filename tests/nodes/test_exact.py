"""Decodes of a host VAE in exact parts, on a small real network behind a faked host."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import Clips, Kl, chunks_of, noise, relative  # noqa: E402

from vram_supervisor.nodes.host import exact as module  # noqa: E402
from vram_supervisor.nodes.host import exact_shared  # noqa: E402
from vram_supervisor.nodes.host.exact import ExactWay  # noqa: E402
from vram_supervisor.nodes.host.exacts import Exacts  # noqa: E402
from vram_supervisor.nodes.host.live_sizer import LiveSizer  # noqa: E402
from vram_supervisor.nodes.host.vae import VaeFacts  # noqa: E402
from vram_supervisor.supervisor.decode import layout_bands  # noqa: E402
from vram_supervisor.supervisor.decode.layout import Layout  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402
from vram_supervisor.supervisor.planning.calibration import Bound  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest, Room  # noqa: E402

MiB = 1 << 20
CPU = torch.device("cpu")
PLENTY = Room(1 << 40)


class Cache:
    """A store of texts; counts what was asked for in vain."""

    def __init__(self):
        self.texts, self.missed = {}, []

    def cached(self, kind, key):
        if (kind, key) not in self.texts:
            self.missed.append(kind)
        return self.texts.get((kind, key))

    def remember(self, kind, key, text):
        self.texts[kind, key] = text


class Memory:
    """The host's memory manager, with nothing to manage."""

    management = SimpleNamespace()

    def __init__(self):
        self.loaded = []

    def load(self, patcher, room_bytes):
        self.loaded.append(patcher)

    def raise_if_interrupted(self):
        """Nobody interrupts."""

    def is_interrupt(self, problem):
        return False


class Told:
    """A forecast that was told how far layouts are off."""

    allocator = "native"

    def __init__(self, ratio=1.0):
        self.ratio = ratio

    def bound_exact(self, base_bytes):
        return Bound(int(base_bytes * self.ratio), "measured", self.ratio, "as measured")


def a_vae(model, *, frames=None):
    return SimpleNamespace(
        first_stage_model=model,
        device=CPU,
        vae_dtype=torch.float32,
        output_channels=3,
        process_output=lambda pixels: pixels.add_(1.0).div_(2.0),
        patcher="the weights",
        **({} if frames is None else {"upscale_ratio": (frames, 2, 2)}),
    )


def facts(**how):
    told = {
        "spatial_scale": 2,
        "temporal_scale": None,
        "tiles_itself": False,
        "streams_output": False,
        "pictures": True,
        "image_only": True,
        "family_module": "toy",
    }
    return VaeFacts(**{**told, **how})


class World:
    """One VAE, one latent, and what a process remembers of both."""

    def __init__(self, monkeypatch, model=None, latent=None, **how):
        self.model = model or Kl()
        self.latent = noise(2, 4, 20, 13) if latent is None else latent
        self.vae = a_vae(self.model, frames=how.get("frames"))
        self.facts = how.get("facts") or facts()
        self.cache, self.memory = Cache(), Memory()
        self.pages = HostPages(1 << 12, locks=False)
        self.program = how.get("program") or type(self.model).program
        self.builds = 0
        monkeypatch.setattr(module, "decoder_of", self.decoder_of)
        # This network asks the host nothing.
        monkeypatch.setattr(exact_shared, "answered", lambda total_bytes: nullcontext())
        monkeypatch.setattr(layout_bands, "LEAVING_BYTES", 0)

    def decoder_of(self, model):
        return None if self.program is None else ("toy", self.build)

    def build(self, model):
        self.builds += 1
        return self.program(model)

    def way(self, *, latent=None, forecast=None):
        return ExactWay(
            self.vae,
            self.latent if latent is None else latent,
            self.facts,
            self.memory,
            Exacts(self.cache, self.pages),
            forecast or Told(),
            architecture="toy",
            fused_attention=False,
            total_bytes=None,
        )

    def wanted(self):
        whole = torch.cat([self.model.decode(each[None]) for each in self.latent])
        if whole.ndim == 5:
            whole = whole.transpose(1, 2).flatten(0, 1)
        return (whole.permute(0, 2, 3, 1) + 1) / 2


def decoded(way, plan, **how):
    sink = TensorSink()
    way.decode(plan, sink, how.pop("hooks", Hooks(empty_cache=lambda: None)), lambda: 1 << 40)
    return sink.pixels


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def least(way):
    """A budget that just suffices, and one that does not."""
    low, high = 1, 1 << 34
    while high > low * 1.02:
        middle = int((low * high) ** 0.5)
        plan = way.plan(Room(middle), PlanRequest(), None)
        low, high = (low, middle) if plan is not None and plan.fits else (middle, high)
    return high


class Network(Clips):
    decode = Clips.forward


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
    room = Room(int(least(way) * budget))
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
    needed = least(way)
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
    room = Room(4 * least(way))
    plan = way.plan(room, PlanRequest(), None)
    smaller = way.shrunk(plan, room, PlanRequest())
    assert smaller.predicted_peak_bytes <= 0.7 * plan.predicted_peak_bytes
    assert way.knows(smaller)


def test_no_more_waits_in_system_memory_than_is_free(world):
    way = world.way()
    budget_bytes = least(way)
    for host_bytes in (0, 1000, 1 << 20, 1 << 30):
        plan = way.plan(Room(budget_bytes, host_bytes=host_bytes), PlanRequest(), None)
        if plan is not None and plan.fits:
            layout = way._layouts[next(reversed(way._layouts))]
            assert layout.host_bytes <= host_bytes


# What is decoded.


@pytest.mark.parametrize("budget", [1.0, 1.5, 3.0, 1000.0])
def test_parts_equal_the_whole_for_every_item(world, budget):
    way = world.way()
    plan = way.plan(Room(int(least(way) * budget)), PlanRequest(), None)
    made = decoded(way, plan)
    assert made.shape == (2, 40, 26, 3)
    assert relative(made, world.wanted()) < 1e-6
    assert world.pages.taken == 0


@pytest.mark.parametrize("quality", ["exact", "balanced", "fast"])
def test_clips_come_frame_after_frame(clips, quality):
    world, way = clips, clips.way()
    plan = way.plan(Room(least(way)), PlanRequest(quality=quality), None)
    assert plan.kind == "streamed"
    made = decoded(way, plan)
    assert made.shape == (20, 24, 18, 3)
    assert relative(made, world.wanted()) < 1e-6


def test_on_the_cpu_the_same_parts_go_on(world):
    way = world.way()
    plan = way.plan(Room(least(way)), PlanRequest(), None)
    moved = way.on_cpu(plan)
    assert moved.kind == "cpu"
    assert way.knows(moved)
    assert relative(decoded(way, moved), world.wanted()) < 1e-6


def test_what_is_final_stays_when_a_smaller_plan_follows(clips):
    world, way = clips, clips.way()
    room = Room(2 * least(way))
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


# What is proven, and remembered.


def test_it_is_proven_once_for_all_processes(world):
    first = world.way()
    first.plan(PLENTY, PlanRequest(), None)
    assert any("exact decode (toy)" in note for note in first.notes)
    assert world.memory.loaded == ["the weights"]
    assert sorted(world.cache.missed) == ["proof", "survey"]
    world.cache.missed.clear()
    again = world.way()
    assert again.plan(PLENTY, PlanRequest(), None) == first.plan(PLENTY, PlanRequest(), None)
    assert world.cache.missed == []
    assert world.memory.loaded == ["the weights"]


def test_a_family_that_does_not_hold_gives_way_to_tiles_with_context(world):
    def wrong(model):
        program = Kl.program(model)
        return type(program)((type(program.phases[0])(program.phases[0].stages[:-1]),))

    world.program = wrong
    way = world.way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    assert "tiles with wide context" in plan.reason
    assert any("does not hold" in note for note in way.notes)


def test_a_decoder_nobody_knows_is_decoded_in_tiles_with_context(world):
    world.program = None
    way = world.way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    assert "black box" in plan.reason
    assert any("no family" in note for note in way.notes)
    # In one piece it is the decoder itself.
    assert relative(decoded(way, plan), world.wanted()) < 1e-6


def test_a_decoder_that_cannot_be_dry_run_is_left_to_the_host(world):
    class Stubborn(Kl):
        def decode(self, z):
            if not z.abs().sum().item() >= 0:
                raise AssertionError
            return super().decode(z)

    world.program, world.vae.first_stage_model = None, Stubborn()
    way = world.way()
    assert way.plan(PLENTY, PlanRequest(), None) is None
    assert any("cannot be taken apart" in note for note in way.notes)


def test_a_proof_of_one_frame_does_not_stand_for_clips(monkeypatch):
    """What is carried from chunk to chunk is seen in clips only."""

    def forgetful(net):
        program = net.program(chunks_of(1))

        def without_memory(stage):
            def run(x, carry, place):
                made = stage.run(x, carry, place)
                carry.state = None
                return made

            return type(stage)(stage.name, run, stage.halo, stage.scale, stage.whole)

        stages = tuple(map(without_memory, program.phases[0].stages))
        return type(program)((type(program.phases[0])(stages, chunks_of(1)),))

    world = World(
        monkeypatch,
        Network(),
        noise(1, 4, 1, 6, 5),
        facts=facts(temporal_scale=2),
        frames=lambda frames: 2 * frames,
        program=forgetful,
    )
    world.way().plan(PLENTY, PlanRequest(), None)
    way = world.way(latent=noise(1, 4, 5, 6, 5))
    assert "tiles with wide context" in way.plan(PLENTY, PlanRequest(), None).reason


@pytest.mark.parametrize("kind", ["proof", "survey"])
@pytest.mark.parametrize("text", ["", "{}", "[1, 2", "null"])
def test_a_damaged_cache_is_made_anew(world, kind, text):
    wanted = world.way().plan(PLENTY, PlanRequest(), None)
    for known in [key for key in world.cache.texts if key[0] == kind]:
        world.cache.texts[known] = text
    assert world.way().plan(PLENTY, PlanRequest(), None) == wanted


# Room that changes.


def layout_of(rows, peak_bytes, resident_bytes):
    return Layout({(0, 0): (rows, 9)}, resident_bytes, peak_bytes, carried_bytes=resident_bytes)


def test_parts_follow_what_is_free():
    free, asked = [1000], []

    def again(room_bytes):
        asked.append(room_bytes)
        return layout_of(2, 500, 50)

    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: free[0], again)
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    sizer.parking = Parking(CPU, 100, HostPages(64, locks=False))
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    held = sizer.parking.keep(torch.zeros(20))
    free[0] = 860
    # What waits on the device could be parked: it counts as room.
    assert sizer.part(0, 0, 64, 64) == (8, 9)
    assert asked == []
    free[0] = 400
    assert sizer.part(0, 0, 64, 64) == (2, 9)
    assert asked == [480]
    assert (sizer.parking.limit_bytes, sizer.resident_bytes(), sizer.carried_bytes()) == (
        50,
        50,
        50,
    )
    sizer.parking.drop(held)


def test_a_stage_without_a_layout_is_run_at_once():
    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: 1000, lambda room: None)
    assert sizer.part(3, 1, 64, 48) == (64, 48)


def test_where_nothing_smaller_fits_the_sizes_stay():
    sizer = LiveSizer(layout_of(8, 1000, 100), 1.0, lambda: 1, lambda room: None)
    sizer.parking = Parking(CPU, 100, HostPages(64, locks=False))
    assert sizer.part(0, 0, 64, 64) == (8, 9)
