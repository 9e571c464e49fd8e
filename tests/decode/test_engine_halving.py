"""Memory that goes on running out: parts become smaller until they fit."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from support.faulty_programs import (  # noqa: E402
    CASES,
    CLIP,
    CPU,
    PICTURE,
    STREAM,
    Kept,
    World,
    quiet,
    small_pages,
)
from support.toy_decoders import (  # noqa: E402
    Fixed,
    chain,
    chunks_of,
    noise,
    relative,
    simple,
)

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.program import Program, pieces_of  # noqa: E402
from vram_supervisor.supervisor.decode.running import RETRIES  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402

# It goes on running out: parts become smaller.


def tight(program, most_area):
    """A program whose stages run out of memory on parts of more than ``most_area``."""

    def wrapped(stage):
        def run(x, carry, place):
            made = list(pieces_of(stage.run(x, carry, place)))
            # With the work done: a glance at the next stage's norms never comes so far.
            if not stage.whole and x.shape[-1] * x.shape[-2] > most_area(stage, place):
                raise torch.cuda.OutOfMemoryError
            return iter(made)

        return replace(stage, run=run)

    phases = [replace(p, stages=tuple(map(wrapped, p.stages))) for p in program.phases]
    return Program(tuple(phases))


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 64])
def test_parts_of_a_picture_are_halved_until_they_fit(rows):
    source = noise(1, 4, 13, 5)
    program = tight(PICTURE.program(), lambda stage, place: (2 * stage.halo + rows) * place.width)
    sizer = Fixed(64, source=source)
    made = Engine(program, sizer, CPU, quiet(), small_pages()).run(source)
    assert relative(made, PICTURE.decode(source)) < 1e-6


@pytest.mark.parametrize("area", [25, 36, 49])
def test_tiles_are_halved_until_they_fit(area):
    source = noise(1, 4, 3, 13, 9)
    program = tight(STREAM.streamed(chunks_of(1, 2)), lambda stage, place: area)
    output = Kept()
    Engine(program, Fixed(64, source=source), CPU, quiet(), small_pages()).run(source, output)
    wanted = STREAM(source)
    assert relative(output.picture(wanted), wanted) < 1e-6


def test_a_tile_that_fails_late_in_time_is_halved_with_nothing_wrong_left():
    source = noise(1, 4, 4, 8, 8)

    def late(stage, place):
        return 1 << 20 if place.first_frame < 3 else 40

    output = Kept()
    program = tight(STREAM.streamed(chunks_of(1)), late)
    Engine(program, Fixed(64, source=source), CPU, quiet(), small_pages()).run(source, output)
    wanted = STREAM(source)
    # The halves' pixels come after those of the tile that never was finished.
    assert relative(output.picture(wanted), wanted) < 1e-6
    assert all(rect.height * rect.width < 16 * 16 for _, _, rect in output.final)


def test_halved_tiles_of_an_earlier_phase_join_rightly():
    source = noise(1, 4, 4, 8, 8)
    first = STREAM.streamed(chunks_of(1)).phases
    again = chain(simple("again", lambda x: x * 2), simple("and again", lambda x: x - 1)).phases
    program = Program((*first, *again))

    def late(stage, place):
        return 40 if stage.name == "up" and place.first_frame >= 3 else 1 << 20

    made = Engine(tight(program, late), Fixed(64, source=source), CPU, quiet(), small_pages()).run(
        source
    )
    assert relative(made, STREAM(source) * 2 - 1) < 1e-6


def test_a_stage_that_must_see_everything_is_never_halved():
    def everything(x):
        if x.shape[-2] == 8:
            raise torch.cuda.OutOfMemoryError
        return x - x.mean()

    source = noise(1, 4, 8, 8)
    program = chain(simple("all of it", everything, whole=True), simple("after", lambda x: x))
    with pytest.raises(PartDoesNotFitError, match="all of it"):
        Engine(program, Fixed(64, source=source), CPU, quiet(), small_pages()).run(source)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_smallest_part_that_does_not_fit_is_an_error_that_names_it(name):
    world = World(CASES[name])
    told = []
    program = tight(world.build(), lambda stage, place: 0)
    with pytest.raises(PartDoesNotFitError, match="smallest part"):
        world.run(program, hooks=quiet(ran_out=told.append))
    assert len(told) >= 1 + RETRIES


def test_what_is_halved_in_time_keeps_its_memory_of_the_past():
    """Where time goes on parts cannot be halved: a clear error, never a wrong picture."""
    source = noise(1, 4, 4, 8, 8)

    def late(stage, place):
        return 8 if place.first_frame >= 2 and stage.name == "two" else 1 << 20

    program = tight(CLIP.program(chunks_of(1)), late)
    engine = Engine(program, Fixed(4, source=source), CPU, quiet(), small_pages())
    with pytest.raises(PartDoesNotFitError, match=r"larger|two"):
        engine.run(source)
