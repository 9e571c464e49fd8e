"""Noise is the same each time a decode goes on, and nobody else's generators are touched."""

import subprocess
import sys
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from support.exact_decode import clips, plan_for  # noqa: E402
from support.exact_world import Network, decoded  # noqa: E402
from support.toy_decoders import chunks_of, noise, relative  # noqa: E402

from vram_supervisor.nodes.host.drawing import Drawn, drawn_from  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    """What is drawn here does not depend on the tests before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


# One decode, attempt after attempt.


def drawn_with(drawn, item, *shape):
    with drawn.again(item):
        return torch.randn(shape)


def test_a_second_attempt_draws_what_the_first_one_drew():
    drawn = Drawn(CPU)
    first = drawn_with(drawn, 0, 3)
    torch.randn(100)
    assert torch.equal(drawn_with(drawn, 0, 3), first)


def test_an_attempt_that_failed_half_way_is_drawn_again_from_its_beginning():
    drawn, first = Drawn(CPU), []

    def fails_half_way():
        first.append(torch.randn(3))
        raise MemoryError

    with pytest.raises(MemoryError), drawn.again(0):
        fails_half_way()
    assert torch.equal(drawn_with(drawn, 0, 3), first[0])


def test_each_item_draws_its_own_in_whatever_order_and_however_often():
    torch.manual_seed(3)
    undisturbed = torch.randn(4)
    torch.manual_seed(3)
    drawn = Drawn(CPU)
    own = [drawn_with(drawn, item, 4) for item in range(3)]
    assert torch.equal(own[0], undisturbed)
    assert len({tuple(each.tolist()) for each in own}) == 3
    for item in (2, 1, 0, 2):
        assert torch.equal(drawn_with(drawn, item, 4), own[item])


def test_items_after_finished_ones_draw_what_they_drew_beside_them():
    torch.manual_seed(3)
    all_of_them = Drawn(CPU)
    own = [drawn_with(all_of_them, item, 4) for item in range(3)]
    torch.manual_seed(3)
    taken_up = Drawn(CPU)
    assert torch.equal(drawn_with(taken_up, 2, 4), own[2])
    assert torch.equal(drawn_with(taken_up, 1, 4), own[1])


def test_what_is_drawn_first_is_what_the_caller_seeded():
    torch.manual_seed(11)
    wanted = torch.randn(3)
    torch.manual_seed(11)
    assert torch.equal(drawn_with(Drawn(CPU), 0, 3), wanted)


# One job, process after process.


def drawn_for(identity):
    with drawn_from(identity, CPU):
        return torch.randn(3)


def test_a_job_draws_the_same_whatever_was_drawn_before():
    first = drawn_for("a latent")
    torch.manual_seed(99)
    torch.randn(5)
    assert torch.equal(drawn_for("a latent"), first)
    assert not torch.equal(drawn_for("another latent"), first)


def test_a_job_draws_the_same_in_another_process():
    code = """
import torch
from vram_supervisor.nodes.host.drawing import drawn_from
torch.manual_seed(12345)
with drawn_from("a latent", torch.device("cpu")):
    print(torch.randn(3).tolist())
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300
    )
    assert ran.stdout.strip() == str(drawn_for("a latent").tolist())


def test_the_callers_generator_goes_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    with drawn_from("a latent", CPU):
        torch.randn(50)
    assert torch.equal(torch.randn(3), wanted)


def test_the_callers_generator_goes_on_after_an_error_too():
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)

    def fails_half_way():
        torch.randn(50)
        raise MemoryError

    with pytest.raises(MemoryError), drawn_from("a latent", CPU):
        fails_half_way()
    assert torch.equal(torch.randn(3), wanted)


def test_a_device_without_generators_of_its_own_draws_on_the_cpu():
    with drawn_from("a latent", torch.device("meta")):
        made = torch.randn(3)
    assert torch.equal(made, drawn_for("a latent"))


