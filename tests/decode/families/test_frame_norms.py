"""Mochi's and Cosmos's decoders, whose norms see single frames, in parts against themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.toy_cosmos import ToyCosmos
from support.toy_decoders import Fixed, Kl, noise
from support.toy_mochi import Block, ToyMochi
from support.toy_residual import ToyHunyuan, ToyKl
from support.toy_wan import ToyWan21
from torch import nn

from vram_supervisor.supervisor.decode.engine import Engine
from vram_supervisor.supervisor.decode.families import cosmos, mochi
from vram_supervisor.supervisor.decode.families.registry import decoder_of
from vram_supervisor.supervisor.decode.proof import relative_error
from vram_supervisor.supervisor.decode.running import Hooks

EXACT = 1e-5
KNOWN = {
    "Mochi": (mochi, ToyMochi, 8, 6),
    "Cosmos": (cosmos, ToyCosmos, 4, 4),
    "Cosmos, attention on the way": (cosmos, lambda: ToyCosmos(attention_at=1), 4, 4),
    "Cosmos, space before time": (
        cosmos,
        lambda: ToyCosmos(((True, True), (True, False)), (4, 4, 8)),
        8,
        4,
    ),
    "Cosmos, a level that keeps the size": (
        cosmos,
        lambda: ToyCosmos(((False, False), (True, True)), (4, 4, 8)),
        4,
        4,
    ),
    "Cosmos, time only": (cosmos, lambda: ToyCosmos(((False, True),)), 2, 4),
}


def run(program, source, edge, hooks=None, **sizes):
    sizer = Fixed(edge, source=source, **sizes)
    return Engine(program, sizer, torch.device("cpu"), hooks).run(source)


def whole(model, latent):
    with torch.inference_mode():
        return model.decode(latent)


@pytest.fixture(params=KNOWN)
def known(request):
    return KNOWN[request.param]


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize(("height", "width", "edge"), [(4, 7, 2), (5, 3, 1)])
def test_clips_are_decoded_as_in_one_go(known, frames, height, width, edge):
    family, build, space, time = known
    model, latent = build(), noise(1, 4, frames, height, width)

    made = run(family.decoder(model), latent, edge)

    assert made.shape == (1, 3, time * (frames - 1) + 1, space * height, space * width)
    assert relative_error(made, whole(model, latent)) <= EXACT


@pytest.mark.parametrize("name", ["Mochi", "Cosmos"])
def test_results_that_wait_in_host_memory_change_nothing(name):
    family, build, _, _ = KNOWN[name]
    model, latent = build(), noise(1, 4, 2, 3, 4)

    made = run(family.decoder(model), latent, 2, resident_bytes=0)

    assert torch.equal(made, run(family.decoder(model), latent, 2))


def test_parts_without_surroundings_would_be_seen(known):
    """The other tests would notice a halo that is too small."""
    family, build, _, _ = known
    model, latent = build(), noise(1, 4, 2, 4, 6)
    program = family.decoder(model)
    bare = [
        replace(phase, stages=tuple(replace(stage, halo=0) for stage in phase.stages))
        for phase in program.phases
    ]

    made = run(replace(program, phases=tuple(bare)), latent, 2)

    assert relative_error(made, whole(model, latent)) > 100 * EXACT


def test_a_norm_called_for_a_few_frames_at_a_time_is_observed_in_one_pass():
    """A block's first norm is seen as its input is made; its second one takes a pass more."""
    model, latent, seen = ToyMochi(), noise(1, 4, 5, 4, 6), []
    program = mochi.decoder(model)

    run(program, latent, 3, Hooks(progress=seen.append))

    for number, stage in enumerate(program.phases[0].stages):
        rects = [each.rect for each in seen if each.stage == number]
        wanted = 2 if "block" in stage.name else 1
        assert (stage.name, len(rects) / len(set(rects))) == (stage.name, wanted)


def test_each_network_is_known_by_its_own_name(known):
    family, build, _, _ = known

    found = decoder_of(build())

    assert found is not None
    assert found[0] == family.NAME


def attention_in_a_block(model):
    model.decoder.blocks[0][1].attn_block = nn.MultiheadAttention(8, 2)


def a_convolution_that_looks_ahead(model):
    model.decoder.blocks[1].blocks[0].stack[2].causal = False


def zeros_around(model):
    model.decoder.blocks[-1][0].stack[5].padding_mode = "zeros"


def another_activation(model):
    model.decoder.blocks[0][1].stack[1] = nn.ReLU()


def another_end(model):
    model.decoder.output_nonlinearity = "relu"


def a_norm_at_the_end(model):
    model.decoder.output_norm = nn.GroupNorm(4, 4)


def a_wider_entrance(model):
    model.decoder.blocks[0][0] = nn.Conv3d(4, 8, 3, padding=1)


def another_way_up(model):
    model.decoder.blocks[1].conv = nn.Identity()


def nothing_that_grows(model):
    model.decoder.blocks = nn.ModuleList([model.decoder.blocks[0], nn.Sequential(Block(4))])


def no_last_block(model):
    model.decoder.blocks[-1] = nn.Sequential()


def a_part_behind(model):
    model.post = nn.Identity()


def groups_of_channels(model):
    model.decoder.up[0].block[0].norm1.num_groups = 2


def one_convolution_for_two(model):
    model.decoder.up[1].block[0].conv1 = model.decoder.up[1].block[0].conv1[0]


def borders_repeated(model):
    model.decoder.conv_in[0].pad_mode = "replicate"


def time_before_space(model):
    model.decoder.mid.attn_1 = nn.Sequential(*reversed(model.decoder.mid.attn_1))


def no_table(model):
    del model.latent_mean


def other_patches(model):
    model.decoder.unpatcher3d.patch_method = "cosine"


def growth_at_the_end(model):
    model.decoder.up[0].upsample = model.decoder.up[1].upsample


def growth_without_convolutions(model):
    model.decoder.up[1].upsample.conv2 = nn.Identity()


def frames_skipped(model):
    model.decoder.conv_out[1].conv3d.stride = (2, 1, 1)


LOOK_ALIKES = {
    "Mochi": (
        attention_in_a_block,
        a_convolution_that_looks_ahead,
        zeros_around,
        another_activation,
        another_end,
        a_norm_at_the_end,
        a_wider_entrance,
        another_way_up,
        nothing_that_grows,
        no_last_block,
        a_part_behind,
    ),
    "Cosmos": (
        groups_of_channels,
        one_convolution_for_two,
        borders_repeated,
        time_before_space,
        no_table,
        other_patches,
        growth_at_the_end,
        growth_without_convolutions,
        frames_skipped,
        a_part_behind,
    ),
}


@pytest.mark.parametrize(
    ("name", "change"), [(name, each) for name, changes in LOOK_ALIKES.items() for each in changes]
)
def test_look_alikes_are_refused(name, change):
    family, build, _, _ = KNOWN[name]
    model = build()
    assert family.decoder(model) is not None

    change(model)

    assert family.decoder(model) is None


@pytest.mark.parametrize(
    "build", [Kl, ToyKl, ToyHunyuan, ToyWan21, lambda: nn.Linear(1, 1), lambda: None]
)
def test_other_networks_are_left_alone(build):
    assert mochi.decoder(build()) is None
    assert cosmos.decoder(build()) is None


def test_neither_takes_the_other():
    assert mochi.decoder(ToyCosmos()) is None
    assert cosmos.decoder(ToyMochi()) is None
