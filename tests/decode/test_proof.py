"""A program that is not the network is found out; one that is, is not."""

from dataclasses import replace
from fractions import Fraction

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import Clips, Kl, chain, chunks_of, noise, seeded, simple  # noqa: E402
from torch import nn  # noqa: E402

from vram_supervisor.supervisor.decode.program import Program  # noqa: E402
from vram_supervisor.supervisor.decode.proof import (  # noqa: E402
    MOST_ERROR,
    prove,
    relative_error,
)
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402

NETWORK, CLIP, STREAM = Kl(), Clips(), Clips(normed=False)
LATENT, FRAMES = noise(1, 4, 12, 8), noise(1, 4, 5, 12, 8)


def proven(program, whole=NETWORK.decode, sample=LATENT, **how):
    return prove(program, whole, sample, Hooks(empty_cache=lambda: None), **how)


def with_stage(program, name, **changes):
    phases = tuple(
        replace(
            phase,
            stages=tuple(replace(s, **changes) if s.name == name else s for s in phase.stages),
        )
        for phase in program.phases
    )
    assert phases != program.phases
    return Program(phases)


def swapped(program, one, two):
    stages = list(program.phases[0].stages)
    stages[one], stages[two] = stages[two], stages[one]
    return chain(*stages, chunks=program.phases[0].chunks)


def test_the_network_itself_holds():
    proof = proven(NETWORK.program())
    assert proof.holds
    assert proof.error < 1e-6
    assert "on a tiny input" in proof.reason


@pytest.mark.parametrize("edge", [1, 2, 3, 8, 64])
def test_it_holds_for_parts_of_any_size(edge):
    assert proven(NETWORK.program(), edge=edge).holds
    chunked = CLIP.program(chunks_of(1, 2))
    assert proven(chunked, CLIP, FRAMES, edge=edge).holds
    assert proven(STREAM.streamed(chunks_of(1, 2)), STREAM, FRAMES, edge=edge).holds


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_holds_in_other_types(dtype):
    network = Kl().to(dtype)
    assert proven(network.program(), network.decode, LATENT.to(dtype)).holds


@pytest.mark.parametrize(
    ("sentence", "wrong"),
    [
        ("a halo too small by two", lambda p: with_stage(p, "level 0 block 0", halo=0)),
        ("a halo too small by one", lambda p: with_stage(p, "pixels", halo=0)),
        ("two stages swapped", lambda p: swapped(p, 4, 5)),
        ("stages swapped that do not even fit", lambda p: swapped(p, 1, 6)),
        ("a scale too small", lambda p: with_stage(p, "level 1 upsampling", scale=Fraction(1))),
        ("a scale too large", lambda p: with_stage(p, "level 1 upsampling", scale=Fraction(4))),
        ("a stage too few", lambda p: chain(*p.phases[0].stages[:4], *p.phases[0].stages[5:])),
        ("a stage too many", lambda p: chain(*p.phases[0].stages, simple("a", lambda x: x * 2))),
        ("attention in parts", lambda p: with_stage(p, "middle", whole=False, halo=2)),
        (
            "not a number",
            lambda p: chain(*p.phases[0].stages, simple("a", lambda x: x * float("nan"))),
        ),
        ("an error", lambda p: chain(*p.phases[0].stages, simple("a", lambda x: x[9]))),
        ("a missing part", lambda p: chain(simple("a", lambda x: x + NETWORK.nothing))),
    ],
)
def test_another_program_does_not_hold(sentence, wrong):
    # Parts so small that their halos do not reach everywhere.
    proof = proven(wrong(NETWORK.program()), edge=2)
    assert not proof.holds
    assert proof.reason


@pytest.mark.parametrize("halo", [0, 1])
def test_a_halo_too_small_for_streamed_tiles_does_not_hold(halo):
    program = STREAM.streamed(chunks_of(1, 2), halo=halo)
    assert not proven(program, STREAM, FRAMES).holds


def test_state_that_is_not_carried_on_does_not_hold():
    def forgetful(stage):
        def run(x, carry, place):
            made = stage.run(x, carry, place)
            carry.state = None
            return made

        return replace(stage, run=run)

    stages = map(forgetful, CLIP.program().phases[0].stages)
    assert not proven(chain(*stages, chunks=chunks_of(1, 2)), CLIP, FRAMES).holds


def test_a_network_that_gives_no_numbers_proves_nothing():
    assert not proven(NETWORK.program(), lambda z: NETWORK.decode(z) * float("nan")).holds


def test_both_draw_the_same_at_random_and_leave_the_callers_generator():
    noisy = simple("noise", lambda x: x + torch.randn(x.shape), whole=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert proven(
        chain(noisy, simple("same", lambda x: x)), lambda z: z + torch.randn(z.shape)
    ).holds
    assert torch.equal(torch.get_rng_state(), before)


def test_running_out_of_memory_says_nothing_about_the_program():
    def greedy(x):
        raise torch.cuda.OutOfMemoryError

    from vram_supervisor.supervisor.errors import PartDoesNotFitError

    with pytest.raises(PartDoesNotFitError):
        proven(chain(simple("greedy", greedy)), lambda z: z)


def test_an_interrupt_passes_through():
    class Interrupted(BaseException):
        pass

    def interrupt():
        raise Interrupted

    with pytest.raises(Interrupted):
        prove(NETWORK.program(), NETWORK.decode, LATENT, Hooks(check=interrupt))


def test_no_error_is_so_small_that_a_convolution_could_hide_in_it():
    """Leaving out the smallest halo of a single layer is an error of several per cent."""
    layer = seeded(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)))
    program = chain(simple("layers", layer, halo=1))
    proof = proven(program, layer)
    assert proof.error > 5 * MOST_ERROR[torch.float32]


@pytest.mark.parametrize(
    ("made", "wanted", "error"),
    [(1.0, 1.0, 0.0), (1.5, 1.0, 0.5), (0.0, 0.0, 0.0)],
)
def test_relative_error(made, wanted, error):
    assert relative_error(torch.full((3,), made), torch.full((3,), wanted)) == pytest.approx(error)


def test_a_network_that_takes_no_tiny_input_proves_nothing_and_is_no_error():
    def refuses(sample):
        raise ValueError("at least 64 rows")

    found = proven(NETWORK.program(), refuses)
    assert (found.holds, found.error) == (False, None)
    assert "at least 64 rows" in found.reason
