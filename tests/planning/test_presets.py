"""The profiles, and what each sets the widgets to."""

import pytest

from vram_supervisor.supervisor.planning.presets import PRESETS, preset_widgets

FP16_CUDA = "sageattn_qk_int8_pv_fp16_cuda"


@pytest.mark.parametrize(
    ("profile", "reserve", "compiles"),
    [
        ("12GB_VRAM_32GB_RAM", 1.25, "off"),
        ("low_vram", 1.5, "off"),
        ("balanced", 1.0, "off"),
        ("max_speed", 0.5, "reduce-overhead"),
    ],
)
def test_what_a_profile_sets(profile, reserve, compiles):
    widgets = preset_widgets("Linux")[profile]
    assert widgets == {
        "reserved_vram_gb": reserve,
        "sage_attention": "auto",
        "allow_sageattention_torch_compile": compiles != "off",
        "torch_compile_mode": compiles,
        "fp16_accumulation": "auto",
        "tf32": "auto",
    }


def test_on_windows_nothing_is_compiled_with_triton():
    """It may end the process: the 12 GB profile names the kernel that needs none."""
    for name, widgets in preset_widgets("Windows").items():
        assert widgets["torch_compile_mode"] == "off"
        assert widgets["allow_sageattention_torch_compile"] is False
        wanted = FP16_CUDA if name == "12GB_VRAM_32GB_RAM" else "auto"
        assert widgets["sage_attention"] == wanted


def test_an_unknown_system_is_like_linux():
    assert preset_widgets(None) == preset_widgets("Linux")
    assert list(preset_widgets(None)) == list(PRESETS)
