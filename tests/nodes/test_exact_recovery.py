"""Exact parts where something fails: while they are proven, while they are run, and in a second
attempt."""

import errno
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from support.decoding_world import Counter, meter_of  # noqa: E402
from support.exact_decode import (  # noqa: E402
    TOO_MUCH,
    Memory,
    Told,
    VideoVae,
    clips,
    decode_safe,
    plan_for,
    whole_plan,
)
from support.exact_world import Network, World  # noqa: E402
from support.toy_decoders import Kl, noise, relative  # noqa: E402

from vram_supervisor.nodes import decoding  # noqa: E402
from vram_supervisor.nodes.executing import HostExecutor  # noqa: E402
from vram_supervisor.nodes.host.exact import _flushed  # noqa: E402
from vram_supervisor.nodes.host.exacts import Exacts  # noqa: E402
from vram_supervisor.nodes.safe_decode import protected_decode  # noqa: E402
from vram_supervisor.supervisor.decode.output import PixelOutput  # noqa: E402
from vram_supervisor.supervisor.decode.proof import Proof  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402
from vram_supervisor.supervisor.planning.allocator import usable_bytes  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest, Room  # noqa: E402

OUT_OF_MEMORY = [
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    torch.cuda.OutOfMemoryError("Allocation on device"),
    MemoryError(),
    PartDoesNotFitError("a part"),
]


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


# A proof that runs out of memory.


class Scarce:
    """What stands for a network's decode: runs out of memory the first so many times."""

    def __init__(self, model, times, problem):
        self.left, self.problem, self.calls = times, problem, 0
        self._decode = model.decode
        model.decode = self

    def __call__(self, z):
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise type(self.problem)(*self.problem.args)
        return self._decode(z)


@pytest.mark.parametrize("problem", OUT_OF_MEMORY, ids=lambda each: type(each).__name__)
def test_a_proof_without_memory_is_tried_again_with_room_made(world, problem):
    scarce = Scarce(world.model, 1, problem)
    way = world.way()
    assert "exact" in whole_plan(way).reason
    assert (scarce.calls, world.memory.evicted) == (2, 1)
    assert [kind for kind, _ in world.cache.texts if kind == "proof"] == ["proof"]


@pytest.mark.parametrize("problem", OUT_OF_MEMORY, ids=lambda each: type(each).__name__)
def test_a_proof_that_never_finds_memory_leaves_the_decode_to_the_host(world, problem):
    Scarce(world.model, 2, problem)
    way = world.way()
    assert whole_plan(way) is None
    assert any("no memory to try" in note for note in way.notes)
    assert not way.is_known
    assert world.memory.evicted == 2


def test_nothing_is_remembered_of_a_proof_without_memory(world):
    Scarce(world.model, 2, MemoryError())
    assert whole_plan(world.way()) is None
    assert [kind for kind, _ in world.cache.texts if kind == "proof"] == []
    assert "exact" in whole_plan(world.way()).reason


def test_one_attempt_does_not_ask_for_the_proof_again_and_again(world):
    scarce = Scarce(world.model, 99, MemoryError())
    way = world.way()
    assert [whole_plan(way) for _ in range(3)] == [None] * 3
    assert scarce.calls == 2
    assert len(way.notes) == 1


def test_parts_of_a_proof_that_do_not_fit_count_as_no_memory_too(world):
    def starved(model):
        program = Kl.program(model)

        def run(x, carry, place):
            raise MemoryError

        stage = replace(program.phases[0].stages[0], run=run)
        return replace(program, phases=(replace(program.phases[0], stages=(stage,)),))

    world.program = starved
    way = world.way()
    assert whole_plan(way) is None
    assert any("no memory to try" in note for note in way.notes)


def test_memory_that_runs_out_between_the_parts_of_a_proof_is_no_wrong_result(world):
    """Where the engine has nothing to try again."""

    def starved(frames):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def between(model):
        program = Kl.program(model)
        return replace(program, phases=(replace(program.phases[0], chunks=starved),))

    world.program = between
    way = world.way()
    assert whole_plan(way) is None
    assert any("no memory to try" in note for note in way.notes)


def test_the_users_interrupt_ends_a_proof(world):
    def interrupt():
        raise KeyboardInterrupt

    world.memory.raise_if_interrupted = interrupt
    with pytest.raises(KeyboardInterrupt):
        whole_plan(world.way())
    assert world.cache.texts == {}