def test_a_job_that_goes_on_after_a_failed_attempt_draws_the_same():
    """Both together, as a decode to disk has them."""
    with drawn_from("a latent", CPU):
        drawn = Drawn(CPU)
        first = drawn_with(drawn, 0, 3)
        drawn_with(drawn, 1, 3)
        assert torch.equal(drawn_with(drawn, 0, 3), first)


# A decoder that mixes noise in.


class Noisy(Network):
    """Adds noise to its latent."""

    def __init__(self):
        super().__init__(normed=False)

    def decode(self, z):
        return super().decode(z + 0.3 * torch.randn(z.shape))


def noisy(net):
    """Its noise is drawn once, for all of the clip, and each part takes its own."""
    program, drawn = net.streamed(chunks_of(1, 2)), []
    entrance = program.phases[0].stages[0]

    def run(x, carry, place):
        if not drawn:
            shape = (*x.shape[:2], place.total_frames, place.height, place.width)
            drawn.append(torch.randn(shape))
        here, first = place.context, place.first_frame
        part = drawn[0][:, :, first : first + place.frames]
        part = part[..., here.top : here.bottom, here.left : here.right]
        return entrance.run(x + 0.3 * part, carry, place)

    begins = replace(program.phases[0], stages=(replace(entrance, run=run),))
    return replace(program, phases=(begins, *program.phases[1:]))


def out_of_memory_after(parts):
    """Hooks that fail for good once so many tiles are finished."""
    seen = []

    def fails(progress):
        seen.append(progress)
        if sum(each.committed and each.phase == 1 for each in seen) > parts:
            raise PartDoesNotFitError("a part")

    return Hooks(progress=fails)


@pytest.mark.parametrize("parts", [1, 3, 5])
def test_parts_of_a_smaller_plan_fit_those_that_are_finished(monkeypatch, parts):
    world = clips(monkeypatch, Noisy(), program=noisy)
    undisturbed, way = world.way(), world.way()
    plan, room = plan_for(way, world, 1.5)
    assert "exact" in plan.reason
    torch.manual_seed(5)
    wanted = decoded(undisturbed, plan_for(undisturbed, world, 1.5)[0])
    torch.manual_seed(5)
    sink = TensorSink()
    with pytest.raises(PartDoesNotFitError):
        way.decode(plan, sink, out_of_memory_after(parts), lambda: 1 << 40)
    torch.randn(9)
    smaller = way.shrunk(plan, room, PlanRequest()) or plan
    way.decode(smaller, sink, Hooks(), lambda: 1 << 40)
    assert relative(sink.pixels, wanted) < 1e-6


@pytest.mark.parametrize("parts", [2, 5])
def test_another_process_goes_on_with_what_the_first_one_drew(monkeypatch, parts):
    taken_up_again_after(monkeypatch, parts)


@pytest.mark.parametrize("parts", [14, 20])
def test_another_process_draws_for_each_item_what_the_first_one_drew(monkeypatch, parts):
    """Items that are finished draw nothing: those after them must not draw in their place."""
    taken_up_again_after(monkeypatch, parts)


def taken_up_again_after(monkeypatch, parts):
    """Two clips, decoded in one process until so many tiles are finished, and in the next."""
    world = clips(monkeypatch, Noisy(), noise(2, 4, 5, 12, 9), program=noisy)

    def run(sink, hooks):
        way = world.way()
        plan, _ = plan_for(way, world, 1.5)
        with drawn_from("a latent", CPU):
            way.decode(plan, sink, hooks, lambda: 1 << 40)

    wanted, sink, seen = TensorSink(), TensorSink(), []
    run(wanted, Hooks(progress=seen.append))
    finished = [each for each in seen if each.committed and each.phase == 1]
    assert parts < len(finished)
    with pytest.raises(PartDoesNotFitError):
        run(sink, out_of_memory_after(parts))
    run(sink, Hooks())
    assert relative(sink.pixels, wanted.pixels) < 1e-6
