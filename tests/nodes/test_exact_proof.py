"""Exact parts of a host VAE are proven once, remembered, and given up where they do not hold."""

import pytest

torch = pytest.importorskip("torch")

from support.exact_world import PLENTY, Network, World, decoded, facts  # noqa: E402
from support.toy_decoders import Kl, chunks_of, noise, relative  # noqa: E402

from vram_supervisor.supervisor.planning.types import PlanRequest  # noqa: E402


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


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
