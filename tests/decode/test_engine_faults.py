"""Memory that runs out, and interrupts, wherever they strike: nothing is lost, nothing is left."""

import gc
import weakref
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import (  # noqa: E402
    Clips,
    Fixed,
    Kl,
    chain,
    chunks_of,
    noise,
    relative,
    run_whole,
    simple,
)

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402
from vram_supervisor.supervisor.decode.program import Program, pieces_of  # noqa: E402
from vram_supervisor.supervisor.decode.running import RETRIES, Hooks  # noqa: E402
from vram_supervisor.supervisor.errors import PartDoesNotFitError  # noqa: E402

CPU = torch.device("cpu")
MEMORY_RAN_OUT = [
    torch.cuda.OutOfMemoryError("Allocation on device"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Trouble:
    """Raises at chosen calls; counts them all."""

    def __init__(self, *at, error=MEMORY_RAN_OUT[0]):
        self.at, self.error, self.calls = set(at), error, 0

    def strike(self):
        self.calls += 1
        if self.calls - 1 in self.at:
            # A new one: an error keeps alive what its traceback saw.
            raise type(self.error)(*self.error.args)


class Kept:
    """An Output that keeps the last that was written and knows what is final."""

    def __init__(self, trouble=None, commit_trouble=None):
        self.trouble, self.commit_trouble = trouble or Trouble(), commit_trouble or Trouble()
        self.made, self.final = {}, []

    def has(self, rect):
        return False

    def write(self, first_frame, rect, made):
        self.trouble.strike()
        frames = made.shape[2] if made.ndim == 5 else 1
        assert not any(_meet(each, (first_frame, frames, rect)) for each in self.final)
        self.made[first_frame, rect] = made.clone()

    def commit(self, first_frame, frames, rect):
        self.commit_trouble.strike()
        self.final.append((first_frame, frames, rect))

    def picture(self, like):
        made = torch.full_like(like, float("nan"))
        for (first, rect), part in self.made.items():
            target = made[..., rect.top : rect.bottom, rect.left : rect.right]
            if part.ndim == 5:
                target = target[:, :, first : first + part.shape[2]]
            target.copy_(part)
        return made


def _meet(one, other):
    """Whether two stretches of frames of two rectangles have a pixel in common."""
    (first, frames, a), (start, length, b) = one, other
    return (
        (first < start + length and start < first + frames)
        and (a.top < b.bottom and b.top < a.bottom)
        and (a.left < b.right and b.left < a.right)
    )


def struck(program, trouble, *, late):
    """A program whose stages strike as they begin, or with their work done."""

    def wrapped(stage):
        def run(x, carry, place):
            if not late:
                trouble.strike()
            made = stage.run(x, carry, place)
            if hasattr(made, "shape"):
                if late:
                    trouble.strike()
                return made
            return _struck_pieces(made, trouble, late=late)

        return replace(stage, run=run)

    phases = [replace(p, stages=tuple(map(wrapped, p.stages))) for p in program.phases]
    return Program(tuple(phases))


def _struck_pieces(pieces, trouble, *, late):
    for piece in pieces:
        yield piece
        if late:
            trouble.strike()


PICTURE, CLIP, STREAM = Kl(widths=(8, 8), blocks=1), Clips(), Clips(normed=False)
CASES = {
    "picture": (PICTURE.program, noise(1, 4, 5, 4), PICTURE.decode),
    "clip": (lambda: CLIP.program(chunks_of(1, 2)), noise(1, 4, 3, 4, 4), CLIP),
    "stream": (lambda: STREAM.streamed(chunks_of(1, 2)), noise(1, 4, 3, 5, 4), STREAM),
}


@pytest.fixture(params=sorted(CASES))
def case(request):
    return CASES[request.param]


@pytest.fixture(params=[0, 1 << 11], ids=["parked", "mixed"])
def resident_bytes(request):
    return request.param


class World:
    """One case, run again and again with the same parts."""

    def __init__(self, case, resident_bytes=1 << 40):
        self.build, self.source, self.forward = case
        self.resident_bytes = resident_bytes
        self.wanted = self.forward(self.source)
        self.calls = Trouble()
        self.undisturbed = self.run(struck(self.build(), self.calls, late=False))
        assert relative(self.undisturbed, self.wanted) < 1e-6

    def run(self, program=None, output=None, hooks=None, pages=None):
        output = output or Kept()
        sizer = Fixed(2, source=self.source, resident_bytes=self.resident_bytes)
        pages = pages or HostPages(512, locks=False)
        engine = Engine(program or self.build(), sizer, CPU, hooks, pages)
        try:
            engine.run(self.source, output)
        finally:
            self.nothing_is_left(engine, pages)
        return output.picture(self.wanted)

    @staticmethod
    def nothing_is_left(engine, pages):
        assert pages.taken == 0
        assert engine.parking.resident_bytes == 0


@pytest.fixture
def world(case, resident_bytes):
    return World(case, resident_bytes)


def quiet(**how):
    return Hooks(empty_cache=lambda: None, **how)


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
    made = Engine(program, sizer, CPU, quiet()).run(source)
    assert relative(made, PICTURE.decode(source)) < 1e-6


@pytest.mark.parametrize("area", [25, 36, 49])
def test_tiles_are_halved_until_they_fit(area):
    source = noise(1, 4, 3, 13, 9)
    program = tight(STREAM.streamed(chunks_of(1, 2)), lambda stage, place: area)
    output = Kept()
    Engine(program, Fixed(64, source=source), CPU, quiet()).run(source, output)
    wanted = STREAM(source)
    assert relative(output.picture(wanted), wanted) < 1e-6


def test_a_tile_that_fails_late_in_time_is_halved_with_nothing_wrong_left():
    source = noise(1, 4, 4, 8, 8)

    def late(stage, place):
        return 1 << 20 if place.first_frame < 3 else 40

    output = Kept()
    program = tight(STREAM.streamed(chunks_of(1)), late)
    Engine(program, Fixed(64, source=source), CPU, quiet()).run(source, output)
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

    made = Engine(tight(program, late), Fixed(64, source=source), CPU, quiet()).run(source)
    assert relative(made, STREAM(source) * 2 - 1) < 1e-6


def test_a_stage_that_must_see_everything_is_never_halved():
    def everything(x):
        if x.shape[-2] == 8:
            raise torch.cuda.OutOfMemoryError
        return x - x.mean()

    source = noise(1, 4, 8, 8)
    program = chain(simple("all of it", everything, whole=True), simple("after", lambda x: x))
    with pytest.raises(PartDoesNotFitError, match="all of it"):
        Engine(program, Fixed(64, source=source), CPU, quiet()).run(source)


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
    engine = Engine(program, Fixed(4, source=source), CPU, quiet())
    with pytest.raises(PartDoesNotFitError, match=r"larger|two"):
        engine.run(source)


def test_other_errors_pass_through(world):
    with pytest.raises(ZeroDivisionError):
        world.run(struck(world.build(), Trouble(2, error=ZeroDivisionError()), late=False))


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


def test_a_run_without_trouble_equals_the_network(case):
    build, source, forward = case
    assert relative(run_whole(build(), source), forward(source)) < 1e-6
