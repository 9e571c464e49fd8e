"""The embedded decoder in parts: the same picture, within what was predicted."""

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import Fixed, relative  # noqa: E402

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.running import Hooks  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.embedded.decoder import (  # noqa: E402
    CausalVideoDecoder,
    DecoderConfig,
)
from vram_supervisor.supervisor.embedded.job_state import CHANNELS, decoded_size  # noqa: E402
from vram_supervisor.supervisor.embedded.program import streamed, whole  # noqa: E402
from vram_supervisor.supervisor.embedded.tile_map import MappedOutput, TileMap  # noqa: E402
from vram_supervisor.supervisor.embedded.ways import WORKSPACE_RATIO, Ways  # noqa: E402
from vram_supervisor.supervisor.errors import NothingFitsError  # noqa: E402
from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402

CONFIG = DecoderConfig(channels=(16, 12, 8, 8))
SHAPE = (1, 16, 4, 16, 34)
CPU = torch.device("cpu")
# Other numbers of frames get other kernels on the CPU: equal to rounding, not to the bit.
ROUNDING = 5e-6


@pytest.fixture(scope="module")
def decoder():
    return CausalVideoDecoder(CONFIG)


@pytest.fixture(scope="module")
def ways(decoder):
    return Ways(decoder, SHAPE, "cpu", 0)


@pytest.mark.parametrize(
    ("build", "part"), [(whole, 14), (streamed, 3), (streamed, 5), (streamed, 14)]
)
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("resident_bytes", [0, 1 << 40])
def test_every_way_of_cutting_gives_the_whole_decode(decoder, build, part, frames, resident_bytes):
    latent = torch.randn(1, 16, frames, 9, 14)
    sizer = Fixed(part, source=latent, resident_bytes=resident_bytes)
    made = Engine(build(decoder), sizer, CPU).run(latent)
    assert made.shape == (1, 3, 1 + 4 * (frames - 1), 72, 112)
    assert relative(made, decoder(latent)) <= ROUNDING


@pytest.mark.parametrize(
    ("share", "kind", "tiles"),
    [(1.0, "whole", 1), (0.6, "streamed", 1), (0.4, "streamed", 2), (0.3, "streamed", 6)],
)
def test_the_prediction_is_what_the_decode_then_holds(decoder, ways, share, kind, tiles):
    budget = int(ways.whole_bytes * share)
    way = next(ways.within(budget))
    assert (way.plan.kind, way.plan.tiles, len(way.tiles)) == (kind, tiles, tiles)
    predicted = way.plan.predicted_peak_bytes
    latent, shown = torch.randn(SHAPE), []
    with LiveBytes("cpu") as counter:
        sink = TensorSink()
        frames, height, width = decoded_size(SHAPE)
        sink.begin(frames, height, width, CHANNELS)
        output = MappedOutput(sink, frames, TileMap(way.tiles, frames, shown.append))
        Engine(way.program, way, CPU).run(latent, output)
    assert 0.98 * predicted <= counter.peak_bytes <= predicted <= budget
    assert len(shown[-1]) == tiles, "the engine cuts as planned"
    assert relative(sink.pixels, decoder(latent)[0].permute(1, 2, 3, 0)) <= ROUNDING


def test_where_the_whole_fits_parts_come_next(ways):
    kinds = [way.plan.kind for way in ways.within(ways.whole_bytes)]
    assert kinds == ["whole", "streamed"]


def test_the_reason_names_the_whole_need_and_the_budget(ways):
    reason = next(ways.within(ways.whole_bytes // 2)).plan.reason
    assert "streamed through time" in reason
    assert "whole needs" in reason


def test_too_small_a_budget_names_the_smallest_need(ways):
    with pytest.raises(NothingFitsError) as caught:
        next(ways.within(1000))
    way = next(ways.within(caught.value.smallest_need_bytes))
    assert way.plan.predicted_peak_bytes <= caught.value.smallest_need_bytes


def test_on_a_gpu_kernels_take_more_and_pictures_lie_elsewhere(decoder, ways):
    there = Ways(decoder, SHAPE, "cuda:0", 1 << 40)
    frames, height, width = decoded_size(SHAPE)
    pictures = frames * height * width * CHANNELS * 4
    wanted = (ways.whole_bytes - pictures) * WORKSPACE_RATIO["cuda"]
    assert there.whole_bytes == pytest.approx(wanted, abs=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_real_out_of_memory_loses_nothing():
    decoder = CausalVideoDecoder(DecoderConfig(channels=(96, 64, 48, 32))).cuda()
    latent = torch.randn((1, 16, 5, 48, 80), device="cuda")
    ways = Ways(decoder, tuple(latent.shape), "cuda:0", 1 << 33)
    # Of one tile, which needs more than there will be.
    way = next(ways.within(ways.whole_bytes - 1))
    ran_out, hooks = [], Hooks()
    hooks.ran_out = ran_out.append
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), torch.inference_mode():
        expected = decoder(latent).cpu()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(0.3 * 2**30 / total)
        try:
            made = TensorSink()
            frames, height, width = decoded_size(tuple(latent.shape))
            made.begin(frames, height, width, CHANNELS)
            output = MappedOutput(made, frames, TileMap(way.tiles, frames, lambda _tiles: None))
            Engine(way.program, way, latent.device, hooks).run(latent, output)
            output.flush()
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert ran_out
    assert relative(made.pixels, expected[0].permute(1, 2, 3, 0)) <= 1e-5
