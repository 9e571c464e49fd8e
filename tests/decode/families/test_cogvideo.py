"""CogVideoX's decoder in parts, against itself in one go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.toy_cogvideo import ToyCogVideo
from support.toy_decoders import Fixed, Kl, noise
from support.toy_residual import ToyHunyuan, ToyKl
from support.toy_wan import ToyWan21
from torch import nn

from vram_supervisor.supervisor.decode.engine import Engine
from vram_supervisor.supervisor.decode.families import cogvideo
from vram_supervisor.supervisor.decode.families.cogvideo import chunks_of_four, frames_of_latent
from vram_supervisor.supervisor.decode.families.registry import decoder_of
from vram_supervisor.supervisor.decode.parking import HostPages
from vram_supervisor.supervisor.decode.proof import relative_error
from vram_supervisor.supervisor.decode.running import Hooks

EXACT = 1e-5


def run(program, source, edge, hooks=None, **sizes):
    sizer = Fixed(edge, source=source, **sizes)
    pages = HostPages(1 << 12, locks=False)
    return Engine(program, sizer, torch.device("cpu"), hooks, pages).run(source)


def whole(model, latent):
    with torch.inference_mode():
        return model.decode(latent)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
@pytest.mark.parametrize(("height", "width", "edge"), [(3, 7, 3), (5, 3, 2)])
def test_clips_are_decoded_as_in_one_go(frames, height, width, edge):
    model, latent = ToyCogVideo(), noise(1, 4, frames, height, width)

    made = run(cogvideo.decoder(model), latent, edge)

    wanted = whole(model, latent)
    assert made.shape == (1, 3, 4 * frames - 3 * (frames % 2), 8 * height, 8 * width)
    assert relative_error(made, wanted) <= EXACT


@pytest.mark.parametrize(("widths", "in_time"), [((16, 8, 8), 1), ((8, 8), 1), ((8, 8, 8), 0)])
def test_levels_are_counted_not_assumed(widths, in_time):
    model, latent = ToyCogVideo(widths=widths, in_time=in_time), noise(1, 4, 3, 4, 6)

    made = run(cogvideo.decoder(model), latent, 2)

    assert relative_error(made, whole(model, latent)) <= EXACT


def test_results_that_wait_in_host_memory_change_nothing():
    model, latent = ToyCogVideo(widths=(8, 8), in_time=1), noise(1, 4, 3, 2, 4)

    made = run(cogvideo.decoder(model), latent, 2, resident_bytes=0)

    assert torch.equal(made, run(cogvideo.decoder(model), latent, 2))


@pytest.mark.parametrize("frames", [1, 3])
def test_parts_without_surroundings_would_be_seen(frames):
    """The other tests would notice a halo that is too small."""
    model, latent = ToyCogVideo(), noise(1, 4, frames, 4, 6)
    program = cogvideo.decoder(model)
    phases = [
        replace(phase, stages=tuple(replace(stage, halo=0) for stage in phase.stages))
        for phase in program.phases
    ]

    made = run(replace(program, phases=tuple(phases)), latent, 2)

    assert relative_error(made, whole(model, latent)) > 100 * EXACT


def test_parts_are_not_run_again_for_statistics_that_were_at_hand():
    """A block's first norm is observed as its input is made, so that only its second one wants a
    pass of its own; the last phase's input comes from no stage, which costs one more."""
    model, latent, seen = ToyCogVideo(), noise(1, 4, 1, 4, 6), []
    program = cogvideo.decoder(model)

    run(program, latent, 3, Hooks(progress=seen.append))

    begins_phase = ("level 2 block 0",)
    for index, phase in enumerate(program.phases):
        for number, stage in enumerate(phase.stages):
            rects = [each.rect for each in seen if (each.phase, each.stage) == (index, number)]
            passes = len(rects) / len(set(rects))
            wanted = 3 if stage.name in begins_phase else 2 if "block" in stage.name else 1
            assert (stage.name, passes) == (stage.name, wanted)


def test_the_same_program_decodes_one_latent_after_another():
    model = ToyCogVideo()
    program = cogvideo.decoder(model)
    first, second = noise(1, 4, 2, 3, 4), noise(1, 4, 3, 4, 3, seed=2)

    run(program, first, 2)
    made = run(program, second, 2)

    assert relative_error(made, whole(model, second)) <= EXACT


def borders_repeated(model):
    model.decoder.up_blocks[3].resnets[0].conv1.pad_mode = "replicate"


def wider_convolution(model):
    model.decoder.conv_out.conv = nn.Conv3d(8, 3, 5, padding=(0, 2, 2))


def attention_in_the_middle(model):
    model.decoder.mid_block.attentions = nn.ModuleList([nn.Identity()])


def norms_without_latent(model):
    model.decoder.norm_out = nn.GroupNorm(4, 8)


def another_activation(model):
    model.decoder.up_blocks[0].resnets[1].nonlinearity = nn.GELU()


def time_doubled_last(model):
    model.decoder.up_blocks[0].upsamplers[0].compress_time = False
    model.decoder.up_blocks[2].upsamplers[0].compress_time = True


def rolls_from_elsewhere(model):
    model.temporal_compression_ratio = 8


def another_part(model):
    model.post_quant_conv = nn.Conv3d(4, 4, 1)


def time_projected(model):
    model.decoder.mid_block.resnets[0].temb_proj = nn.Linear(8, 16)


def larger_at_the_end(model):
    model.decoder.up_blocks[3].upsamplers = model.decoder.up_blocks[2].upsamplers


@pytest.mark.parametrize(
    "change",
    [
        borders_repeated,
        wider_convolution,
        attention_in_the_middle,
        norms_without_latent,
        another_activation,
        time_doubled_last,
        rolls_from_elsewhere,
        another_part,
        time_projected,
        larger_at_the_end,
    ],
)
def test_look_alikes_are_refused(change):
    model = ToyCogVideo()
    assert cogvideo.decoder(model) is not None

    change(model)

    assert cogvideo.decoder(model) is None


def test_a_network_that_decodes_otherwise_is_refused():
    class Batched(nn.Module):
        def __init__(self):
            super().__init__()
            toy = ToyCogVideo()
            self.encoder, self.decoder = toy.encoder, toy.decoder
            self.temporal_compression_ratio = 4

    assert cogvideo.decoder(Batched()) is None


@pytest.mark.parametrize("build", [Kl, ToyKl, ToyHunyuan, ToyWan21, lambda: nn.Linear(1, 1)])
def test_other_networks_are_left_alone(build):
    assert cogvideo.decoder(build()) is None


def test_it_is_found_by_its_network():
    found = decoder_of(ToyCogVideo())

    assert found is not None
    assert found[0] == cogvideo.NAME


@pytest.mark.parametrize(
    ("frames", "chunks"), [(1, [1]), (4, [4]), (8, [4, 4]), (9, [4, 4, 1]), (49, [4] * 12 + [1])]
)
def test_time_goes_on_by_four_frames(frames, chunks):
    assert chunks_of_four(frames) == chunks


@pytest.mark.parametrize(
    ("latent_frames", "frames", "wanted"),
    [
        (1, 1, [0]),
        (2, 2, [0, 1]),
        (2, 4, [0, 0, 1, 1]),
        (3, 3, [0, 1, 2]),
        (3, 5, [0, 1, 1, 2, 2]),
        (3, 9, [0, 1, 1, 1, 1, 2, 2, 2, 2]),
    ],
)
def test_the_first_of_an_odd_number_of_frames_has_a_latent_frame_of_its_own(
    latent_frames, frames, wanted
):
    assert frames_of_latent(latent_frames, frames) == wanted
