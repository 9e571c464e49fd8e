"""The safe decode around a small stand-in for ComfyUI's VAE object, with real tensors."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes.host.vae import WholeDecodeRanOut, decode_whole, read_facts
from vram_supervisor.supervisor.planning.types import PlanRequest

torch = pytest.importorskip("torch")
from support.decoding_world import (  # noqa: E402
    MANUAL,
    Allocator,
    Card,
    GiB,
    Memory,
    OutOfMemory,
    Told,
    Vae,
    Working,
    decode,
    image,
    meter_of,
    on_a_gpu,
    told_need,
    video,
)


@pytest.mark.parametrize(
    ("sentence", "vae", "latent", "shape"),
    [
        ("an image", Vae(), image(), (1, 64, 48, 3)),
        ("a batch", Vae(), image(3), (3, 64, 48, 3)),
        ("a video becomes a row of frames", Vae(video=True), video(), (9, 64, 48, 3)),
        ("a video latent for an image VAE gives its first frame", Vae(), video(2), (1, 64, 48, 3)),
        ("of a nested latent the first part", Vae(video=True),
         SimpleNamespace(is_nested=True, unbind=lambda: [video(), torch.zeros(1, 8, 4)]),
         (9, 64, 48, 3)),
    ],
)  # fmt: skip
def test_the_shape_of(sentence, vae, latent, shape):
    assert tuple(decode(latent, vae).images.shape) == shape, sentence


def test_a_batch_is_decoded_in_as_many_pieces_as_the_budget_needs():
    vae = Vae()
    one = 100 * 48 * 1.2
    decoded = decode(image(5), vae, memory=Memory(free=int(2.5 * one)))
    assert [shape[0] for _, shape in vae.calls] == [2, 2, 1]
    assert tuple(decoded.images.shape) == (5, 64, 48, 3)


def test_last_frame_fix_decodes_one_more_and_gives_as_many_frames():
    vae = Vae(video=True)
    decoded = decode(video(3), vae, last_frame_fix=True)
    assert vae.calls[0][1][2] == 4
    assert tuple(decoded.images.shape) == (9, 64, 48, 3)
    assert decoded.warnings == []


@pytest.mark.parametrize(
    ("sentence", "vae", "latent"),
    [
        ("images have no last frame", Vae(), image()),
        ("a VAE that tiles itself is left alone", Vae(video=True, handles_tiling=True), video()),
    ],
)
def test_last_frame_fix_is_ignored_with_a_word(sentence, vae, latent):
    decoded = decode(latent, vae, last_frame_fix=True)
    assert len(decoded.warnings) == 1, sentence


def test_cores_silent_retry_is_turned_into_a_signal():
    vae = Vae(largest=1)
    with pytest.raises(WholeDecodeRanOut):
        decode_whole(vae, image())
    assert vae.decode_tiled_.__func__ is Vae.decode_tiled_, "the caller's object is untouched"


def test_an_oom_is_climbed_down_from_and_told():
    vae = Vae(largest=16 * 16)
    latent = torch.rand(1, 4, 64, 64)
    decoded = decode(latent, vae)
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.record.plan.kind == "tiled"
    assert vae.calls[-1][1]["tile_x"] <= 16


def test_the_failed_attempts_tensors_are_let_go_before_the_next_attempt():
    import gc
    import weakref

    alive = []

    class Hoarding(Vae):
        def _pixels(self, latent, *, check=True):
            if check:
                big = torch.ones(10)
                alive.append(weakref.ref(big))
                raise OutOfMemory
            assert alive[-1]() is None, "the first attempt's tensors are still held"
            return super()._pixels(latent, check=False)

    gc.disable()
    try:
        decode(torch.rand(1, 4, 64, 64), Hoarding())
    finally:
        gc.enable()
    assert len(alive) == 1


def test_a_temporal_chunk_is_given_in_latent_frames():
    vae = Vae(video=True)
    told = Told(lambda batch, frames, height, width: 100 * height * width * frames)
    request = PlanRequest(
        manual=True, tile_size=64, overlap=16, temporal_size=16, temporal_overlap=8
    )
    decode(torch.rand(1, 16, 12, 16, 16), vae, request=request, told=told)
    assert vae.calls == [
        ("tiled", {"tile_x": 8, "tile_y": 8, "overlap": 2, "tile_t": 4, "overlap_t": 2})
    ]


def test_all_frames_go_in_one_chunk_where_time_is_not_cut():
    vae = Vae(video=True)
    latent = torch.rand(1, 16, 5, 64, 64)
    decode(latent, vae, budget_cap_bytes=200_000)
    assert vae.calls[-1][1]["tile_t"] == 5


def test_a_vae_that_tiles_itself_is_given_its_own_decoder():
    seen = []

    class Own(Vae):
        def decode_tiled(self, latent, **sizes):
            seen.append(self)
            return super().decode_tiled(latent, **sizes)

    vae = Own(video=True, handles_tiling=True)
    decode(torch.rand(1, 16, 3, 8, 64), vae, request=MANUAL)
    assert [each.first_stage_model for each in seen] == [vae.first_stage_model]


def test_the_watched_decoder_is_in_all_else_the_decoder_and_the_object_stays_untouched():
    seen = []

    class Looking(Vae):
        def decode_tiled(self, latent, **sizes):
            seen.append((self.first_stage_model.scale, self.first_stage_model.decoded))
            return super().decode_tiled(latent, **sizes)

    vae = Looking()
    model = vae.first_stage_model
    decode(torch.rand(1, 4, 8, 64), vae, request=MANUAL)
    assert seen == [(0.5, model.decoded)]
    assert vae.first_stage_model is model
    assert model.decoded


def test_wan_is_never_cut_through_time_unless_by_hand():
    facts = read_facts(Vae(video=True))
    wan = replace(facts, family_module="comfy.ldm.wan.vae")
    assert facts.cuts_time(manual=False)
    assert not wan.cuts_time(manual=False)
    assert wan.cuts_time(manual=True)
    assert not replace(wan, tiles_itself=True).cuts_time(manual=True)


def test_room_is_made_up_to_the_cap_and_no_further():
    vae, allocator = on_a_gpu(Working(Allocator())), Allocator()
    memory = Card(free=2 * GiB)
    memory.evictable_bytes = lambda device, keep: 20 * GiB
    asked = []
    memory.evict = lambda needed, device, keep: asked.append(needed) or 0
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=memory, meter=meter_of(allocator),
        told=told_need(10), budget_cap_bytes=4 * GiB,
    )  # fmt: skip
    assert decoded.record.plan.kind == "tiled"
    assert decoded.record.plan.predicted_peak_bytes <= 4 * GiB


def test_the_suggestion_for_what_was_decoded_is_its_plan_as_widget_values():
    from vram_supervisor.nodes.suggestion import suggestion_of

    need = 120 * 64 * 64
    decoded = decode(torch.rand(1, 4, 64, 64), Vae(), memory=Memory(free=need // 3))
    suggestion = suggestion_of(decoded)
    assert suggestion["tile"]
    assert suggestion["tile_size"] == decoded.record.plan.tile_size < 512
    assert suggestion["for"] == "512 x 512 px"
    assert suggestion["predicted_peak_bytes"] <= need // 3
