"""What the newer Hunyuan autoencoders look like: changes of size by moving channels to pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._residual_shape import are_ends, has_parts, is_block

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._residual_shape import Kind


def is_decoder(network: Any, kind: Kind, is_upsample: Callable[[Any], bool]) -> bool:
    """Levels in the list ``up`` from the latent to the pixels; the last keep the size."""
    return (
        are_ends(network, "up", kind)
        and _widens(network)
        and all(_is_level(level, kind, is_upsample) for level in network.up)
        and hasattr(network.up[0], "upsample")
    )


def _widens(network: Any) -> bool:
    """Whether the latent, its channels repeated, fits around the first convolution."""
    widths: Sequence[int] = getattr(network, "block_out_channels", ())
    channels: int = getattr(network, "z_channels", 0)
    return len(widths) > 0 and channels > 0 and widths[0] % channels == 0


def _is_level(level: Any, kind: Kind, is_upsample: Callable[[Any], bool]) -> bool:
    if not has_parts(level, ("block",), ("upsample",)):
        return False
    return all(is_block(block, kind) for block in level.block) and (
        not hasattr(level, "upsample") or is_upsample(level.upsample)
    )


def is_picture_upsample(layer: Any, kind: Kind) -> bool:
    """For pictures: the way around repeats channels ``scale`` times."""
    return _convolves(layer, kind) and isinstance(getattr(layer, "scale", None), int)


def is_clip_upsample(layer: Any, kind: Kind, *, refiner: bool) -> bool:
    """For clips: ``tus`` says whether time doubles, ``refiner_vae`` whether the first frame
    stays one."""
    return (
        _convolves(layer, kind)
        and isinstance(getattr(layer, "tus", None), bool)
        and getattr(layer, "refiner_vae", None) is refiner
    )


def _convolves(layer: Any, kind: Kind) -> bool:
    return has_parts(layer, ("conv",)) and kind.is_convolution(layer.conv, 3)
