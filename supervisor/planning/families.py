"""The VAE families known by name, and the decoders known by their architecture.

``families.json`` is written by ``scripts/calibrate.py``: dry runs of ComfyUI's decoders over a
grid of sizes in 16-bit, and the ratios of measured to predicted bytes on a CUDA GPU.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..units import format_bytes
from .cost import FamilyCost, Growth
from .objective import NOMINAL

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE: Final = Path(__file__).with_name("families.json")

MARGIN: Final = 1.02
"""On top of the largest ratio of measured to predicted bytes that was seen."""
UNMEASURED_RATIO: Final = 1.05
"""For decoders nobody measured: the largest seen of any other is 1.013."""

_TITLES: Final[dict[str, tuple[str, Growth]]] = {
    "kl": ("image KL", "none"),
    "flux2": ("Flux 2", "none"),
    "wan2.1": ("Wan 2.1", "none"),
    "wan2.2": ("Wan 2.2", "none"),
    "hunyuan": ("Hunyuan video", "flat"),
    "hunyuan1.5": ("Hunyuan video 1.5", "flat"),
    "ltx": ("LTX", "linear"),
    "mochi": ("Mochi", "linear"),
    "cosmos": ("Cosmos", "linear"),
    "cogvideo": ("CogVideoX", "linear"),
    "h3": ("MiniMax H3", "none"),
}


@dataclass(frozen=True, slots=True)
class _Measured:
    """What real decodes of one layout took, on the GPU that ``families.json`` names."""

    ratio: float
    seconds_per_pixel: float
    decodes: int


def _costs(document: dict[str, Any]) -> dict[str, FamilyCost]:
    """One cost for each layout of the table."""
    gpu = document["measured"]["machine"]["gpu"]
    named = {member: family for family, all_ in document["families"].items() for member in all_}
    return {
        name: layout_cost(named[name], layout, _measured(document, name), gpu)
        for name, layout in document["layouts"].items()
    }


def _measured(document: dict[str, Any], name: str) -> _Measured | None:
    found = document["measured"]["layouts"].get(name)
    if found is None:
        return None
    return _Measured(found["most_ratio"], found["seconds_per_pixel"], found["decodes"])


def layout_cost(
    family: str, layout: dict[str, Any], found: _Measured | None = None, gpu: str = ""
) -> FamilyCost:
    """The cost of one layout of the table, as ``scripts/calibrate.py`` writes it."""
    title, growth = _TITLES[family]
    source = "dry runs of ComfyUI's decoder in 16-bit"
    ratio, time = UNMEASURED_RATIO, NOMINAL
    if found is not None:
        source = f"{source}, checked against {found.decodes} decodes on an {gpu}"
        ratio = max(1.0, found.ratio) * MARGIN
        time = replace(NOMINAL, per_pixel_s=found.seconds_per_pixel)
    return FamilyCost(
        family=family,
        title=title,
        channels=layout["channels"],
        spatial_scale=layout["spatial_scale"],
        temporal_scale=layout["temporal_scale"],
        growth=growth,
        video=layout["video"],
        areas=tuple(layout["areas"]),
        frames=tuple(layout["frames"]),
        base_bytes=_never_falling(layout["base_bytes"]),
        table_ratio=layout.get("table_ratio", 1.0),
        ratio=ratio,
        measured=found is not None,
        source=f"{source}; its weights take {format_bytes(layout['weight_bytes'])} more",
        time=time,
        architectures=(layout["architecture"],),
        tiles_itself=family == "h3",
    )


def _never_falling(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Each figure at least as large as those of fewer frames and of smaller areas."""
    raised: list[tuple[int, ...]] = []
    for row in rows:
        along = tuple(accumulate(row, max))
        raised.append(along if not raised else tuple(map(max, along, raised[-1])))
    return tuple(raised)


def _hungriest(members: Sequence[FamilyCost]) -> FamilyCost:
    """One cost that covers every layout of a family."""
    measured = [each for each in members if each.measured]
    known = measured or members
    slowest = max(known, key=lambda each: each.time.per_pixel_s)
    return replace(
        members[0],
        ratio=max(each.ratio for each in members),
        measured=bool(measured),
        source=slowest.source if len(members) == 1 else f"{slowest.source} (the hungriest version)",
        time=slowest.time,
        architectures=tuple(one for each in members for one in each.architectures),
        other_versions=tuple(members[1:]),
    )


def _load() -> tuple[dict[str, FamilyCost], dict[str, FamilyCost]]:
    document = json.loads(TABLE.read_text(encoding="utf-8"))
    layouts = _costs(document)
    families = {
        family: _hungriest([layouts[name] for name in members])
        for family, members in document["families"].items()
    }
    return families, {cost.architectures[0]: cost for cost in layouts.values()}


BY_FAMILY, _BY_ARCHITECTURE = _load()
FAMILIES: Final = frozenset(BY_FAMILY)


def family_of(architecture: str | None) -> FamilyCost | None:
    """The table of exactly this decoder, by ``architecture_hash``; None for any other."""
    return None if architecture is None else _BY_ARCHITECTURE.get(architecture)
