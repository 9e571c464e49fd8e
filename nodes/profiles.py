"""The profiles' reserves. Widgets win: a profile only stands in for a reserve of 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..supervisor.planning.types import Recommendation

AUTO: Final = "auto"
PROFILES: Final = (AUTO, "12GB_VRAM_32GB_RAM", "low_vram", "balanced", "max_speed")
RESERVE_GB: Final = {
    "12GB_VRAM_32GB_RAM": 1.25,
    "low_vram": 1.5,
    "balanced": 1.0,
    "max_speed": 0.5,
}


def profile_reserve_gb(profile: str, advice: Recommendation) -> float:
    """The reserve of a profile; ``auto`` and unknown names follow the card's advice."""
    fixed = RESERVE_GB.get(profile)
    return advice.reserved_vram_effective_gb if fixed is None else fixed
