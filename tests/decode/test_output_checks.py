"""What does not fit where it belongs is an error; memory that is short is not; a tile that failed
leaves nothing behind."""

import weakref

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import Clips, Fixed, chain, chunks_of, noise, relative, simple  # noqa: E402

from vram_supervisor.supervisor.decode import output as output_module  # noqa: E402
from vram_supervisor.supervisor.decode.assembly import Assembly  # noqa: E402
from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.output import PixelOutput  # noqa: E402
from vram_supervisor.supervisor.decode.parking import Parking  # noqa: E402
from vram_supervisor.supervisor.decode.program import Program  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.decode.store import Clip  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402
from vram_supervisor.supervisor.errors import DecodedOtherwiseError, SupervisorError  # noqa: E402

CPU = torch.device("cpu")
EVERYTHING = Rect(0, 4, 0, 6)


def an_output(frames=5, first=0):
    """With a sink that has more frames than the item."""
    sink = TensorSink()
    sink.begin(20, 4, 6, 3)
    return PixelOutput(sink, lambda pixels: pixels, first, frames), sink


# Sizes.


@pytest.mark.parametrize(
    ("sentence", "first", "shape", "said"),
    [
        ("a picture too high", 0, (1, 3, 5, 6), "6 x 5 pixels where 6 x 4"),
        ("a picture too narrow", 0, (1, 3, 4, 5), "5 x 4 pixels where 6 x 4"),
        ("a clip twice as large", 0, (1, 3, 2, 8, 12), "12 x 8 pixels where 6 x 4"),
        ("one row, which would spread to all", 0, (1, 3, 1, 1, 6), "6 x 1 pixels"),
        ("more frames than there are", 0, (1, 3, 6, 4, 6), "at least 6 frames where 5"),
        ("frames beyond the end", 4, (1, 3, 2, 4, 6), "at least 6 frames where 5"),
    ],
)
@pytest.mark.parametrize("item", [0, 7])
def test_what_does_not_fit_is_an_error_and_touches_nobody_elses_pixels(
    sentence, first, shape, said, item
):
    output, sink = an_output(first=item)
    sink.pixels.zero_()
    with pytest.raises(DecodedOtherwiseError, match=said):
        output.write(first, EVERYTHING, torch.ones(shape))
    output.flush()
    assert sink.pixels.abs().sum() == 0, sentence


@pytest.mark.parametrize(
    ("first", "shape"), [(0, (1, 3, 4, 6)), (0, (1, 3, 5, 4, 6)), (4, (1, 3, 1, 4, 6))]
)
def test_what_fits_to_the_last_frame_is_written(first, shape):
    output, sink = an_output()
    output.write(first, EVERYTHING, torch.ones(shape))
    output.flush()
    frames = shape[2] if len(shape) == 5 else 1
    assert sink.pixels[first : first + frames].min() == 1


@pytest.mark.parametrize(
    ("sentence", "commits", "said"),
    [
        ("nothing was made", [], "0 frames where 5"),
        ("the last frame is missing", [(0, 4)], "4 frames where 5"),
        ("chunks end too early", [(0, 1), (1, 2)], "3 frames where 5"),
    ],
)
def test_frames_that_are_missing_at_the_end_are_an_error(sentence, commits, said):
    output, _ = an_output()
    for first, frames in commits:
        output.commit(first, frames, EVERYTHING)
    with pytest.raises(DecodedOtherwiseError, match=said):
        output.check_complete()


@pytest.mark.parametrize("commits", [[(0, 5)], [(0, 1), (1, 4)], [(3, 2), (0, 3)]])
def test_with_all_frames_it_is_complete(commits):
    output, _ = an_output(first=7)
    for first, frames in commits:
        output.commit(first, frames, EVERYTHING)
    output.check_complete()


def test_what_an_earlier_run_finished_is_complete_without_being_made():
    output, sink = an_output(first=7)
    sink.commit(7, 5, EVERYTHING)
    assert output.has(EVERYTHING)
    output.check_complete()


def test_the_error_says_what_was_made_what_is_kept_and_what_to_do():
    problem = DecodedOtherwiseError("10 frames", "13")
    assert isinstance(problem, SupervisorError)
    for words in ("10 frames", "13 was expected", "is kept", "VAE Decode", "report"):
        assert words in str(problem)


