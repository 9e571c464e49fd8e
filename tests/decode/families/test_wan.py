"""Wan autoencoders in parts and pieces of time, against their own forward in one go."""

import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace  # noqa: E402

from support.toy_decoders import Fixed, noise, seeded  # noqa: E402
from support.toy_wan import (  # noqa: E402
    REACH,
    Attention,
    CausalConv3d,
    DeferringDown,
    PlainDown,
    ToyWan21,
    ToyWan22,
)
from torch import nn  # noqa: E402

from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.families import kl, wan21, wan22  # noqa: E402
from vram_supervisor.supervisor.decode.families._wan_layers import (  # noqa: E402
    one_and_pairs,
    one_and_whole,
)
from vram_supervisor.supervisor.decode.proof import relative_error  # noqa: E402

EXACT = 1e-5
FAMILIES = {"2.1": (wan21, ToyWan21, 8), "2.2": (wan22, ToyWan22, 16)}


def run(program, source, edge, output=None):
    sizer = Fixed(edge, edge, source=source)
    return Engine(program, sizer, torch.device("cpu")).run(source, output)


def toy(name, **kind):
    family, build, scale = FAMILIES[name]
    torch.manual_seed(5)
    return family, seeded(build(**kind)), scale


def with_halo(program, pixels):
    phases = [
        replace(
            phase, stages=tuple(replace(s, halo=0 if s.whole else pixels) for s in phase.stages)
        )
        for phase in program.phases
    ]
    return replace(program, phases=tuple(phases))


@pytest.fixture(params=FAMILIES)
def name(request):
    return request.param


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 8])
def test_decodes_as_in_one_go(name, frames):
    family, model, _ = toy(name)
    latent = noise(1, model.LATENT_CHANNELS, frames, 7, 5)

    made = run(with_halo(family.decoder(model), REACH), latent, 3)

    with torch.inference_mode():
        wanted = model.decode(latent)
    assert made.shape == wanted.shape
    assert made.shape[2] == 4 * frames - 3
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("frames", [1, 3, 5, 8, 9, 13])
def test_encodes_as_in_one_go_and_drops_frames_that_fill_no_latent(name, frames):
    family, model, scale = toy(name)
    pixels = noise(1, 3, frames, 7 * scale, 5 * scale)

    made = run(with_halo(family.encoder(model), REACH * scale), pixels, 2 * scale)

    with torch.inference_mode():
        wanted = model.encode(pixels)
    assert made.shape == wanted.shape
    assert made.shape[2] == (frames + 3) // 4
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("edge", [3, 4])
def test_its_own_halo_is_enough(name, edge):
    family, model, scale = toy(name)
    latent = noise(1, model.LATENT_CHANNELS, 2, 11, 2)
    pixels = noise(1, 3, 5, 2 * scale, 11 * scale)

    decoded = run(family.decoder(model), latent, edge)
    encoded = run(family.encoder(model), pixels, edge * scale)

    with torch.inference_mode():
        assert relative_error(decoded, model.decode(latent)) <= EXACT
        assert relative_error(encoded, model.encode(pixels)) <= EXACT


@pytest.mark.parametrize("down", [DeferringDown, PlainDown])
def test_encodes_with_layers_that_keep_frames_back_and_with_such_that_do_not(down):
    family, model, scale = toy("2.1", down=down)
    pixels = noise(1, 3, 13, 4 * scale, 5 * scale)

    made = run(family.encoder(model), pixels, 2 * scale)

    with torch.inference_mode():
        assert relative_error(made, model.encode(pixels)) <= EXACT


def test_parts_without_surroundings_would_be_seen(name):
    """The other tests would notice a halo that is too small."""
    family, model, scale = toy(name)
    latent = noise(1, model.LATENT_CHANNELS, 2, 6, 4)
    pixels = noise(1, 3, 5, 6 * scale, 4 * scale)

    decoded = run(with_halo(family.decoder(model), 0), latent, 3)
    encoded = run(with_halo(family.encoder(model), 0), pixels, 3 * scale)

    with torch.inference_mode():
        assert relative_error(decoded, model.decode(latent)) > 100 * EXACT
        assert relative_error(encoded, model.encode(pixels)) > 100 * EXACT


def test_a_picture_is_encoded_whole_where_its_edge_fills_no_latent():
    family, model, scale = toy("2.1")
    pixels = noise(1, 3, 5, 6 * scale + 3, 5 * scale + 7)

    made = run(family.encoder(model), pixels, 3 * scale)

    with torch.inference_mode():
        wanted = model.encode(pixels)
    assert made.shape == wanted.shape
    assert relative_error(made, wanted) <= EXACT


def test_pixels_come_in_pieces_of_two_frames(name):
    family, model, _ = toy(name)
    written: list[int] = []

    class Frames:
        def has(self, rect):
            return False

        def write(self, first_frame, rect, made):
            written.append(made.shape[2])

        def commit(self, first_frame, frames, rect):
            assert frames == 4 * 5 - 3

    latent = noise(1, model.LATENT_CHANNELS, 5, 4, 4)
    run(family.decoder(model), latent, 4, Frames())

    assert written == [1] + 8 * [2]


