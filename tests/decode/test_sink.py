"""The sink that collects everything in one tensor."""

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import noise  # noqa: E402

from vram_supervisor.supervisor.decode.sink import POURED_FRAMES, TensorSink, pour  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402

LEFT, RIGHT, EVERYTHING = Rect(0, 4, 0, 2), Rect(0, 4, 2, 5), Rect(0, 4, 0, 5)


@pytest.fixture
def sink():
    made = TensorSink()
    made.begin(3, 4, 5, 3)
    return made


def test_before_it_began_there_is_nothing():
    with pytest.raises(RuntimeError, match="nothing was decoded yet"):
        _ = TensorSink().pixels
    assert not TensorSink().has(0, 1, EVERYTHING)


def test_writing_goes_where_it_belongs(sink):
    sink.write(0, EVERYTHING, torch.zeros(3, 4, 5, 3))
    part = noise(2, 4, 3, 3)
    sink.write(1, RIGHT, part)
    assert torch.equal(sink.pixels[1:, :, 2:], part)
    assert sink.pixels[0].abs().sum() == 0
    assert sink.pixels[:, :, :2].abs().sum() == 0


def test_what_was_written_may_be_written_again_until_it_is_final(sink):
    sink.write(0, LEFT, torch.ones(3, 4, 2, 3))
    sink.write(0, LEFT, torch.zeros(3, 4, 2, 3))
    sink.commit(0, 3, LEFT)
    assert sink.pixels[:, :, :2].abs().sum() == 0


def test_the_buffer_may_be_used_again_after_the_call(sink):
    buffer = torch.ones(3, 4, 2, 3)
    sink.write(0, LEFT, buffer)
    buffer.zero_()
    assert sink.pixels[:, :, :2].min() == 1


@pytest.mark.parametrize(
    ("sentence", "first", "frames", "rect", "there"),
    [
        ("the very rectangle", 0, 3, LEFT, True),
        ("a part of it", 0, 3, Rect(1, 2, 0, 1), True),
        ("one beside it", 0, 3, RIGHT, False),
        ("one that reaches beyond", 0, 3, Rect(0, 4, 1, 3), False),
        ("other frames", 1, 1, RIGHT, False),
    ],
)
def test_what_is_final_is_known(sink, sentence, first, frames, rect, there):
    sink.commit(0, 3, LEFT)
    assert sink.has(first, frames, rect) is there


def test_written_is_not_final(sink):
    sink.write(0, LEFT, torch.ones(3, 4, 2, 3))
    assert not sink.has(0, 3, LEFT)


def test_parts_make_up_a_whole(sink):
    sink.commit(0, 3, LEFT)
    sink.commit(0, 3, RIGHT)
    assert sink.has(0, 3, EVERYTHING)


@pytest.mark.parametrize(
    ("sentence", "commits", "first", "frames", "there"),
    [
        ("chunks one after the other", [(0, 1, EVERYTHING), (1, 2, EVERYTHING)], 0, 3, True),
        ("chunks with a gap between them", [(0, 1, EVERYTHING), (2, 1, EVERYTHING)], 0, 3, False),
        ("chunks that end too early", [(0, 1, EVERYTHING), (1, 1, EVERYTHING)], 0, 3, False),
        ("a few frames of a longer stretch", [(0, 3, EVERYTHING)], 1, 1, True),
        ("frames across two stretches", [(0, 2, EVERYTHING), (2, 1, EVERYTHING)], 1, 2, True),
        ("stretches that overlap", [(0, 2, EVERYTHING), (1, 2, EVERYTHING)], 0, 3, True),
        ("tiles of different stretches that meet in each frame",
         [(0, 3, LEFT), (0, 1, RIGHT), (1, 2, RIGHT)], 0, 3, True),
        ("tiles of different stretches that miss one frame",
         [(0, 3, LEFT), (0, 1, RIGHT), (2, 1, RIGHT)], 0, 3, False),
        ("tiles that make up a whole in no frame", [(0, 1, LEFT), (1, 2, RIGHT)], 0, 3, False),
        ("the same, asked of a single frame", [(0, 1, LEFT), (1, 2, RIGHT)], 1, 1, False),
    ],
)  # fmt: skip
def test_parts_of_different_stretches_of_frames_make_up_a_whole(
    sink, sentence, commits, first, frames, there
):
    for commit in commits:
        sink.commit(*commit)
    assert sink.has(first, frames, EVERYTHING) is there, sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_it_collects_in_the_type_that_was_asked_for(dtype):
    sink, pixels = TensorSink(dtype), noise(3, 4, 5, 3)
    sink.begin(3, 4, 5, 3)
    sink.write(0, EVERYTHING, pixels)
    assert sink.pixels.dtype == dtype
    assert torch.equal(sink.pixels, pixels.to(dtype))


def test_beginning_again_keeps_what_is_there(sink):
    sink.write(0, LEFT, torch.ones(3, 4, 2, 3))
    sink.commit(0, 3, LEFT)
    sink.begin(3, 4, 5, 3)
    assert sink.has(0, 3, LEFT)
    assert sink.pixels[:, :, :2].min() == 1


@pytest.mark.parametrize("shape", [(4, 4, 5, 3), (3, 8, 5, 3), (3, 4, 5, 4)])
def test_beginning_something_else_keeps_nothing(sink, shape):
    sink.commit(0, 3, LEFT)
    sink.begin(*shape)
    assert tuple(sink.pixels.shape) == shape
    assert not sink.has(0, 3, LEFT)


@pytest.mark.parametrize("frames", [1, POURED_FRAMES - 1, POURED_FRAMES, 2 * POURED_FRAMES + 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_pouring_a_finished_decode(frames, dtype):
    images, sink = noise(frames, 4, 5, 3).to(dtype), TensorSink()
    pour(images, sink)
    assert torch.equal(sink.pixels, images.float())
    for first in range(0, frames, POURED_FRAMES):
        assert sink.has(first, min(POURED_FRAMES, frames - first), EVERYTHING)


def test_pouring_again_writes_nothing():
    class Once(TensorSink):
        writes = 0

        def write(self, first_frame, rect, pixels):
            self.writes += 1
            super().write(first_frame, rect, pixels)

    images, sink = noise(POURED_FRAMES + 1, 4, 5, 3), Once()
    pour(images, sink)
    pour(images, sink)
    assert sink.writes == 2


def test_what_was_begun_in_inference_mode_goes_on_outside_of_it():
    sink = TensorSink()
    with torch.inference_mode():
        sink.begin(3, 4, 5, 3)
        sink.commit(0, 3, LEFT)
    sink.write(0, RIGHT, torch.ones(3, 4, 3, 3))
    sink.commit(0, 3, RIGHT)
    assert sink.has(0, 3, EVERYTHING)
