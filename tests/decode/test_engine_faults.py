"""Memory that runs out for a moment, wherever it strikes: nothing is lost."""

import pytest

torch = pytest.importorskip("torch")

from support.faulty_programs import (  # noqa: E402
    CASES,
    MEMORY_RAN_OUT,
    Kept,
    Trouble,
    World,
    quiet,
    struck,
)
from support.toy_decoders import (  # noqa: E402
    relative,
    run_whole,
)

from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402

# Memory runs out.


@pytest.mark.parametrize("late", [False, True], ids=["at the start", "with the work done"])
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice in a row"])
def test_out_of_memory_in_any_part(world, late, times):
    for index in range(world.calls.calls):
        trouble = Trouble(*range(index, index + times))
        told = []
        program = struck(world.build(), trouble, late=late)
        made = world.run(program, hooks=quiet(ran_out=told.append))
        assert torch.equal(made, world.undisturbed), index
        assert len(told) == len([i for i in trouble.at if i < trouble.calls])


@pytest.mark.parametrize("error", MEMORY_RAN_OUT, ids=lambda error: str(error)[:30] or "plain")
def test_whatever_says_that_memory_ran_out_counts(error):
    world = World(CASES["stream"])
    program = struck(world.build(), Trouble(3, error=error), late=False)
    assert torch.equal(world.run(program, hooks=quiet()), world.undisturbed)


def test_room_is_made_after_the_second_failure_only():
    world = World(CASES["stream"])
    for times, wanted in ((1, 0), (2, 1)):
        made_room = []
        program = struck(world.build(), Trouble(*range(3, 3 + times)), late=False)
        world.run(program, hooks=quiet(make_room=lambda log=made_room: log.append(1)))
        assert len(made_room) == wanted


def test_out_of_memory_at_the_copy_out(world):
    counted = Kept()
    world.run(output=counted)
    for index in range(counted.trouble.calls):
        for times in (1, 2):
            output = Kept(Trouble(*range(index, index + times)))
            assert torch.equal(world.run(output=output, hooks=quiet()), world.undisturbed)
    for index in range(counted.commit_trouble.calls):
        output = Kept(commit_trouble=Trouble(index))
        assert torch.equal(world.run(output=output, hooks=quiet()), world.undisturbed)


@pytest.mark.parametrize("method", ["keep", "fetch"])
@pytest.mark.parametrize("times", [1, 2])
def test_out_of_memory_where_results_wait(world, monkeypatch, method, times):
    real, counted = getattr(Parking, method), Trouble()

    def striking(trouble):
        def call(self, *args, **kwargs):
            trouble.strike()
            return real(self, *args, **kwargs)

        return call

    monkeypatch.setattr(Parking, method, striking(counted))
    world.run(hooks=quiet())
    # The first is the source itself: nothing was begun yet.
    for index in range(method == "keep", counted.calls):
        monkeypatch.setattr(Parking, method, striking(Trouble(*range(index, index + times))))
        made = world.run(hooks=quiet())
        assert torch.equal(made, world.undisturbed), index


@pytest.mark.parametrize("name", sorted(CASES))
def test_host_memory_that_runs_out_in_any_page(name):
    world = World(CASES[name], resident_bytes=0)

    class Scarce(HostPages):
        def _new(self):
            trouble.strike()
            return super()._new()

    trouble = Trouble(error=MemoryError())
    world.run(pages=Scarce(512, locks=False))
    needed = trouble.calls
    # The first hold the source itself: nothing was begun yet.
    for index in range(-(-world.source.nbytes // 512), needed):
        trouble = Trouble(index, error=MemoryError())
        made = world.run(pages=Scarce(512, locks=False), hooks=quiet())
        assert torch.equal(made, world.undisturbed), index


def test_other_errors_pass_through(world):
    with pytest.raises(ZeroDivisionError):
        world.run(struck(world.build(), Trouble(2, error=ZeroDivisionError()), late=False))


def test_a_run_without_trouble_equals_the_network(case):
    build, source, forward = case
    assert relative(run_whole(build(), source), forward(source)) < 1e-6
