"""The ways to decode that ``bench.py decode`` compares. ComfyUI must have been entered before."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from _bench_decode_cases import CORE_TILING, OURS, table_tiling
from _bench_decode_host import Said

if TYPE_CHECKING:
    import torch
    from _bench_decode_cases import Tiling, Way
    from _bench_decode_host import Host

RETRIED: Final = "retrying with tiled VAE decoding"
"""What core's log says when its whole decode ran out of memory."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a decode may use.

    Attributes:
        gib: the card's size.
        cap_gib: what the node's budget widget says; 0 leaves it to the node.
    """

    gib: float
    cap_gib: float = 0.0


@dataclass
class Told:
    """What a way says of its decode.

    Attributes:
        plan: one line.
        report: what our node reports, empty for others.
    """

    plan: str
    report: dict[str, Any] = field(default_factory=dict[str, Any])


def decode(
    way: Way,
    vae: Any,  # noqa: ANN401
    latent: torch.Tensor,
    card: Card,
    host: Host,
) -> tuple[torch.Tensor, Told]:
    """Images ``[N, H, W, 3]``, and what was said."""
    samples = {"samples": latent}
    if way in OURS:
        return _ours(way, vae, samples, card)
    if way == "core":
        return whole(vae, samples)
    if way == "tiled":
        return _in_tiles(vae, samples, CORE_TILING), Told(f"tiles {CORE_TILING}")
    return _by_table(vae, samples, card, host)


def whole(vae: Any, samples: dict[str, torch.Tensor]) -> tuple[torch.Tensor, Told]:  # noqa: ANN401
    """Core's own node, which retries in tiles where it runs out of memory."""
    with Said() as lines:
        (images,) = import_module("nodes").VAEDecode().decode(vae, samples)
    retried = any(RETRIED in line for line in lines)
    return images, Told("whole: OOM; tiled" if retried else "whole")


def _in_tiles(vae: Any, samples: dict[str, torch.Tensor], tiling: Tiling) -> torch.Tensor:  # noqa: ANN401
    node = import_module("nodes").VAEDecodeTiled()
    (images,) = node.decode(
        vae,
        samples,
        tiling.tile_size,
        tiling.overlap,
        tiling.temporal_size,
        tiling.temporal_overlap,
    )
    return images


def _by_table(
    vae: Any,  # noqa: ANN401
    samples: dict[str, torch.Tensor],
    card: Card,
    host: Host,
) -> tuple[torch.Tensor, Told]:
    tiling = table_tiling(card.gib)
    images = _survived(vae, samples, tiling, host)
    if images is not None:
        return images, Told(f"tiles {tiling}")
    smaller = tiling.halved()
    host.management.soft_empty_cache()
    return _in_tiles(vae, samples, smaller), Told(f"tiles {tiling}: OOM; tiles {smaller}")


def _survived(
    vae: Any,  # noqa: ANN401
    samples: dict[str, torch.Tensor],
    tiling: Tiling,
    host: Host,
) -> torch.Tensor | None:
    """None where it ran out; the error, which refers to its tensors, is gone by then."""
    try:
        return _in_tiles(vae, samples, tiling)
    except Exception as problem:
        if not host.is_oom(problem):
            raise
    return None


def _ours(
    way: Way,
    vae: Any,  # noqa: ANN401
    samples: dict[str, torch.Tensor],
    card: Card,
) -> tuple[torch.Tensor, Told]:
    """Our node's own face, with its defaults."""
    face = import_module("vram_supervisor.nodes.faces.vae_decode_tiled_safe").VaeDecodeTiledSafe
    images, text = face.execute(
        samples,
        vae,
        tile=True,
        tiling_mode="auto",
        tile_size=512,
        overlap=64,
        temporal_size=256,
        temporal_overlap=32,
        cleanup_before_decode=False,
        quality=way,
        vram_budget_gb=card.cap_gib,
    ).result
    report = json.loads(text)
    return images, Told("; ".join(report.get("ladder") or []), report)
