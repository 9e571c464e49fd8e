"""LTX autoencoders in parts and pieces of time, against their own forward in one go."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from support import toy_ltx
from support.toy_decoders import Fixed, Kl, noise, relative, seeded
from support.toy_ltx import LATENT_CHANNELS, ToyLtx, ToyLtx23
from support.toy_ltx_layers import CausalConv3d, Middle, Resnet
from support.toy_wan import ToyWan21
from torch import nn

from vram_supervisor.supervisor.decode.engine import Engine
from vram_supervisor.supervisor.decode.families import ltx
from vram_supervisor.supervisor.decode.families._ltx_noise import Block
from vram_supervisor.supervisor.decode.program import Carry, Place, pieces_of
from vram_supervisor.supervisor.decode.running import Hooks
from vram_supervisor.supervisor.decode.survey import survey
from vram_supervisor.supervisor.decode.tiles import Rect
from vram_supervisor.supervisor.planning.workspace import NO_WORKSPACE

EXACT = 1e-5
EDGE = 16
"""Pixels along one side of the toys' latents."""
KINDS = {
    "0.9": (ToyLtx, {}),
    "told a time step": (ToyLtx, {"timed": True}),
    "drawing noise": (ToyLtx, {"timed": True, "noisy": True}),
    "looking back only": (ToyLtx, {"causal": True}),
    "2.3": (ToyLtx23, {}),
    "2.3 with everything": (ToyLtx23, {"timed": True, "noisy": True, "causal": True}),
}


def toy(kind):
    build, options = KINDS[kind]
    return seeded(build(**options))


def run(program, source, edge, **hooks):
    torch.manual_seed(11)
    engine = Engine(program, Fixed(edge, source=source), torch.device("cpu"), Hooks(**hooks))
    return engine.run(source)


@torch.inference_mode()
def whole(call, source):
    torch.manual_seed(11)
    return call(source)


def with_halos(program, change):
    phases = [
        replace(phase, stages=tuple(replace(s, halo=change(s)) for s in phase.stages))
        for phase in program.phases
    ]
    return replace(program, phases=tuple(phases))


def remembered(model):
    return [part for part in model.modules() if getattr(part, "temporal_cache_state", None)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[1 << 40, 6000, 1500], ids=["at once", "in chunks", "frame by frame"])
def most_bytes(request, monkeypatch):
    monkeypatch.setattr(toy_ltx, "MOST_BYTES", [request.param])


@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_decodes_as_in_one_go(kind, frames):
    model = toy(kind)
    latent = noise(1, LATENT_CHANNELS, frames, 5, 3)

    made = run(ltx.decoder(model), latent, 2)

    wanted = whole(model.decode, latent)
    assert made.shape == wanted.shape == (1, 3, 8 * frames - 7, 5 * EDGE, 3 * EDGE)
    assert relative(made, wanted) <= EXACT


def test_decodes_a_clip_that_is_longer_than_what_runs_at_once():
    model = toy("drawing noise")
    latent = noise(1, LATENT_CHANNELS, ltx.LATENT_PIECE + 1, 2, 2)

    made = run(ltx.decoder(model), latent, 1)

    assert relative(made, whole(model.decode, latent)) <= EXACT


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("kind", ["drawing noise", "2.3 with everything"])
def test_draws_what_the_host_draws_however_that_cuts_time(kind, frames, most_bytes):
    model = toy(kind)
    latent = noise(1, LATENT_CHANNELS, frames, 3, 5)

    made = run(ltx.decoder(model), latent, 2)

    assert relative(made, whole(model.decode, latent)) <= EXACT


def test_the_hosts_cuts_change_what_is_drawn(monkeypatch):
    """Else the test before would prove nothing."""
    model = toy("drawing noise")
    latent = noise(1, LATENT_CHANNELS, 2, 3, 5)
    at_once = whole(model.decode, latent)
    monkeypatch.setattr(toy_ltx, "MOST_BYTES", [1500])
    assert relative(whole(model.decode, latent), at_once) > 100 * EXACT