# Page-locked memory that is short.


def refuse_locking(monkeypatch, refused):
    """As where the system has no more memory to lock, but plenty of the other kind."""
    empty = torch.empty

    def short(*sizes, pin_memory=False, **how):
        if pin_memory:
            refused.append(sizes)
            raise RuntimeError("CUDA error: out of memory")
        return empty(*sizes, **how)

    monkeypatch.setattr(output_module.torch, "empty", short)


def test_without_page_locked_memory_copies_go_through_the_other_kind(monkeypatch, caplog):
    caplog.set_level("INFO")
    refused = []
    refuse_locking(monkeypatch, refused)
    output, _ = an_output()
    pixels = torch.ones(2, 4, 6, 3)
    buffer = output._buffer(pixels)
    assert len(refused) == 1
    assert buffer.numel() * buffer.element_size() == output_module.STAGING_BYTES
    assert not buffer.is_pinned()
    assert "No page-locked memory for pictures" in caplog.text


def test_another_error_of_locking_is_not_swallowed(monkeypatch):
    def broken(*sizes, **how):
        raise TypeError("no such argument")

    monkeypatch.setattr(output_module.torch, "empty", broken)
    with pytest.raises(TypeError):
        output_module._staging()


# A tile that failed, where a phase collects its tiles for the next one.


def test_what_a_tile_wrote_before_it_failed_is_let_go_of():
    clip = Clip(Parking(CPU, 1 << 30))
    assembly = Assembly(clip)
    upper, lower = Rect(0, 2, 0, 4), Rect(2, 4, 0, 4)
    assembly.write(0, lower, torch.full((1, 2, 1, 2, 4), 3.0))
    stale = torch.ones(1, 2, 1, 2, 4)
    gone = weakref.ref(stale.untyped_storage())
    assembly.write(0, upper, stale)
    del stale
    assembly.forget(upper)
    assert gone() is None
    for left, right in ((0, 2), (2, 4)):
        assembly.write(0, Rect(0, 2, left, right), torch.full((1, 2, 1, 2, 2), 5.0))
    assembly.finish()
    made = clip.whole()
    assert made[..., :2, :].unique().tolist() == [5.0]
    assert made[..., 2:, :].unique().tolist() == [3.0]


class Collected:
    """Two phases of one stage each, the first of which fails late in its large tiles."""

    def __init__(self):
        self.net, self.source = Clips(normed=False), noise(1, 4, 3, 6, 5)
        self.stale, self.alive = [], []
        """First frames of tiles, and how many of them were there as each tile began."""

    def build(self, limit):
        """A program whose first phase fits in tiles of at most so many rows."""
        first, second = self.net.streamed(chunks_of(1, 2)).phases
        up = second.stages[0]

        def run(x, carry, place):
            if place.first_frame == 0:
                self.alive.append(sum(each() is not None for each in self.stale))
            for number, made in enumerate(up.run(x, carry, place)):
                if number or place.first_frame:
                    if place.context.bottom - place.context.top > limit:
                        raise MemoryError
                else:
                    self.stale.append(weakref.ref(made.untyped_storage()))
                yield made

        struck = type(up)(up.name, run, up.halo, up.scale)
        same = chain(simple("same", lambda x: x * 1.0)).phases
        return Program((first, type(second)((struck,), second.chunks), *same))


def test_a_tile_that_failed_for_good_leaves_nothing_beside_its_halves():
    case = Collected()
    parts = []
    hooks = Hooks(empty_cache=lambda: None, progress=parts.append)
    sizer = Fixed(6, 5, source=case.source)
    made = Engine(case.build(limit=5), sizer, CPU, hooks).run(case.source)
    assert relative(made, case.net(case.source)) < 1e-6
    halves = [each for each in parts if each.phase == 1]
    assert len(halves) > 1, "it was made in smaller tiles"
    # Three attempts at the whole, each of which had written its first frames, and the first half.
    assert len(case.stale) == 3 + len(halves)
    assert case.alive[:4] == [0, 0, 0, 0]
