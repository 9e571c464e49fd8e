"""Parts put together are the whole, however it is cut."""

import pytest

torch = pytest.importorskip("torch")

from fractions import Fraction  # noqa: E402

from support.toy_decoders import (  # noqa: E402
    Clips,
    Encoder,
    Fixed,
    Kl,
    chain,
    chunks_of,
    noise,
    relative,
    run_whole,
    simple,
)
from torch import nn  # noqa: E402

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.decode.program import Phase, Program, Stage  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402

CPU = torch.device("cpu")
EXACT = 1e-6


def small_pages():
    """Of a size that these results fill."""
    return HostPages(1 << 12, locks=False)


def run(program, source, rows, columns=None, **how):
    sizer = Fixed(rows, columns, source=source, **how)
    return Engine(program, sizer, CPU, pages=small_pages()).run(source)


def decoded_by(program, source, rows, columns=None, **how):
    wrote = Canvas()
    sizer = Fixed(rows, columns, source=source, **how)
    assert Engine(program, sizer, CPU, pages=small_pages()).run(source, wrote) is None
    return wrote


class Canvas:
    """An Output that paints, and refuses to paint over what is final."""

    def __init__(self, done=()):
        self.painted, self.final, self.done = {}, {}, set(done)

    def has(self, rect):
        return rect in self.done

    def write(self, first_frame, rect, made):
        frames = made.shape[2] if made.ndim == 5 else 1
        assert made.shape[-2:] == (rect.height, rect.width)
        for offset in range(frames):
            frame = made[:, :, offset] if made.ndim == 5 else made
            for row in range(rect.top, rect.bottom):
                for column in range(rect.left, rect.right):
                    key = (first_frame + offset, row, column)
                    assert key not in self.final, f"{key} is final"
                    self.painted[key] = frame[0, :, row - rect.top, column - rect.left].clone()

    def forget(self, rect):
        """What is not final is painted again."""

    def commit(self, first_frame, frames, rect):
        for frame in range(first_frame, first_frame + frames):
            for row in range(rect.top, rect.bottom):
                for column in range(rect.left, rect.right):
                    assert (frame, row, column) in self.painted
                    assert (frame, row, column) not in self.final, "made twice"
                    self.final[frame, row, column] = True

    def picture(self):
        frames, rows, columns = (max(key[i] for key in self.painted) + 1 for i in range(3))
        assert set(self.final) == set(self.painted)
        pixels = [
            self.painted[f, r, c]
            for f in range(frames)
            for r in range(rows)
            for c in range(columns)
        ]
        return torch.stack(pixels, 1).view(1, -1, frames, rows, columns)


# Pictures with norms over the whole.


@pytest.fixture(scope="module")
def network():
    return Kl()


@pytest.mark.parametrize("shape", [(9, 7), (7, 9)], ids=["bands of rows", "bands of columns"])
@pytest.mark.parametrize("part", range(1, 10))
def test_a_picture_decoder_is_exact_for_every_part_size(network, shape, part):
    latent = noise(1, 4, *shape)
    made = run(network.program(), latent, part)
    assert relative(made, network.decode(latent)) < EXACT


@pytest.mark.parametrize("resident_bytes", [0, 1 << 10, 1 << 14, 1 << 18])
def test_results_may_wait_wherever(network, resident_bytes):
    latent = noise(1, 4, 9, 7)
    made = run(network.program(), latent, 2, resident_bytes=resident_bytes)
    assert relative(made, network.decode(latent)) < EXACT


def test_uncut_it_is_equal_to_the_bit(network):
    latent = noise(1, 4, 9, 7)
    assert torch.equal(run(network.program(), latent, 9), network.decode(latent))


def test_half_types_stay_within_their_rounding(network):
    latent = noise(1, 4, 12, 8)
    wanted = network.decode(latent)
    half = Kl().to(torch.bfloat16)
    made = run(half.program(), latent.bfloat16(), 3)
    noise_floor = relative(half.decode(latent.bfloat16()), wanted)
    assert relative(made, wanted) < 1.5 * noise_floor


def test_double_precision(network):
    exact = Kl().double()
    latent = noise(1, 4, 9, 7).double()
    assert relative(run(exact.program(), latent, 2), exact.decode(latent)) < 1e-6


def test_a_picture_far_from_zero(network):
    latent = noise(1, 4, 9, 7, mean=50.0)
    assert relative(run(network.program(), latent, 2), network.decode(latent)) < 1e-5


def test_what_is_given_is_left_as_it_is(network):
    latent = noise(1, 4, 9, 7)
    before = latent.clone()
    run(network.program(), latent, 2)
    assert torch.equal(latent, before)


def test_each_output_pixel_is_written_and_committed_once(network):
    latent = noise(1, 4, 6, 5)
    canvas = decoded_by(network.program(), latent, 2)
    assert relative(canvas.picture()[:, :, 0], network.decode(latent)) < EXACT


# Encoders.


@pytest.mark.parametrize("shape", [(16, 12), (12, 20)])
@pytest.mark.parametrize("part", [1, 2, 3, 4, 5, 7, 8, 11, 16, 20])
def test_an_encoder_is_exact_for_every_part_size(shape, part):
    network = Encoder()
    pixels = noise(1, 3, *shape)
    made = run(network.program(), pixels, part)
    assert relative(made, network(pixels)) < EXACT


@pytest.mark.parametrize("shape", [(17, 12), (13, 19), (18, 15)])
@pytest.mark.parametrize("part", [2, 3, 4, 6, 8, 16])
def test_an_encoder_takes_odd_sizes(shape, part):
    network = Encoder()
    pixels = noise(1, 3, *shape)
    assert relative(run(network.program(), pixels, part), network(pixels)) < EXACT


