"""What the parts of an LTX autoencoder look like, so that no other network is taken for one."""

from __future__ import annotations

from typing import Any, Final

from torch import nn

MEANS_BEHIND: Final = ("per_channel", "uniform", "constant")
"""Ways of telling a latent's variance that all leave its mean in the first channels."""


def is_ltx(model: Any) -> bool:
    """Everything but the halves themselves."""
    if not has_children(model, "encoder", "decoder", "per_channel_statistics"):
        return False
    statistics = model.per_channel_statistics
    return hasattr(statistics, "normalize") and hasattr(statistics, "un_normalize")


def is_decoder(model: Any) -> bool:
    """A decoder of causal convolutions whose norms are over single pixels."""
    network = model.decoder
    wanted = {"conv_in", "up_blocks", "conv_norm_out", "conv_act", "conv_out"}
    names = {name for name, _ in network.named_children()} - {"last_time_embedder"}
    if names != wanted or not _has(network, "causal", "patch_size", "last_scale_shift_table"):
        return False
    if not _has(model, "timestep_conditioning", "decode_noise_scale", "decode_timestep"):
        return False
    timed = bool(model.timestep_conditioning)
    if timed != bool(network.timestep_conditioning) or timed != hasattr(
        network, "last_time_embedder"
    ):
        return False
    return (
        _are_ends(network)
        and all(
            is_middle(block) or is_residual(block) or is_up(block) for block in network.up_blocks
        )
        and any(map(is_up, network.up_blocks))
    )


def is_encoder(model: Any) -> bool:
    """The other half, where convolutions look back in time only."""
    network = model.encoder
    if not has_children(
        network, "conv_in", "down_blocks", "conv_norm_out", "conv_act", "conv_out"
    ) or not _has(network, "patch_size", "latent_channels"):
        return False
    if getattr(network, "latent_log_var", "") not in MEANS_BEHIND:
        return False
    blocks = network.down_blocks
    return _are_ends(network) and all(
        (is_middle(block) and not block.timestep_conditioning)
        or is_residual(block)
        or is_down(block)
        or is_strided(block)
        for block in blocks
    )


def _are_ends(network: Any) -> bool:
    return (
        is_causal(network.conv_in)
        and is_causal(network.conv_out)
        and _is_local_norm(network.conv_norm_out)
        and isinstance(network.conv_act, nn.SiLU)
    )


def is_causal(module: Any) -> bool:
    """A convolution of three frames that keeps past ones, one pixel wide around each pixel."""
    return is_strided(module) and module.conv.stride == (1, 1, 1)


def is_strided(module: Any) -> bool:
    """The same, which may leave out frames and pixels."""
    if not has_children(module, "conv") or not is_remembering(module):
        return False
    inner = module.conv
    return (
        isinstance(inner, nn.Conv3d)
        and getattr(module, "time_kernel_size", 0) == inner.kernel_size[0]
        and getattr(module, "time_stride", 0) == inner.stride[0]
        and inner.kernel_size == (3, 3, 3)
        and inner.dilation == (1, 1, 1)
        and inner.padding == (0, 1, 1)
    )


def is_remembering(module: Any) -> bool:
    """Whether it keeps something from one piece of time to the next, by thread."""
    return isinstance(getattr(module, "temporal_cache_state", None), dict)


def is_middle(block: Any) -> bool:
    """Residual blocks one after the other, which may be told a time step."""
    timed = getattr(block, "timestep_conditioning", None)
    names = ("res_blocks", "time_embedder") if timed else ("res_blocks",)
    return (
        timed is not None
        and has_children(block, *names)
        and all(map(_is_block, block.res_blocks))
        and all(bool(each.timestep_conditioning) == bool(timed) for each in block.res_blocks)
    )


def is_residual(block: Any) -> bool:
    """One that stands alone, and is told no time step."""
    return _is_block(block) and not block.timestep_conditioning


def _is_block(block: Any) -> bool:
    names = ("norm1", "non_linearity", "conv1", "norm2", "dropout", "conv2", "conv_shortcut")
    return (
        has_children(block, *names, "norm3")
        and is_remembering(block)
        and _has(block, "inject_noise", "timestep_conditioning")
        and is_causal(block.conv1)
        and is_causal(block.conv2)
        and _is_local_norm(block.norm1)
        and _is_local_norm(block.norm2)
        and (isinstance(block.norm3, nn.Identity) or _is_local_norm(block.norm3))
        and _is_point(block.conv_shortcut)
    )


def _is_point(module: Any) -> bool:
    return isinstance(module, nn.Identity) or getattr(module, "kernel_size", None) == (1, 1, 1)


def is_up(block: Any) -> bool:
    """A convolution whose channels become pixels and frames."""
    return (
        has_children(block, "conv")
        and is_remembering(block)
        and _has(block, "residual", "out_channels_reduction_factor")
        and is_causal(block.conv)
        and _is_step(block)
    )


def is_down(block: Any) -> bool:
    """The other way round, with means of its input added."""
    return (
        has_children(block, "conv")
        and is_remembering(block)
        and hasattr(block, "group_size")
        and is_causal(block.conv)
        and _is_step(block)
    )


def _is_step(block: Any) -> bool:
    stride: Any = getattr(block, "stride", None)
    if not isinstance(stride, tuple) or len(stride) != len("thw"):
        return False
    _, rows, columns = stride
    return set(stride) <= {1, 2} and rows == columns


def _is_local_norm(module: Any) -> bool:
    """Over the channels of each pixel: one without weights, or a layer norm."""
    if has_children(module, "norm"):
        return hasattr(module.norm, "normalized_shape")
    return (
        has_children(module)
        and not list(module.parameters(recurse=False))
        and getattr(module, "dim", None) == 1
        and hasattr(module, "eps")
    )


def has_children(module: Any, *names: str) -> bool:
    """Whether it is a module with these parts and no others."""
    if not isinstance(module, nn.Module):
        return False
    return {name for name, _ in module.named_children()} == set(names)


def _has(module: Any, *names: str) -> bool:
    return all(hasattr(module, name) for name in names)
