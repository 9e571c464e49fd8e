"""What the parts of a Wan autoencoder look like, so that no other network is taken for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

UPSAMPLES: Final = ("upsample2d", "upsample3d")
DOWNSAMPLES: Final = ("downsample2d", "downsample3d")
IN_TIME: Final = "3d"
"""How modes end that change the number of frames too."""


def is_wan(model: Any) -> bool:
    """Everything both have but for what lies between ``conv1`` and ``head`` of each half."""
    if not has_children(model, "encoder", "decoder", "conv1", "conv2"):
        return False
    if not is_causal(model.conv1, 1, 1, 1) or not is_causal(model.conv2, 1, 1, 1):
        return False
    return _is_half(model.encoder, "downsamples") and _is_half(model.decoder, "upsamples")


def _is_half(half: Any, way: str) -> bool:
    return (
        has_children(half, "conv1", "middle", "head", way)
        and isinstance(getattr(half, way), nn.Sequential)
        and is_causal(half.conv1, 3, 3, 3)
        and _is_middle(half.middle)
        and _is_head(half.head)
    )


def has_children(module: Any, *names: str) -> bool:
    """Whether it is a module with these parts and no others."""
    if not isinstance(module, nn.Module):
        return False
    return {name for name, _ in module.named_children()} == set(names)


def is_causal(module: Any, *kernel: int) -> bool:
    """A convolution that pads time at its beginning only; the host's class notes by how much."""
    if not isinstance(module, nn.Conv3d) or not hasattr(module, "_padding"):
        return False
    return tuple(module.kernel_size) == kernel


def is_residual(module: Any) -> bool:
    """Two causal convolutions with their norms, and a way around them."""
    if not has_children(module, "residual", "shortcut"):
        return False
    kinds = (_is_norm, _is_silu, _is_wide, _is_norm, _is_silu, _is_dropout, _is_wide)
    return _is_chain(module.residual, *kinds) and (
        isinstance(module.shortcut, nn.Identity) or is_causal(module.shortcut, 1, 1, 1)
    )


def is_attention(module: Any) -> bool:
    """Attention over space, frame by frame."""
    return has_children(module, "norm", "to_qkv", "proj") and _is_norm(module.norm)


def is_resample(module: Any, modes: Sequence[str]) -> bool:
    """A change of size by two, in time too where the mode says so."""
    mode: str = getattr(module, "mode", "")
    if mode not in modes or not _is_chain(getattr(module, "resample", None), _is_any, _is_flat):
        return False
    time = getattr(module, "time_conv", None)
    return is_causal(time, 3, 1, 1) if mode.endswith(IN_TIME) else time is None


def are(layers: Sequence[Any], modes: Sequence[str], *, local: bool) -> bool:
    """Whether there are only residual blocks, changes of size and, unless local, attention."""
    return all(
        is_residual(layer) or is_resample(layer, modes) or (not local and is_attention(layer))
        for layer in layers
    )


def _is_middle(middle: Any) -> bool:
    return _is_chain(middle, is_residual, is_attention, is_residual)


def _is_head(head: Any) -> bool:
    return _is_chain(head, _is_norm, _is_silu, _is_wide)


def _is_chain(chain: Any, *kinds: Any) -> bool:
    """Layers one after the other, each of its kind."""
    if not isinstance(chain, nn.Sequential) or len(chain) != len(kinds):
        return False
    return all(is_kind(layer) for is_kind, layer in zip(kinds, chain, strict=True))


def _is_norm(module: Any) -> bool:
    """Over the channels of each pixel."""
    return hasattr(module, "gamma") and getattr(module, "channel_first", False) is True


def _is_wide(module: Any) -> bool:
    return is_causal(module, 3, 3, 3)


def _is_flat(module: Any) -> bool:
    return isinstance(module, nn.Conv2d) and tuple(module.kernel_size) == (3, 3)


def _is_silu(module: Any) -> bool:
    return isinstance(module, nn.SiLU)


def _is_dropout(module: Any) -> bool:
    return isinstance(module, nn.Dropout)


def _is_any(module: Any) -> bool:
    return isinstance(module, nn.Module)