# Clips.


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("lengths", [(1,), (1, 2), (3,), (8,)])
def test_a_causal_clip_is_exact_for_every_cut_of_time(frames, lengths):
    network = Clips()
    latent = noise(1, 4, frames, 6, 5)
    made = run(network.program(chunks_of(*lengths)), latent, 2)
    assert made.shape == (1, 3, 2 * frames, 12, 10)
    assert relative(made, network(latent)) < EXACT


@pytest.mark.parametrize("part", range(1, 8))
@pytest.mark.parametrize("resident_bytes", [0, 1 << 12, 1 << 40])
def test_a_causal_clip_is_exact_for_every_part_size(part, resident_bytes):
    network = Clips()
    latent = noise(1, 4, 4, 5, 7)
    made = run(network.program(chunks_of(1, 2)), latent, part, resident_bytes=resident_bytes)
    assert relative(made, network(latent)) < EXACT


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("columns", [1, 2, 4, 5])
@pytest.mark.parametrize("lengths", [(1,), (1, 2), (5,)])
def test_tiles_streamed_through_time_are_exact(rows, columns, lengths):
    network = Clips(normed=False)
    latent = noise(1, 4, 5, 7, 5)
    made = run(network.streamed(chunks_of(*lengths)), latent, rows, columns)
    assert relative(made, network(latent)) < EXACT


@pytest.mark.parametrize("resident_bytes", [0, 1 << 11, 1 << 40])
def test_streamed_pieces_arrive_in_the_order_of_time(resident_bytes):
    network = Clips(normed=False)
    latent = noise(1, 4, 3, 4, 5)
    program = network.streamed(chunks_of(1, 2))
    canvas = decoded_by(program, latent, 2, resident_bytes=resident_bytes)
    assert relative(canvas.picture(), network(latent)) < EXACT


def test_pieces_of_a_stage_in_the_middle_are_joined():
    def split(x, carry, place):
        yield from (2 * x).split(1, dim=2)

    program = chain(Stage("split", split), simple("shift", lambda x: x + 1), chunks=chunks_of(2))
    latent = noise(1, 4, 5, 6, 3)
    assert torch.equal(run(program, latent, 2), 2 * latent + 1)


# What stages are told.


@pytest.mark.parametrize("stages", [1, 2])
def test_a_stage_is_told_where_its_part_lies(stages):
    told = []

    def look(x, carry, place):
        told.append(place)
        assert x.shape[-2:] == (place.context.height, place.context.width)
        assert x.shape[2] == place.frames
        assert torch.equal(x, _cut(place))
        return x

    def _cut(place):
        c = place.context
        frames = slice(place.first_frame, place.first_frame + place.frames)
        return source[:, :, frames, c.top : c.bottom, c.left : c.right]

    source = noise(1, 2, 5, 6, 4)
    same = [simple("same", lambda x: x)] * (stages - 1)
    program = chain(Stage("look", look, halo=1), *same, chunks=chunks_of(1, 2))
    assert torch.equal(run(program, source, 3), source)
    assert {(p.height, p.width, p.total_frames) for p in told} == {(6, 4, 5)}
    assert {p.first_frame for p in told if p.is_first} == {0}
    assert {p.first_frame for p in told if p.is_last} == {3}


def test_a_stage_that_must_see_everything_does():
    seen = []

    def everything(x):
        seen.append(tuple(x.shape[-2:]))
        return x - x.mean(dim=(-2, -1), keepdim=True)

    blur = nn.AvgPool2d(3, 1, 1)
    program = chain(
        simple("before", blur, halo=1),
        simple("between", everything, whole=True),
        simple("after", blur, halo=1),
    )
    source = noise(1, 2, 7, 6)
    assert relative(run(program, source, 2), run_whole(program, source)) < EXACT
    assert seen == [(7, 6), (7, 6)]


def test_phases_follow_each_other():
    blur = nn.AvgPool2d(3, 1, 1)
    larger = nn.Upsample(scale_factor=2)
    program = Program(
        (
            Phase((simple("tiles", blur, halo=1),)),
            Phase((simple("blur", blur, halo=1), simple("larger", larger, scale=Fraction(2)))),
            Phase((simple("tiles again", blur, halo=1),)),
        )
    )
    source = noise(1, 2, 7, 6)
    assert relative(run(program, source, 2, 3), run_whole(program, source)) < EXACT


# What the caller hears.


def test_progress_covers_every_stage_exactly_once(network):
    heard = []
    latent = noise(1, 4, 8, 5)
    program = network.program()
    hooks = Hooks(progress=heard.append)
    Engine(program, Fixed(2, source=latent), CPU, hooks).run(latent)
    for number in range(len(program.phases[0].stages)):
        made = [each.rect for each in heard if each.stage == number and each.committed]
        rows = sorted((rect.top, rect.bottom) for rect in made)
        assert [top for top, _ in rows] == [0, *(bottom for _, bottom in rows[:-1])]
        assert len(set(made)) == len(made)
    assert any(not each.committed for each in heard)


def test_finished_tiles_are_skipped():
    calls = []

    def count(x):
        calls.append(1)
        return x

    source = noise(1, 2, 4, 4)
    canvas = Canvas(done=[Rect(0, 2, 0, 2), Rect(2, 4, 2, 4)])
    heard = []
    hooks = Hooks(progress=heard.append)
    Engine(chain(simple("same", count)), Fixed(2, source=source), CPU, hooks).run(source, canvas)
    assert len(calls) == 2
    assert len(heard) == 4
    assert {key[1:] for key in canvas.painted} == {
        (r, c) for r in range(4) for c in range(4) if (r < 2) != (c < 2)
    }
