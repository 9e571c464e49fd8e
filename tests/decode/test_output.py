"""Pixels arrive finished, in place, and are final only when all of them are there."""

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import Fixed, chain, noise, simple  # noqa: E402

from vram_supervisor.supervisor.decode import output as output_module  # noqa: E402
from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.output import PixelOutput  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402

EVERYTHING = Rect(0, 4, 0, 6)


class Log(TensorSink):
    """A sink that remembers what it was told, and fails where it shall."""

    def __init__(self, *fails_at, error=None):
        super().__init__()
        error = error or RuntimeError("can't allocate memory")
        self.told, self.calls, self.fails_at, self.error = [], 0, set(fails_at), error

    def _tell(self, *what):
        self.calls += 1
        if self.calls - 1 in self.fails_at:
            raise self.error
        self.told.append(what)

    def write(self, first_frame, rect, pixels):
        self._tell("write", first_frame, rect)
        final = ("commit", first_frame, rect)
        assert final not in [(told[0], told[1], told[-1]) for told in self.told], "it was final"
        super().write(first_frame, rect, pixels)

    def commit(self, first_frame, frames, rect):
        self._tell("commit", first_frame, frames, rect)
        super().commit(first_frame, frames, rect)


def begun(sink, frames=1, height=4, width=6):
    sink.begin(frames, height, width, 3)
    return sink


def as_they_are(pixels):
    return pixels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_picture_becomes_a_frame_channels_last(dtype):
    made = noise(1, 3, 4, 6).to(dtype)
    sink = begun(Log())
    output = PixelOutput(sink, as_they_are, 0, 1)
    output.write(0, EVERYTHING, made)
    output.commit(0, 1, EVERYTHING)
    output.flush()
    assert torch.equal(sink.pixels[0], made[0].permute(1, 2, 0).float())


def test_a_clip_of_a_batch_goes_to_its_own_frames():
    made = noise(1, 3, 2, 4, 3)
    sink = begun(Log(), frames=9)
    output = PixelOutput(sink, as_they_are, 4, 5)
    right = Rect(0, 4, 3, 6)
    output.write(3, right, made)
    output.commit(0, 5, right)
    output.flush()
    assert torch.equal(sink.pixels[7:9, :, 3:], made[0].permute(1, 2, 3, 0))
    assert sink.told[-1] == ("commit", 4, 5, right)
    assert output.has(right)
    assert not output.has(EVERYTHING)
    assert not PixelOutput(sink, as_they_are, 0, 4).has(right)


def test_what_finishes_pixels_may_change_them_but_not_what_was_made():
    made = noise(1, 3, 4, 6)
    before = made.clone()
    sink = begun(Log())
    output = PixelOutput(sink, lambda pixels: pixels.mul_(0.5).add_(0.5).clamp_(0, 1), 0, 1)
    output.write(0, EVERYTHING, made)
    output.flush()
    assert torch.equal(made, before)
    assert torch.equal(sink.pixels[0], (before[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0))


@pytest.mark.parametrize("staging_bytes", [1, 4 * 3 * 6, 4 * 3 * 6 * 3, 4 * 3 * 6 * 4 * 2, 1 << 20])
@pytest.mark.parametrize("shape", [(1, 3, 4, 6), (1, 3, 5, 4, 6)], ids=["picture", "clip"])
def test_pieces_of_any_size_put_together_are_all_of_it(monkeypatch, staging_bytes, shape):
    monkeypatch.setattr(output_module, "STAGING_BYTES", staging_bytes)
    made = noise(*shape)
    frames = made.shape[2] if made.ndim == 5 else 1
    sink = begun(Log(), frames=frames)
    output = PixelOutput(sink, as_they_are, 0, frames)
    output.write(0, EVERYTHING, made)
    output.commit(0, frames, EVERYTHING)
    output.flush()
    clip = made if made.ndim == 5 else made.unsqueeze(2)
    assert torch.equal(sink.pixels, clip[0].permute(1, 2, 3, 0))
    assert [told[0] for told in sink.told].index("commit") == len(sink.told) - 1


class Late(PixelOutput):
    """Its copies are under way until ``land`` is called, as on a GPU."""

    late = True

    def flush(self):
        if not self.late:
            super().flush()

    def _land_ready(self):
        if not self.late:
            super()._land_ready()

    def land(self):
        self.late = False
        self.flush()


def test_nothing_is_final_before_it_landed():
    sink = begun(Log())
    output = Late(sink, as_they_are, 0, 1)
    output.write(0, EVERYTHING, noise(1, 3, 4, 6))
    output.commit(0, 1, EVERYTHING)
    assert sink.told == []
    assert not output.has(EVERYTHING)
    output.land()
    assert [told[0] for told in sink.told] == ["write", "commit"]


@pytest.mark.parametrize("fails_at", range(4))
def test_what_a_sink_refused_is_not_lost(fails_at):
    """It may belong to a part that the engine is done with."""
    halves = [Rect(0, 2, 0, 6), Rect(2, 4, 0, 6)]
    made = noise(1, 3, 4, 6)
    sink = begun(Log(fails_at))
    output = Late(sink, as_they_are, 0, 1)
    for half in halves:
        output.write(0, half, made[..., half.top : half.bottom, :])
        output.commit(0, 1, half)
    output.late = False
    with pytest.raises(RuntimeError, match="can't allocate"):
        output.flush()
    output.flush()
    assert torch.equal(sink.pixels[0], made[0].permute(1, 2, 0))
    assert output.has(EVERYTHING)


@pytest.mark.parametrize("times", [1, 2])
def test_with_an_engine_a_sink_that_runs_out_of_memory_loses_nothing(times):
    source = noise(1, 3, 4, 6)
    program = [simple("double", lambda x: x * 2), simple("same", lambda x: x)]
    for fails_at in range(4):
        sink = begun(Log(*range(fails_at, fails_at + times)))
        output = PixelOutput(sink, as_they_are, 0, 1)
        hooks = Hooks(empty_cache=lambda: None)
        sizer = Fixed(2, source=source)
        Engine(chain(*program), sizer, torch.device("cpu"), hooks).run(source, output)
        output.flush()
        assert torch.equal(sink.pixels[0], 2 * source[0].permute(1, 2, 0))
        assert output.has(EVERYTHING)


def test_another_error_of_a_sink_passes_through_and_keeps_what_is_final():
    source = noise(1, 3, 4, 6)
    sink = begun(Log(2, error=OSError(28, "No space left on device")))
    output = PixelOutput(sink, as_they_are, 0, 1)
    engine = Engine(
        chain(simple("same", lambda x: x)), Fixed(3, source=source), torch.device("cpu")
    )
    with pytest.raises(OSError, match="No space"):
        engine.run(source, output)
    first = next(told[-1] for told in sink.told if told[0] == "commit")
    assert output.has(first)
    assert not output.has(EVERYTHING)