def test_a_single_frame_needs_no_past(name):
    family, model, _ = toy(name)
    pasts = []
    for layer in model.decoder.modules():
        if isinstance(layer, CausalConv3d):
            layer.register_forward_pre_hook(lambda _, given: pasts.append(given[1:]))

    run(family.decoder(model), noise(1, model.LATENT_CHANNELS, 1, 4, 4), 4)

    assert pasts
    assert all(past in {(), (None,)} for past in pasts)


@pytest.mark.parametrize(
    ("frames", "lengths"), [(1, (1,)), (2, (1, 1)), (3, (1, 2)), (4, (1, 2, 1)), (7, (1, 2, 2, 2))]
)
def test_latents_are_cut_after_the_first_and_then_by_twos(frames, lengths):
    assert one_and_pairs(frames) == lengths


@pytest.mark.parametrize(
    ("frames", "lengths"), [(1, (1,)), (4, (1,)), (5, (1, 4)), (8, (1, 4)), (13, (1, 4, 4, 4))]
)
def test_pictures_are_cut_after_the_first_and_then_by_latents(frames, lengths):
    assert one_and_whole(frames, 4) == lengths


# Who is taken for a Wan autoencoder.


def test_each_knows_its_own_and_not_the_other(name):
    family, model, _ = toy(name)
    (other,) = {wan21, wan22} - {family}

    assert family.decoder(model) is not None
    assert family.encoder(model) is not None
    assert other.decoder(model) is None
    assert other.encoder(model) is None
    assert kl.decoder(model) is None


def group_norm(model):
    model.decoder.middle[0].residual[0] = nn.GroupNorm(2, 4)


def a_norm_over_the_last_axis(model):
    model.decoder.head[0].channel_first = False


def one_more_part(model):
    model.decoder.refiner = nn.Identity()


def a_convolution_that_looks_ahead(model):
    model.decoder.conv1 = nn.Conv3d(2, 6, 3, padding=1)


def a_wider_convolution(model):
    model.encoder.head[2] = CausalConv3d(4, 4, 5, padding=2)


def no_attention(model):
    model.encoder.middle = nn.Sequential(model.encoder.middle[0], model.encoder.middle[2])


def another_activation(model):
    model.decoder.middle[2].residual[4] = nn.ReLU()


def nothing_before_the_decoder(model):
    del model.conv2


@pytest.mark.parametrize(
    "change",
    [
        group_norm,
        a_norm_over_the_last_axis,
        one_more_part,
        a_convolution_that_looks_ahead,
        a_wider_convolution,
        no_attention,
        another_activation,
        nothing_before_the_decoder,
    ],
)
def test_others_are_not_taken_for_it(name, change):
    family, model, _ = toy(name)
    change(model)

    assert family.decoder(model) is None
    assert family.encoder(model) is None


def test_attention_in_tiles_is_refused():
    _, model, _ = toy("2.1")
    model.decoder.upsamples.append(Attention(4))
    model.encoder.downsamples.insert(1, Attention(6))

    assert wan21.decoder(model) is None
    assert wan21.encoder(model) is None


def test_attention_at_the_resolution_of_the_latent_is_not():
    family, model, scale = toy("2.1")
    model.decoder.upsamples.insert(0, Attention(6))
    model.encoder.downsamples.append(Attention(6))
    latent, pixels = noise(1, 2, 3, 6, 7), noise(1, 3, 5, 6 * scale, 7 * scale)

    decoded = run(family.decoder(model), latent, 2)
    encoded = run(family.encoder(model), pixels, 2 * scale)

    with torch.inference_mode():
        assert relative_error(decoded, model.decode(latent)) <= EXACT
        assert relative_error(encoded, model.encode(pixels)) <= EXACT


@pytest.mark.parametrize("way_down", [("3d", "3d", "2d"), ("2d", "2d", "3d"), ("3d", "3d", "3d")])
def test_an_encoder_that_halves_time_elsewhere_is_refused(name, way_down):
    family, model, _ = toy(name, way_down=way_down)

    assert family.encoder(model) is None


def test_no_change_of_size_is_no_wan(name):
    family, model, _ = toy(name, way_down=())

    assert family.decoder(model) is None
    assert family.encoder(model) is None


def test_other_patches_are_refused():
    _, model, _ = toy("2.2", colours=4)

    assert wan22.decoder(model) is None
    assert wan22.encoder(model) is None


def factors_that_do_not_fit(model):
    model.decoder.upsamples[0].avg_shortcut.factor_s = 1
    model.encoder.downsamples[0].avg_shortcut.factor_t = 2


def no_way_around(model):
    for block in (model.decoder.upsamples[1], model.encoder.downsamples[1]):
        del block.avg_shortcut


def a_last_layer_that_is_none(model):
    model.decoder.upsamples[1].upsamples[-1] = nn.Identity()
    model.encoder.downsamples[1].downsamples[-1] = nn.Identity()


@pytest.mark.parametrize(
    "change", [factors_that_do_not_fit, no_way_around, a_last_layer_that_is_none]
)
def test_blocks_of_another_kind_are_refused(change):
    _, model, _ = toy("2.2")
    change(model)

    assert wan22.decoder(model) is None
    assert wan22.encoder(model) is None