@pytest.mark.parametrize("frames", [1, 8, 9, 28])
@pytest.mark.parametrize("kind", ["0.9", "2.3"])
def test_encodes_as_in_one_go_and_drops_frames_that_fill_no_latent(kind, frames):
    model = toy(kind)
    pixels = noise(1, 3, frames, 5 * EDGE, 3 * EDGE)

    made = run(ltx.encoder(model), pixels, 2 * EDGE)

    wanted = whole(model.encode, pixels)
    assert made.shape == wanted.shape == (1, LATENT_CHANNELS, (frames + 7) // 8, 5, 3)
    assert relative(made, wanted) <= EXACT


@pytest.mark.parametrize("told", ["uniform", "constant", "per_channel"])
def test_only_the_mean_of_what_an_encoder_says_counts(told):
    model = seeded(ToyLtx(latent_log_var=told))
    pixels = noise(1, 3, 9, 2 * EDGE, 2 * EDGE)
    assert relative(run(ltx.encoder(model), pixels, EDGE), whole(model.encode, pixels)) <= EXACT


@pytest.mark.parametrize("edge", [2, 3])
@pytest.mark.parametrize("kind", ["0.9", "2.3"])
def test_its_own_halo_is_enough_where_parts_do_not_see_everything(kind, edge):
    model = toy(kind)
    latent, pixels = noise(1, LATENT_CHANNELS, 2, 2, 23), noise(1, 3, 9, 2 * EDGE, 23 * EDGE)

    decoded, encoded = ltx.decoder(model), ltx.encoder(model)

    for halo in (
        stage.halo for program in (decoded,) for p in program.phases for stage in p.stages
    ):
        assert halo < 10
    assert relative(run(decoded, latent, edge), whole(model.decode, latent)) <= 5e-5
    assert relative(run(encoded, pixels, edge * EDGE), whole(model.encode, pixels)) <= 5e-5


@pytest.mark.parametrize("kind", ["0.9", "2.3"])
def test_parts_without_surroundings_would_be_seen(kind):
    model = toy(kind)
    latent, pixels = noise(1, LATENT_CHANNELS, 2, 2, 8), noise(1, 3, 9, 2 * EDGE, 8 * EDGE)

    decoded = run(with_halos(ltx.decoder(model), lambda _: 0), latent, 3)
    encoded = run(with_halos(ltx.encoder(model), lambda _: 0), pixels, 3 * EDGE)

    assert relative(decoded, whole(model.decode, latent)) > 100 * EXACT
    assert relative(encoded, whole(model.encode, pixels)) > 100 * EXACT


@pytest.mark.parametrize("turn", [0, 1, 7, 20])
def test_a_part_that_ran_out_of_memory_comes_out_the_same_when_tried_again(turn, monkeypatch):
    model = toy("2.3 with everything")
    latent = noise(1, LATENT_CHANNELS, 3, 4, 3)
    calls = iter(range(10_000))
    wanted = whole(model.decode, latent)
    forward = Resnet.forward

    def failing(self, *given, **told):
        if next(calls) == turn:
            message = "CUDA out of memory"
            raise torch.OutOfMemoryError(message)
        return forward(self, *given, **told)

    monkeypatch.setattr(Resnet, "forward", failing)
    failures = []
    made = run(ltx.decoder(model), latent, 2, ran_out=failures.append)

    assert len(failures) == 1
    assert relative(made, wanted) <= EXACT
    assert remembered(model) == []


def everywhere(x, frames):
    height, width = x.shape[-2:]
    return Place(Rect(0, height, 0, width), height, width, 0, x.shape[2], frames)


def test_nothing_remains_in_the_layers_between_pieces_or_when_a_part_is_left_half_done():
    model = toy("0.9")
    latent = noise(1, LATENT_CHANNELS, 3, 3, 3)
    stage = ltx.decoder(model).phases[0].stages[0]
    with torch.inference_mode():
        (features,) = pieces_of(stage.run(latent, Carry(), everywhere(latent, 3)))
        first = ltx.decoder(model).phases[1].stages[0]
        made = first.run(features, Carry(), everywhere(features, 3))
        next(made)
        assert remembered(model) == []
        made.close()
    assert remembered(model) == []


def test_what_other_threads_remember_is_left_alone_and_what_this_one_left_behind_is_not_used():
    model = toy("0.9")
    latent = noise(1, LATENT_CHANNELS, 2, 3, 3)
    other = threading.get_ident() + 1
    layers = [part for part in model.decoder.modules() if isinstance(part, CausalConv3d)]
    for layer in layers:
        left_behind = torch.full((1, layer.conv.in_channels, 2, 3, 3), 7.0)
        layer.temporal_cache_state[threading.get_ident()] = (left_behind, False)
        layer.temporal_cache_state[other] = "theirs"

    made = run(ltx.decoder(model), latent, 3)

    assert all(layer.temporal_cache_state == {other: "theirs"} for layer in layers)
    assert relative(made, whole(model.decode, latent)) <= EXACT


def test_what_is_carried_on_keeps_nothing_else_alive():
    model = toy("2.3")
    latent = noise(1, LATENT_CHANNELS, 12, 3, 3)
    carry = Carry()
    place = everywhere(latent, 20)
    with torch.inference_mode():
        list(ltx.decoder(model).phases[0].stages[0].run(latent, carry, place))
    carried = [
        each
        for _, states in carry.state.values()
        for state in states
        for each in (state if isinstance(state, tuple) else [state])
        if isinstance(each, torch.Tensor)
    ]
    assert carried
    assert all(
        each.untyped_storage().nbytes() == each.numel() * each.element_size() for each in carried
    )


def test_layers_are_never_given_many_more_frames_than_run_at_once(monkeypatch):
    model = toy("0.9")
    latent = noise(1, LATENT_CHANNELS, 20, 2, 2)
    seen: set[int] = set()
    forward = Resnet.forward

    def watched(self, x, **told):
        if self.out_channels < 16:  # beyond the latent's resolution
            seen.add(x.shape[2])
        return forward(self, x, **told)

    monkeypatch.setattr(Resnet, "forward", watched)
    run(ltx.decoder(model), latent, 2)

    assert 1 < max(seen) <= 8


def test_a_decode_is_run_in_few_frames_at_a_time_whatever_its_length():
    first, second, third = ltx.decoder(toy("0.9")).phases
    assert first.chunks(48) == (48,)
    assert first.chunks(50) == (48, 2)
    assert second.chunks(9) == third.chunks(9) == (4, 4, 1)


def test_a_dry_run_takes_chunks_that_give_nothing_yet():
    model = toy("drawing noise")
    shape = (1, LATENT_CHANNELS, 13, 8, 8)

    found = survey(model, ltx.decoder, shape, torch.float32, NO_WORKSPACE, edges=(4, 6))

    latents, _, pixels = found.phases
    assert [phase.chunks for phase in found.phases] == [1, 4, 4]
    assert latents.in_bytes_per_area == LATENT_CHANNELS * 13 * 4
    # The longest piece of a part is eight frames.
    assert pixels.stages[0].out_bytes_per_area == 3 * 8 * (EDGE // 2) ** 2 * 4
    assert pixels.stages[0].carry_bytes_per_area > 0


def changed(change):
    model = toy("told a time step")
    change(model)
    return model


def with_group_norm(model):
    model.decoder.up_blocks[0].res_blocks[0].norm1 = nn.GroupNorm(4, 16)
    model.encoder.conv_norm_out = nn.GroupNorm(4, 8)


def with_attention(model):
    for block in (model.decoder.up_blocks[0], model.encoder.down_blocks[0]):
        block.attention = nn.Linear(4, 4)


def with_wider_kernel(model):
    model.decoder.conv_in.conv = nn.Conv3d(4, 16, (3, 5, 5), padding=(0, 2, 2))
    model.encoder.conv_in.conv = nn.Conv3d(12, 4, (3, 5, 5), padding=(0, 2, 2))


def with_unknown_block(model):
    model.decoder.up_blocks.append(nn.Conv3d(4, 4, 3, padding=1))
    model.encoder.down_blocks.append(nn.Conv3d(8, 8, 3, padding=1))


def with_more_beside(model):
    model.post_quant_conv = nn.Conv3d(4, 4, 1)


def without_memory(model):
    del model.decoder.up_blocks[1].temporal_cache_state
    del model.encoder.down_blocks[1].temporal_cache_state


def with_time_step_in_one_place_only(model):
    model.timestep_conditioning = False
    model.encoder.down_blocks[0].timestep_conditioning = True


@pytest.mark.parametrize(
    "change",
    [
        with_group_norm,
        with_attention,
        with_wider_kernel,
        with_unknown_block,
        with_more_beside,
        without_memory,
        with_time_step_in_one_place_only,
    ],
)
def test_networks_that_only_look_alike_are_left_alone(change):
    model = changed(change)
    assert ltx.decoder(model) is None
    assert ltx.encoder(model) is None


@pytest.mark.parametrize("build", [Kl, ToyWan21, nn.Identity, lambda: Middle(4, 1)])
def test_other_networks_are_left_alone(build):
    model = build()
    assert ltx.decoder(model) is None
    assert ltx.encoder(model) is None


def test_a_known_encoder_beside_an_unknown_decoder_is_taken():
    model = toy("0.9")
    model.decoder = nn.Conv3d(4, 3, 3)
    assert ltx.decoder(model) is None
    assert ltx.encoder(model) is not None


def block(*steps, draws=(), owes=0, doubles=False, channels=1, grows=1, scale=1):
    return Block(steps, frozenset(draws), owes, doubles, channels, scale, grows)
