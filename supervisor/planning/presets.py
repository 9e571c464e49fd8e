"""The profiles: what each sets the widgets to. One table for nodes, probe and buttons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

AUTO: Final = "auto"
WINDOWS: Final = "Windows"
FP16_CUDA: Final = "sageattn_qk_int8_pv_fp16_cuda"


@dataclass(frozen=True, slots=True)
class Preset:
    """Widget values of a profile.

    Attributes:
        reserve_gib: kept free for other programs.
        sage_attention: mode of the widget.
        sage_with_compile: whether torch.compile may trace SageAttention.
    """

    name: str
    reserve_gib: float
    torch_compile_mode: str = "off"
    sage_attention: str = "auto"
    sage_with_compile: bool = False

    def on(self, os_name: str | None) -> Preset:
        """The same, safe for an operating system: Triton may crash hard on Windows."""
        if os_name != WINDOWS:
            return self
        sage = FP16_CUDA if self is TWELVE else self.sage_attention
        return replace(self, torch_compile_mode="off", sage_with_compile=False, sage_attention=sage)

    def widgets(self) -> dict[str, object]:
        """What the profile fills in, by widget name."""
        return {
            "reserved_vram_gb": self.reserve_gib,
            "sage_attention": self.sage_attention,
            "allow_sageattention_torch_compile": self.sage_with_compile,
            "torch_compile_mode": self.torch_compile_mode,
            "fp16_accumulation": "auto",
            "tf32": "auto",
        }


TWELVE: Final = Preset("12GB_VRAM_32GB_RAM", 1.25)
LOW_VRAM: Final = Preset("low_vram", 1.5)
BALANCED: Final = Preset("balanced", 1.0)
MAX_SPEED: Final = Preset("max_speed", 0.5, "reduce-overhead", sage_with_compile=True)
PRESETS: Final[Mapping[str, Preset]] = {
    each.name: each for each in (TWELVE, LOW_VRAM, BALANCED, MAX_SPEED)
}
"""In the order of the widget, after ``auto``, which is one of them by the card."""


def preset_widgets(os_name: str | None) -> dict[str, dict[str, object]]:
    """Every profile's widget values on an operating system."""
    return {name: preset.on(os_name).widgets() for name, preset in PRESETS.items()}
