from dataclasses import replace

import pytest

from vram_supervisor.supervisor.planning.families import BY_FAMILY
from vram_supervisor.supervisor.planning.recommend import (
    FAMILIES,
    free_for_us_bytes,
    recommend,
)
from vram_supervisor.supervisor.types import DecodeContext, DeviceInfo, Reading
from vram_supervisor.supervisor.units import GiB

WAN = DecodeContext(1280, 720, 81, 16, "wan2.1")
MOCHI = DecodeContext(848, 480, 163, 30, "mochi")


def card(total_gib, **fields):
    return DeviceInfo("cuda:0", "cuda", total_bytes=int(total_gib * GiB), **fields)


def free(gib, **fields):
    return Reading(free_bytes=int(gib * GiB), **fields)


@pytest.mark.parametrize(
    ("sentence", "device", "profile", "reserve", "compiles"),
    [
        ("an 8 GB card saves memory", card(7.6), "low_vram", 1.5, False),
        ("a 12 GB card has its own profile", card(11.6), "12GB_VRAM_32GB_RAM", 1.25, False),
        ("a 16 GB card is balanced", card(15.6), "balanced", 1.0, False),
        ("a 24 GB card is for speed", card(23.6), "max_speed", 0.5, True),
        ("a card of unknown size stays on auto", DeviceInfo("xpu:0", "xpu"), "auto", 1.0, False),
        ("the CPU reserves nothing", DeviceInfo("cpu", "cpu", total_bytes=64 * GiB), "low_vram",
         0.0, False),
        ("no device at all is like the CPU", None, "low_vram", 0.0, False),
    ],
)  # fmt: skip
def test_profiles(sentence, device, profile, reserve, compiles):
    got = recommend(DecodeContext(), device, None)
    assert (got.profile, got.reserved_vram_gb) == (profile, reserve)
    assert got.torch_compile_mode == ("reduce-overhead" if compiles else "off")
    assert got.allow_sageattention_torch_compile is compiles
    assert got.reserved_vram_mode == "adaptive"


def test_a_reserve_never_takes_more_than_a_quarter_of_the_card():
    got = recommend(DecodeContext(), card(4), None)
    assert (got.reserved_vram_gb, got.reserved_vram_effective_gb) == (1.5, 1.0)


def test_windows_gets_no_compile_and_no_triton():
    got = recommend(DecodeContext(), card(24), None, os_name="Windows")
    assert got.torch_compile_mode == "off"
    assert not got.allow_sageattention_torch_compile
    twelve = recommend(DecodeContext(), card(12), None, os_name="Windows")
    assert twelve.sage_attention == "sageattn_qk_int8_pv_fp16_cuda"


def test_less_free_than_the_reserve_is_a_warning_with_both_figures():
    (warning,) = recommend(DecodeContext(), card(12), free(0.5)).warnings
    assert "512.0 MiB" in warning
    assert "1.2 GiB" in warning
    assert recommend(DecodeContext(), card(12), free(5)).warnings == ()


def test_without_a_size_there_are_defaults_and_no_plan():
    got = recommend(DecodeContext(frames=81, family="wan2.1"), card(12), free(10))
    assert got.plan is None
    assert (got.tile_size, got.overlap, got.temporal_size, got.temporal_overlap) == (
        512, 64, 256, 32,
    )  # fmt: skip
    assert (got.windowing, got.window_frames, got.window_overlap) == ("auto", 0, 0)


def test_without_any_memory_figure_there_is_no_plan():
    got = recommend(WAN, None, None)
    assert got.plan is None
    assert any("No memory figure" in note for note in got.notes)


@pytest.mark.parametrize(
    ("sentence", "context", "free_gib", "kind", "cuts_time"),
    [
        ("Wan fits a free 12 GB card whole", WAN, 11, "whole", False),
        ("with 6 GiB free it is tiled, not cut through time", WAN, 6, "tiled", False),
        ("with next to nothing free it belongs on the CPU", WAN, 0.27, "cpu", False),
        ("Mochi on little memory is cut through time", MOCHI, 4, "tiled", True),
    ],
)
def test_decodes(sentence, context, free_gib, kind, cuts_time):
    got = recommend(context, card(12), free(free_gib))
    assert got.plan.kind == kind
    assert (got.temporal_size < context.frames) is cuts_time
    assert got.cleanup_before_decode is (kind == "cpu")


def test_a_decode_that_fits_after_evicting_asks_for_the_cleanup():
    held = {"torch_reserved_bytes": 8 * GiB, "torch_allocated_bytes": 8 * GiB}
    got = recommend(WAN, card(24), free(3, **held))
    assert got.plan.kind == "evict"
    assert got.plan.evict_bytes > 0
    assert got.cleanup_before_decode
    assert got.tile_size >= 1280


def test_the_cpu_has_nothing_to_evict():
    held = {"torch_reserved_bytes": 8 * GiB, "torch_allocated_bytes": 8 * GiB}
    device = DeviceInfo("cpu", "cpu", total_bytes=16 * GiB)
    assert recommend(WAN, device, free(3, **held)).plan.evict_bytes == 0