def test_without_memory_for_the_proof_core_tiles_and_the_user_sees_no_error(monkeypatch):
    vae = VideoVae(Network(normed=False), frames=lambda frames: 2 * frames)
    world = clips(monkeypatch, vae.first_stage_model, noise(1, 4, 2, 40, 40))
    Scarce(vae.first_stage_model, 99, OUT_OF_MEMORY[0])
    told = Told(world, lambda batch, frames, height, width: 100 * height * width)
    got = decode_safe(world, vae, told=told, free=100 * 36 * 36)
    assert vae.calls == ["tiled"]
    assert got.record.tried == ["tiles of 64 px: done"]
    assert any("no memory to try" in note for note in got.notes)


# A proof that fails.


class Flaky:
    """A program whose first stage fails in its first real call."""

    def __init__(self, problem):
        self.problem, self.failed = problem, False

    def __call__(self, model):
        program = Kl.program(model)
        phase = program.phases[0]
        first = phase.stages[0]

        def run(x, carry, place):
            if not self.failed:
                self.failed = True
                raise self.problem
            return first.run(x, carry, place)

        stages = (replace(first, run=run), *phase.stages[1:])
        return replace(program, phases=(replace(phase, stages=stages),))


def test_a_failure_in_a_proof_does_not_count_for_ever(world):
    world.program = Flaky(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))
    way = world.way()
    assert "wide context" in whole_plan(way).reason
    assert any("EXECUTION_FAILED" in note for note in way.notes)
    assert [kind for kind, _ in world.cache.texts if kind == "proof"] == []
    assert "exact" in whole_plan(world.way()).reason


def test_a_proof_with_figures_counts_and_one_without_is_made_again(world):
    for figures, makes in ((0.7, 1), (None, 2)):
        shared, made = Exacts(world.cache, world.pages), []

        def make(figures=figures, made=made):
            made.append(figures)
            return Proof(False, figures, "it does not hold")

        key = f"a decoder off by {figures}"
        assert shared.proof(key, make) == shared.proof(key, make)
        assert len(made) == makes
        assert (("proof", key) in world.cache.texts) is (figures is not None)


# After a proof that did not hold there is nothing that equals the whole.


def without_the_end(model):
    program = Kl.program(model)
    phase = program.phases[0]
    return replace(program, phases=(replace(phase, stages=phase.stages[:-1]),))


@pytest.mark.parametrize(
    ("program", "known"), [(Kl.program, True), (without_the_end, False)], ids=["holds", "fails"]
)
def test_parts_are_known_until_their_proof_does_not_hold(world, program, known):
    world.program = program
    way = world.way()
    assert way.is_known, "nobody has looked yet"
    whole_plan(way)
    assert way.is_known is known


def test_a_decoder_of_no_family_has_no_parts_that_are_known(world):
    world.program = None
    way = world.way()
    assert not way.is_known
    whole_plan(way)
    assert not way.is_known


@pytest.mark.parametrize(
    ("program", "tight"), [(Kl.program, False), (without_the_end, True)], ids=["holds", "fails"]
)
def test_the_last_bit_of_memory_is_used_where_parts_do_not_equal_the_whole(world, program, tight):
    world.program = program
    told, free = Told(world, 100), 1 << 33
    told.allocator = "cudaMallocAsync"
    executor = HostExecutor(
        world.vae,
        world.latent,
        world.facts,
        Memory(free),
        meter_of(Counter((None, None)), "cpu"),
        told,
        cap_bytes=0,
    )
    looser, tighter = (usable_bytes(free, told.allocator, tight=each) for each in (False, True))
    assert looser != tighter
    assert executor.budget_bytes() == looser
    executor.exact_plan(Room(1 << 40), PlanRequest(), None)
    assert executor.budget_bytes() == (tighter if tight else looser)
    assert executor.has_exact_parts is not tight


# Items that are finished.


