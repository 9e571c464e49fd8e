"""The profiles' reserves. Widgets win: a profile only stands in for a reserve of 0."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..supervisor.planning.presets import AUTO, PRESETS

if TYPE_CHECKING:
    from ..supervisor.planning.types import Recommendation

PROFILES: Final = (AUTO, *PRESETS)


def profile_reserve_gb(profile: str, advice: Recommendation) -> float:
    """The reserve of a profile; ``auto`` and unknown names follow the card's advice."""
    preset = PRESETS.get(profile)
    return advice.reserved_vram_effective_gb if preset is None else preset.reserve_gib
