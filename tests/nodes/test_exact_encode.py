"""Encodes of a host VAE in exact parts, on small real networks behind a faked host."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.encoding_vae import EncodingVae  # noqa: E402
from support.toy_decoders import relative, seeded  # noqa: E402
from support.toy_residual import ToyKl  # noqa: E402
from support.toy_wan import ToyWan21  # noqa: E402

from vram_supervisor.nodes.host import exact_shared  # noqa: E402
from vram_supervisor.nodes.host.exact_encode import EncodeWay  # noqa: E402
from vram_supervisor.nodes.host.exact_shared import Settings  # noqa: E402
from vram_supervisor.nodes.host.exacts import Exacts  # noqa: E402
from vram_supervisor.nodes.host.vae_encoding import encoding_facts, prepared  # noqa: E402
from vram_supervisor.supervisor.decode import layout_bands  # noqa: E402
from vram_supervisor.supervisor.decode.memory import is_out_of_memory  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.planning.calibration import Bound  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest, Room  # noqa: E402

EXACT = 1e-5
PLENTY = Room(1 << 40)


class Cache:
    def __init__(self):
        self.texts = {}

    def cached(self, kind, key):
        return self.texts.get((kind, key))

    def remember(self, kind, key, text):
        self.texts[kind, key] = text


class Memory:
    """The host's memory manager, with nothing to manage."""

    management = SimpleNamespace()

    def __init__(self):
        self.loaded = self.evicted = 0

    def load(self, patcher, room_bytes):
        self.loaded += 1

    def raise_if_interrupted(self):
        """Nobody interrupts."""

    def is_interrupt(self, problem):
        return False

    def is_oom(self, problem):
        return is_out_of_memory(problem)

    def empty_cache(self):
        """Nothing is cached."""

    def evict(self, needed_bytes, device, keep):
        self.evicted += 1
        return 0


class Told:
    allocator = "native"

    def bound_exact(self, base_bytes):
        return Bound(base_bytes, "prior", 1.0, "as told")


NETWORKS = {
    "images": (ToyKl, {"scale": 4}, (2, 100, 76, 3)),
    "a video": (lambda: seeded(ToyWan21()), {"video": True}, (9, 104, 80, 3)),
    "a video with frames too many": (lambda: seeded(ToyWan21()), {"video": True}, (7, 72, 96, 3)),
    "one frame": (lambda: seeded(ToyWan21()), {"video": True}, (1, 104, 80, 3)),
}


class World:
    def __init__(self, monkeypatch, case="images", *, network=None, **changes):
        make, about, shape = NETWORKS[case]
        self.vae = EncodingVae(network or make().eval(), patcher="weights", **{**about, **changes})
        self.pictures = torch.rand(shape, generator=torch.Generator().manual_seed(4))
        self.memory, self.cache = Memory(), Cache()
        # These networks ask the host nothing.
        monkeypatch.setattr(exact_shared, "answered", lambda total_bytes: nullcontext())
        monkeypatch.setattr(layout_bands, "LEAVING_BYTES", 0)

    def way(self):
        return EncodeWay(
            self.vae,
            prepared(self.vae, self.pictures),
            encoding_facts(self.vae),
            self.memory,
            Exacts(self.cache, HostPages(1 << 12, locks=False)),
            Told(),
            Settings("toy", fused_attention=False, total_bytes=None),
        )

    def wanted(self):
        return self.vae.encode(self.pictures)


def encoded(way, plan, **hooks):
    return way.encode(plan, Hooks(empty_cache=lambda: None, **hooks), lambda: 1 << 40)


LEAST_BYTES = {}
"""Budgets that just suffice, by case."""
REMEMBERED = {}
"""Surveys and proofs, by case."""


def least(way, case):
    if case not in LEAST_BYTES:
        LEAST_BYTES[case] = least_of(way)
    return LEAST_BYTES[case]


