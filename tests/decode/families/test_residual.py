"""Image KL, Flux 2, Hunyuan's and TAESD's autoencoders in parts, against themselves in one go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.toy_decoders import Fixed, Kl, noise
from support.toy_hunyuan import ToyNew
from support.toy_residual import ToyFlux2, ToyHunyuan, ToyKl
from support.toy_taesd import ToyTaesd
from support.toy_wan import ToyWan21
from torch import nn

from vram_supervisor.supervisor.decode.engine import Engine
from vram_supervisor.supervisor.decode.families import (
    flux2,
    hunyuan,
    hunyuan15,
    hunyuan_image,
    kl,
    taesd,
)
from vram_supervisor.supervisor.decode.families.hunyuan import one_and_chunks, two_by_two
from vram_supervisor.supervisor.decode.proof import relative_error

EXACT = 1e-5
FAMILIES = (flux2, hunyuan, hunyuan15, hunyuan_image, kl, taesd)
PICTURES = {
    "Stable Diffusion": (kl, ToyKl, 4, 4),
    "Flux 1": (kl, lambda: ToyKl(quantised=False), 4, 4),
    "attention on the way": (kl, lambda: ToyKl(attention_at=1), 4, 4),
    "two levels": (kl, lambda: ToyKl(widths=(8, 16)), 4, 2),
    "Flux 2": (flux2, ToyFlux2, 16, 8),
    "HunyuanImage": (hunyuan_image, lambda: ToyNew("pictures"), 4, 8),
    "TAESD": (taesd, ToyTaesd, 4, 8),
    "TAESD for Flux 2": (taesd, lambda: ToyTaesd(packed=True), 128, 16),
}
CLIPS = {
    "Hunyuan video": (hunyuan, ToyHunyuan, 4, 8),
    "HunyuanVideo 1.5": (hunyuan15, lambda: ToyNew("carried"), 4, 8),
    "HunyuanImage refiner": (hunyuan_image, lambda: ToyNew("clips"), 4, 8),
}
BOTH_WAYS = [name for name in PICTURES if name != "HunyuanImage"]


def run(program, source, edge):
    sizer = Fixed(edge, source=source)
    return Engine(program, sizer, torch.device("cpu")).run(source)


def without_halos(program):
    def bare(stage):
        return replace(stage, halo=0)

    phases = [replace(each, stages=tuple(map(bare, each.stages))) for each in program.phases]
    return replace(program, phases=tuple(phases))


@pytest.mark.parametrize("edge", [3, 5, 9])
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_decoded_as_in_one_go(name, edge):
    family, build, channels, scale = PICTURES[name]
    model, latent = build(), noise(1, channels, 13, 10)

    made = run(family.decoder(model), latent, edge)

    with torch.inference_mode():
        wanted = model.decode(latent)
    assert made.shape == (1, 3, 13 * scale, 10 * scale)
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("latents", [3, 5])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_pictures_are_encoded_as_in_one_go(name, latents):
    family, build, channels, scale = PICTURES[name]
    model, pixels = build(), noise(1, 3, 9 * scale, 11 * scale)

    made = run(family.encoder(model), pixels, latents * scale)

    with torch.inference_mode():
        wanted = model.encode(pixels)
    assert made.shape == (1, channels, 9, 11)
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize(("height", "width", "edge"), [(3, 20, 4), (4, 5, 2)])
@pytest.mark.parametrize("name", CLIPS)
def test_clips_are_decoded_as_in_one_go(name, frames, height, width, edge):
    family, build, channels, _ = CLIPS[name]
    model, latent = build(), noise(1, channels, frames, height, width)

    made = run(family.decoder(model), latent, edge)

    with torch.inference_mode():
        wanted = model.decode(latent)
    assert made.shape == wanted.shape
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("frames", [1, 4, 5, 9, 17])
def test_clips_are_encoded_as_in_one_go_and_frames_that_fill_no_latent_dropped(frames):
    model, pixels = ToyHunyuan(), noise(1, 3, frames, 5 * 8, 3 * 8)

    made = run(hunyuan.encoder(model), pixels, 2 * 8)

    with torch.inference_mode():
        wanted = model.encode(pixels)
    assert made.shape == wanted.shape == (1, 4, (frames + 3) // 4, 5, 3)
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize("name", [*PICTURES, *CLIPS])
def test_parts_without_surroundings_would_be_seen(name):
    """The other tests would notice a halo that is too small."""
    family, build, channels, _ = (PICTURES | CLIPS)[name]
    model = build()
    latent = noise(1, channels, *([3] if name in CLIPS else []), 6, 6)

    made = run(without_halos(family.decoder(model)), latent, 3)

    with torch.inference_mode():
        assert relative_error(made, model.decode(latent)) > 100 * EXACT


@pytest.mark.parametrize("name", [*PICTURES, *CLIPS])
def test_each_network_is_known_to_its_own_family_only(name):
    family, build, _, _ = (PICTURES | CLIPS)[name]
    model = build()

    assert [each for each in FAMILIES if each.decoder(model) is not None] == [family]


def circular(model):
    model.decoder.up[0].block[0].conv1.padding_mode = "circular"
    model.encoder.down[0].block[0].conv1.padding_mode = "circular"


def drawn_at_random(model):
    model.regularization.sample = True
    model.decoder.conv_in = nn.Conv2d(4, 16, 5, padding=2)


def mixed_in_time(model):
    for level in (model.decoder.up[1], model.encoder.down[0]):
        level.block[0].time_stack = nn.Identity()


def not_carried(model):
    model.decoder.carried = model.encoder.carried = False


def attention_added(model):
    model.decoder.mid.attn_2 = nn.Identity()
    model.encoder.mid.attn_2 = nn.Identity()


def another_part(model):
    model.refiner = nn.Identity()


def slower_clamp(model):
    model.taesd_decoder[-1] = nn.Conv2d(8, 3, 5, padding=2)
    model.taesd_encoder[-1] = nn.Conv2d(8, 4, 5, padding=2)


def norm_on_the_way(model):
    model.taesd_decoder[6].pool = model.taesd_decoder[6].conv
    model.taesd_encoder[1].pool = model.taesd_encoder[1].conv


def smooth_upsampling(model):
    model.taesd_decoder[4] = nn.Upsample(scale_factor=2, mode="bilinear")
    model.taesd_encoder[2].padding_mode = "reflect"


def affine_statistics(model):
    model.bn = nn.BatchNorm2d(16)


LOOK_ALIKES = [
    (kl, ToyKl, circular),
    (kl, ToyKl, drawn_at_random),
    (kl, ToyKl, mixed_in_time),
    (kl, ToyKl, attention_added),
    (kl, ToyKl, another_part),
    (flux2, ToyFlux2, affine_statistics),
    (flux2, ToyFlux2, circular),
    (hunyuan, ToyHunyuan, not_carried),
    (hunyuan, ToyHunyuan, another_part),
    (taesd, ToyTaesd, slower_clamp),
    (taesd, ToyTaesd, norm_on_the_way),
    (taesd, ToyTaesd, smooth_upsampling),
    (taesd, ToyTaesd, another_part),
]


@pytest.mark.parametrize(("family", "build", "change"), LOOK_ALIKES)
def test_look_alikes_are_refused(family, build, change):
    model = build()
    assert family.decoder(model) is not None
    assert family.encoder(model) is not None

    change(model)

    assert family.decoder(model) is None
    assert family.encoder(model) is None


@pytest.mark.parametrize("kind", ["pictures", "clips", "carried"])
def test_a_decoder_whose_time_does_not_double_as_it_says_is_refused(kind):
    model = ToyNew(kind)
    upsample = model.decoder.up[1].upsample
    if kind == "pictures":
        upsample.scale = None
    else:
        upsample.refiner_vae = not upsample.refiner_vae

    assert all(family.decoder(model) is None for family in FAMILIES)


@pytest.mark.parametrize("build", [Kl, ToyWan21, lambda: nn.Linear(1, 1), lambda: None])
def test_other_networks_are_left_alone(build):
    model = build()

    assert all(family.decoder(model) is None for family in FAMILIES)
    assert all(each.encoder(model) is None for each in (flux2, hunyuan, kl, taesd))


def test_a_last_tanh_is_not_forgotten():
    model, latent = ToyKl(), noise(1, 4, 6, 6)
    model.decoder.tanh_out = True

    made = run(kl.decoder(model), latent, 3)

    with torch.inference_mode():
        assert relative_error(made, model.decode(latent)) <= EXACT


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [(1, (1,)), (2, (2,)), (3, (2, 1)), (4, (2, 2)), (7, (2, 2, 2, 1))],
)
def test_latent_frames_go_up_two_by_two(frames, chunks):
    assert two_by_two(frames) == chunks


@pytest.mark.parametrize(
    ("frames", "chunks"),
    [(1, (1,)), (4, (1,)), (5, (1, 4)), (9, (1, 8)), (13, (1, 8, 4)), (16, (1, 8, 4))],
)
def test_frames_go_down_by_two_latent_frames_after_the_first(frames, chunks):
    assert one_and_chunks(frames, 4) == chunks