def test_finished_items_are_not_decoded_again(monkeypatch):
    world = World(monkeypatch, latent=noise(3, 4, 20, 13))
    way = world.way()
    plan, _ = plan_for(way, world, 1.5)
    seen, sink, again = [], TensorSink(), []
    way.decode(plan, TensorSink(), Hooks(progress=seen.append), lambda: 1 << 40)
    one, left = divmod(len(seen), 3)
    assert left == 0
    assert one > 2
    seen.clear()

    def fails(progress):
        seen.append(progress)
        if len(seen) == 2 * one + 2:
            raise PartDoesNotFitError("a part")

    with pytest.raises(PartDoesNotFitError):
        way.decode(plan, sink, Hooks(progress=fails), lambda: 1 << 40)
    way.decode(plan, sink, Hooks(progress=again.append), lambda: 1 << 40)
    assert 0 < len(again) <= one
    assert relative(sink.pixels, world.wanted()) < 1e-6
    way.decode(plan, sink, Hooks(progress=lambda _: pytest.fail("again")), lambda: 1 << 40)


def test_finished_items_count_whatever_plan_finished_them(monkeypatch):
    """Items decoded whole are one stretch of frames, those in parts are many."""
    world = clips(monkeypatch, latent=noise(2, 4, 5, 12, 9))
    way, sink = world.way(), TensorSink()
    way.decode_whole(sink, lambda shape: None)
    plan, _ = plan_for(way, world, 1)
    way.decode(plan, sink, Hooks(progress=lambda _: pytest.fail("again")), lambda: 1 << 40)
    assert torch.equal(sink.pixels, world.wanted())


# What ends a decode, and what flushing meets.


class Full(TensorSink):
    """Its disk is full."""

    def write(self, first_frame, rect, pixels):
        raise OSError(errno.ENOSPC, "No space left on device")


class OnItsWay(PixelOutput):
    """Its copies land when it is flushed, as on a GPU."""

    ends = False

    def flush(self):
        if self.ends:
            super().flush()


def full_output():
    """With one picture that has not landed."""
    sink = Full()
    sink.begin(1, 4, 6, 3)
    output = OnItsWay(sink, lambda pixels: pixels, 0, 1)
    output.write(0, Rect(0, 4, 0, 6), noise(1, 3, 4, 6))
    output.ends = True
    return output


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), PartDoesNotFitError("a part")])
def test_a_flush_that_fails_does_not_replace_what_ended_the_decode(caplog, problem):
    with pytest.raises(type(problem)) as caught, _flushed(full_output()):
        raise problem
    assert caught.value is problem
    assert "could not be kept" in caplog.text
    assert "No space left" in caplog.text


def test_a_flush_that_fails_after_the_last_part_is_an_error():
    with pytest.raises(OSError, match="No space left"), _flushed(full_output()):
        pass


def test_what_is_finished_is_kept_when_an_interrupt_ends_the_decode():
    sink = TensorSink()
    sink.begin(1, 4, 6, 3)
    output = OnItsWay(sink, lambda pixels: pixels, 0, 1)
    made, everything = noise(1, 3, 4, 6), Rect(0, 4, 0, 6)
    output.write(0, everything, made)
    output.ends = True
    with pytest.raises(KeyboardInterrupt), _flushed(output):
        raise KeyboardInterrupt
    assert torch.equal(sink.pixels[0], made[0].permute(1, 2, 0))


# Protected nodes.


def test_a_mistake_in_the_middle_of_a_protected_decode_costs_time_only(monkeypatch, tmp_path):
    kept = tmp_path / "kept.latent"

    def keep(samples):
        kept.touch()
        return kept

    monkeypatch.setattr(decoding, "save_latent", keep)
    vae = VideoVae(Network(normed=False), frames=lambda frames: 2 * frames)
    # The host tells, and the family says, a frame too many of what the network makes.
    world = clips(
        monkeypatch,
        vae.first_stage_model,
        program=lambda net: replace(net.streamed(), frames=lambda frames: 2 * frames + 1),
    )
    told, problems = Told(world, TOO_MUCH), []

    def safely(samples, wish, *, sink=None):
        try:
            return decoding.decode_safely(
                samples, vae, wish, Memory(), meter_of(Counter((None, None)), "cpu"), told
            )
        except Exception as problem:
            problems.append(problem)
            raise

    world.vae = vae
    images = protected_decode(
        world.latent,
        vae,
        PlanRequest(),
        lambda: vae.decode(world.latent),
        decoder_of=lambda _vae: safely,
        is_interrupt=lambda problem: False,
        quality=lambda: "exact",
    )
    assert torch.equal(images[0], world.wanted())
    (problem,) = problems
    assert problem.began, "a plan was followed before it failed"
    assert "DecodedOtherwiseError" in str(problem)
    assert not kept.exists()