def least_of(way):
    low, high = 1, 1 << 34
    while high > low * 1.02:
        middle = int((low * high) ** 0.5)
        plan = way.plan(Room(middle), PlanRequest(), None)
        low, high = (low, middle) if plan is not None and plan.fits else (middle, high)
    return high


@pytest.mark.parametrize("budget", [1.0, 1.5, 1000.0])
@pytest.mark.parametrize("case", NETWORKS)
def test_parts_equal_the_whole(monkeypatch, case, budget):
    world = World(monkeypatch, case)
    # As in one process after another: what the first found out of this VAE, the next ones read.
    world.cache = REMEMBERED.setdefault(case, world.cache)
    way = world.way()
    plan = way.plan(Room(int(least(way, case) * budget)), PlanRequest(), None)
    done = []
    made = encoded(way, plan, progress=done.append)
    assert made.shape == world.wanted().shape
    assert relative(made, world.wanted()) < EXACT
    assert len(done) > 1 or budget > 2


def test_the_report_tells_the_size_of_parts_in_pixels_of_the_pictures(monkeypatch):
    way = World(monkeypatch, "a video").way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    assert (plan.tile_height, plan.tile_width) == (104, 80)
    smaller = way.plan(Room(least(way, "a video")), PlanRequest(), None)
    assert smaller.tile_height * smaller.tile_width < 104 * 80
    assert "Wan 2.1 encoder" in smaller.reason


def test_the_family_is_proven_once_for_all_sizes(monkeypatch):
    world = World(monkeypatch)
    first = world.way()
    first.plan(PLENTY, PlanRequest(), None)
    world.pictures = world.pictures[:, :64]
    second = world.way()
    assert second.plan(PLENTY, PlanRequest(), None) is not None
    assert world.memory.loaded == 1
    assert any("exact encode (image KL)" in note for note in second.notes)


def test_a_network_of_no_family_is_left_to_core(monkeypatch):
    way = World(monkeypatch, network=torch.nn.Conv2d(3, 8, 1)).way()
    assert way.plan(PLENTY, PlanRequest(), None) is None
    assert any("no family that is known" in note for note in way.notes)


def test_an_encoder_that_does_something_else_is_left_to_core(monkeypatch):
    class Other(ToyKl):
        def encode(self, x):
            return 2 * super().encode(x)

    way = World(monkeypatch, network=Other().eval()).way()
    assert way.plan(PLENTY, PlanRequest(), None) is None
    assert any("does not hold" in note for note in way.notes)


def test_a_vae_that_tiles_itself_is_left_alone(monkeypatch):
    world = World(monkeypatch, handles_tiling=True)
    assert world.way().plan(PLENTY, PlanRequest(), None) is None
    assert world.memory.loaded == 0


def test_items_that_are_done_are_not_made_again_after_a_failure(monkeypatch):
    class Full(Exception):
        pass

    world = World(monkeypatch)
    way, runs = world.way(), []
    plan = way.plan(PLENTY, PlanRequest(), None)
    process = world.vae.process_input
    full = True

    def once(pixels):
        runs.append(1)
        if full and len(runs) == 2:
            raise Full
        return process(pixels)

    world.vae.process_input = once
    with pytest.raises(Full):
        encoded(way, plan)
    full = False
    made = encoded(way, way.plan(Room(least(way, "images")), PlanRequest(), None))
    assert len(runs) == 3, "the first item was not prepared again"
    world.vae.process_input = process
    assert relative(made, world.wanted()) < EXACT


def test_after_a_plan_failed_there_is_one_for_less(monkeypatch):
    world = World(monkeypatch, "a video")
    world.pictures = torch.rand(9, 208, 160, 3)
    way = world.way()
    plan = way.plan(PLENTY, PlanRequest(), None)
    smaller = way.shrunk(plan, PLENTY, PlanRequest())
    assert smaller.predicted_peak_bytes <= 0.7 * plan.predicted_peak_bytes
    assert way.knows(smaller)