def test_where_nothing_fits_the_node_gets_its_smallest_tiles():
    got = recommend(WAN, card(12), free(0.26), host_bytes=200 * GiB)
    assert (got.plan.kind, got.plan.fits) == ("cpu", True)
    assert got.tile_size == 64
    assert not recommend(WAN, card(12), free(0.26), host_bytes=1 * GiB).plan.fits
    assert not recommend(WAN, card(12), free(0.26)).plan.fits


def test_the_plan_tells_how_long_the_decode_takes_on_this_card():
    first_guess = recommend(WAN, card(24), free(20)).plan.predicted_seconds
    assert first_guess > 0
    slow = replace(BY_FAMILY["wan2.1"].time, per_pixel_s=1e-5)
    learned = recommend(WAN, card(24), free(20), times=slow).plan.predicted_seconds
    assert learned > 10 * first_guess


def test_pictures_are_planned_for_the_three_passes_of_the_host():
    context = DecodeContext(4096, 4096, None, None, "kl")
    plan = recommend(context, card(12), free(6)).plan
    assert "3 passes" in plan.reason


def test_an_absurd_size_has_no_plan_and_says_why():
    got = recommend(DecodeContext(16384, 16384, 100_000, None, "wan2.1"), card(24), free(20))
    assert got.plan is None
    assert any("cannot be decoded" in note for note in got.notes)


def test_widget_values_do_what_the_plan_says():
    got = recommend(WAN, card(12), free(6))
    assert (got.tile_size, got.overlap) == (got.plan.tile_size, got.plan.overlap)
    whole = recommend(WAN, card(12), free(11))
    assert whole.tile_size >= 1280  # one tile
    assert whole.temporal_size >= 81  # one chunk


def test_widget_values_stay_inside_the_widgets():
    huge = recommend(DecodeContext(16384, 16384, None, None, "kl"), card(2000), free(1999))
    assert huge.plan.kind == "whole"
    assert huge.tile_size == 4096


def test_live_free_memory_counts_and_not_the_cards_size():
    assert recommend(WAN, card(80), free(6)).plan.kind == "tiled"
    assert recommend(WAN, card(80), Reading()).plan.kind == "whole"


@pytest.mark.parametrize(
    ("sentence", "reading", "expected"),
    [
        ("no sample yet", None, None),
        ("free memory unknown", Reading(torch_reserved_bytes=5, torch_allocated_bytes=1), None),
        ("torch's unused cache counts as free",
         Reading(free_bytes=10, torch_reserved_bytes=5, torch_allocated_bytes=1), 14),
        ("torch unknown adds nothing", Reading(free_bytes=10), 10),
        ("a late figure never makes it less",
         Reading(free_bytes=10, torch_reserved_bytes=1, torch_allocated_bytes=5), 10),
    ],
)  # fmt: skip
def test_free_for_us(sentence, reading, expected):
    assert free_for_us_bytes(reading) == expected


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_notes_say_how_the_family_behaves_and_whether_it_was_measured(family):
    text = " ".join(recommend(DecodeContext(1280, 720, 81, 24, family), card(24), free(20)).notes)
    assert BY_FAMILY[family].title in text
    assert ("not measured" in text) is not BY_FAMILY[family].measured
    if BY_FAMILY[family].video:
        assert ("is a lever" in text) is (family in {"ltx", "mochi", "cosmos", "cogvideo"})


def test_an_unnamed_video_is_figured_as_a_hungry_family_and_says_so():
    got = recommend(DecodeContext(1280, 720, 81), card(24), free(20))
    assert any("name it with vae=" in note for note in got.notes)
    named = recommend(DecodeContext(1280, 720, 81, None, "wan2.1"), card(24), free(20))
    assert got.plan.kind == "tiled"
    assert named.plan.kind == "whole"
    assert any("Mochi and CogVideoX need more" in note for note in got.notes)


def test_an_unnamed_picture_is_figured_as_image_kl():
    got = recommend(DecodeContext(1024, 1024), card(24), free(20))
    assert any("image VAE (kl)" in note for note in got.notes)


def test_unified_memory_is_noted():
    got = recommend(DecodeContext(), card(100, unified=True), free(50))
    assert any("shares system memory" in note for note in got.notes)


def test_a_card_whose_size_only_the_reading_knows_still_gets_its_profile():
    card = DeviceInfo("xpu:0", "xpu")
    advice = recommend(DecodeContext(), card, Reading(total_bytes=8 * GiB, free_bytes=7 * GiB))
    assert advice.profile == "low_vram"


def test_on_a_cpu_the_decode_is_in_32_bit_and_slow():
    context = DecodeContext(1280, 720, 81, None, "wan2.1")
    cpu = DeviceInfo("cpu", "cpu", total_bytes=64 * GiB)
    slow = recommend(context, cpu, Reading(total_bytes=64 * GiB, free_bytes=60 * GiB)).plan
    fast = recommend(context, card(24), free(20)).plan
    assert slow.kind == fast.kind == "whole"
    assert slow.predicted_peak_bytes == pytest.approx(2 * fast.predicted_peak_bytes, rel=0.01)
    assert slow.predicted_seconds > 20 * fast.predicted_seconds
