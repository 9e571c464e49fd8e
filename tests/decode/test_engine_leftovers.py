"""After failures and interrupts nothing is left: no carry, no page, no tensor."""

import gc
import weakref
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

import pytest

torch = pytest.importorskip("torch")

from support.faulty_programs import CASES, CPU, Kept, Trouble, World, quiet, struck  # noqa: E402
from support.toy_decoders import (  # noqa: E402
    Fixed,
    chain,
    noise,
    simple,
)

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.decode.program import Program  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402

# Carries.


def test_a_carry_that_saw_a_failure_is_not_used_again():
    """Each run strikes after its stage changed the carry it was lent."""
    world = World(CASES["clip"])
    marked = set()

    def soiled(stage):
        def run(x, carry, place):
            assert not (isinstance(carry.state, dict) and carry.state.get("soiled")), stage.name
            made = stage.run(x, carry, place)
            if (stage.name, place) not in marked:
                marked.add((stage.name, place))
                if isinstance(carry.state, dict):
                    carry.state["soiled"] = True
                raise torch.cuda.OutOfMemoryError
            return made

        return replace(stage, run=run)

    program = world.build()
    phase = replace(program.phases[0], stages=tuple(map(soiled, program.phases[0].stages)))
    assert torch.equal(world.run(Program((phase,)), hooks=quiet()), world.undisturbed)
    assert len(marked) > 10


# Interrupts.


class Interrupted(BaseException):
    pass


def test_an_interrupt_passes_at_every_check_and_leaves_nothing(world):
    counted = Trouble()
    world.run(hooks=quiet(check=counted.strike))
    assert counted.calls > 4
    for index in range(counted.calls):
        output = Kept()
        trouble = Trouble(index, error=Interrupted())
        with pytest.raises(Interrupted):
            world.run(output=output, hooks=quiet(check=trouble.strike))
        assert trouble.calls == index + 1


def test_there_is_a_check_before_every_part(world):
    log = []

    def noted(stage):
        def run(x, carry, place):
            log.append(stage.name)
            return stage.run(x, carry, place)

        return replace(stage, run=run)

    phases = [replace(p, stages=tuple(map(noted, p.stages))) for p in world.build().phases]
    world.run(Program(tuple(phases)), hooks=quiet(check=lambda: log.append("check")))
    runs = [len(list(group)) for name, group in groupby(log, "check".__eq__) if not name]
    # A part runs its own stage, and looks ahead into the next one.
    assert max(runs) <= 2


# What is held.


@pytest.mark.parametrize("how", ["done", "struck", "interrupted"])
def test_nothing_is_held_afterwards(case, resident_bytes, how):
    build, source, _ = case
    storages = []

    def watched(stage):
        def run(x, carry, place):
            storages.append(weakref.ref(x.untyped_storage()))
            return stage.run(x, carry, place)

        return replace(stage, run=run)

    source = source.clone()
    phases = [replace(p, stages=tuple(map(watched, p.stages))) for p in build().phases]
    program = Program(tuple(phases))
    trouble = Trouble(error=Interrupted())
    if how == "struck":
        program = struck(program, Trouble(4, 5, 6, 7, 8), late=True)
    if how == "interrupted":
        trouble.at = {6}
    sizer = Fixed(2, source=source, resident_bytes=resident_bytes)
    hooks = quiet(check=trouble.strike)
    engine = Engine(program, sizer, CPU, hooks, HostPages(512, locks=False))
    output = Kept()
    with suppress(Interrupted, PartDoesNotFitError):
        engine.run(source, output)
    output.made.clear()
    alive = source.untyped_storage()._cdata
    gc.collect()
    held = [each() for each in storages]
    assert all(each is None or each._cdata == alive for each in held)


@pytest.mark.parametrize("times", [1, 2])
def test_while_memory_is_made_free_the_failed_part_holds_nothing(times):
    """Its tensors would be what the second try lacks."""
    made, alive = [], []

    def layer(x):
        y = x * 2
        made.append(weakref.ref(y.untyped_storage()))
        if len(made) <= times:
            raise torch.cuda.OutOfMemoryError
        return y

    def look():
        alive.append([each() is not None for each in made])

    source = noise(1, 2, 6, 6)
    program = chain(simple("double", layer), simple("same", lambda x: x))
    hooks = Hooks(empty_cache=look)
    assert torch.equal(Engine(program, Fixed(3, source=source), CPU, hooks).run(source), source * 2)
    assert alive == [[False] * (index + 1) for index in range(times)]
