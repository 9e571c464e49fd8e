import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.embedded.decoder import (  # noqa: E402
    CausalVideoDecoder,
    DecoderConfig,
    RmsNorm,
)
from vram_supervisor.supervisor.planning.dry_run import TensorSpec, dry_run_peak  # noqa: E402
from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402

# Streaming a chunk at a time asks the CPU for other kernels than decoding at once does (its
# choice depends on the number of frames), so equality holds to rounding, not to the bit.
ROUNDING = 5e-6
CONFIG = DecoderConfig(channels=(16, 12, 8, 8))


@pytest.fixture(scope="module")
def decoder():
    return CausalVideoDecoder(CONFIG)


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


def make_latent(frames=4, height=9, width=14, batch=1):
    generator = torch.Generator().manual_seed(5)
    return torch.randn((batch, 16, frames, height, width), generator=generator)


def stream(decoder, features, chunk=1):
    cache = {}
    starts = range(0, features.shape[2], chunk)
    return torch.cat(
        [decoder.up(features[:, :, i : i + chunk], cache, first=i == 0) for i in starts], dim=2
    )


def relative_error(got, expected):
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize(("frames", "decoded"), [(1, 1), (2, 5), (3, 9), (6, 21)])
def test_frames_and_pixels(decoder, frames, decoded):
    got = decoder(make_latent(frames, 2, 3, batch=2))
    assert got.shape == (2, 3, decoded, 16, 24)


def test_colours_stay_in_range_and_use_it(decoder):
    got = decoder(make_latent())
    assert got.abs().max() <= 1
    assert got.std() > 0.1


def test_a_seed_fixes_the_weights(decoder):
    same, other = CausalVideoDecoder(CONFIG), CausalVideoDecoder(DecoderConfig(seed=1))
    for one, two in zip(decoder.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(next(same.parameters())[:8, :8], next(other.parameters())[:8, :8])


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_streaming_through_the_cache_equals_the_whole(decoder, chunk):
    latent = make_latent(frames=5)
    got = stream(decoder, decoder.mid(latent, None), chunk)
    assert relative_error(got, decoder(latent)) <= ROUNDING


def test_a_later_frame_never_reaches_an_earlier_one(decoder):
    latent = make_latent(frames=4)
    changed = latent.clone()
    changed[:, :, 3] += 1
    before, after = decoder(latent), decoder(changed)
    assert relative_error(after[:, :, :9], before[:, :, :9]) <= ROUNDING
    assert relative_error(after[:, :, 9:], before[:, :, 9:]) > 0.01


def test_earlier_frames_reach_later_ones_through_the_cache(decoder):
    features = decoder.mid(make_latent(frames=4), None)
    alone = decoder.up(features[:, :, 3:], None, first=False)
    assert relative_error(stream(decoder, features)[:, :, 9:], alone) > 0.01


def tile_columns(decoder, features, left, right, halo):
    context = features[..., max(0, left - halo) : right + halo]
    got = stream(decoder, context)
    start = 8 * (left - max(0, left - halo))
    return got[..., start : start + 8 * (right - left)]


def test_a_tile_with_its_halo_equals_the_whole(decoder):
    latent = make_latent(width=24)
    whole = decoder(latent)[..., 8 * 9 : 8 * 14]
    got = tile_columns(decoder, decoder.mid(latent, None), 9, 14, decoder.halo)
    assert relative_error(got, whole) <= ROUNDING


def test_the_halo_is_no_larger_than_it_must_be(decoder):
    latent = make_latent(width=24)
    whole = decoder(latent)[..., 8 * 9 : 8 * 14]
    got = tile_columns(decoder, decoder.mid(latent, None), 9, 14, decoder.halo - 1)
    assert relative_error(got, whole) > 10 * ROUNDING


def test_attention_sees_the_whole_frame_but_no_other_frame(decoder):
    x = torch.randn(1, 16, 3, 6, 7)
    changed = x.clone()
    changed[:, :, 1, 0, 0] += 3
    difference = (decoder.attention(changed) - decoder.attention(x)).abs().amax(dim=(0, 1))
    assert difference[0].max() == 0
    assert difference[2].max() == 0
    assert difference[1].min() > 0


def test_the_norm_makes_unit_root_mean_square():
    x = 7 * torch.randn(2, 32, 3, 4, 5)
    squares = RmsNorm(32)(x).square().mean(dim=1)
    assert torch.allclose(squares, torch.ones_like(squares), atol=1e-5)


def test_a_cache_holds_two_frames_of_each_layer(decoder):
    cache, layer = {}, decoder.conv_in
    held = [[0, 1], [1, 2], [2, 3]]
    for frame, expected in enumerate(held, start=1):
        layer.step(frame * torch.ones(1, 16, 1, 3, 3), cache)
        assert cache[id(layer)][0, 0, :, 0, 0].tolist() == expected


@pytest.mark.parametrize("shape", [(1, 16, 4, 9, 14), (2, 16, 1, 16, 16), (1, 16, 6, 5, 20)])
def test_the_dry_run_predicts_the_tracked_peak(decoder, shape):
    latent = torch.randn(shape)
    with LiveBytes("cpu") as counter:
        frames = decoder(latent)
    assert frames.numel() > 0
    predicted = dry_run_peak(decoder, CausalVideoDecoder.forward, TensorSpec(shape))
    assert predicted == pytest.approx(counter.peak_bytes, rel=0.001)
