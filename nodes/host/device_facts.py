"""What kernels and allocator a decode runs on, as far as measured bytes depend on it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

SPLIT: Final = "split"
FUSED: Final = frozenset({"pytorch", "xformers"})
"""Attention that keeps no scores on a GPU."""

_ATTENTION: Final = {
    "pytorch_attention": "pytorch",
    "attention_pytorch": "pytorch",
    "xformers_attention": "xformers",
    "attention_xformers": "xformers",
    "normal_attention": SPLIT,
    "attention_split": SPLIT,
    "attention_sub_quad": SPLIT,
    "attention_basic": SPLIT,
}
"""ComfyUI's attention functions by name."""
_ATTRIBUTES: Final = ("optimized_attention", "optimized_vae_attention")
_SETTINGS: Final = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")


def allocator_name(device: torch.device) -> str:
    """ "native", "expandable", "cudaMallocAsync" or what torch calls it; "cpu"; the backend."""
    if device.type != "cuda":
        return device.type
    name = str(torch.cuda.get_allocator_backend())
    return "expandable" if name == "native" and _expands() else name


def allocator_settings() -> str:
    """What the environment told torch's allocator before it started, empty for nothing."""
    return ",".join(os.environ[name] for name in _SETTINGS if os.environ.get(name))


def cudnn_version() -> str | None:
    """None where torch has no cuDNN."""
    if not torch.backends.cudnn.is_available():
        return None
    version = torch.backends.cudnn.version()
    return None if version is None else str(version)


def attention_name(module: Any) -> str:
    """ "pytorch", "xformers" or "split": what the decoder's attention runs in.

    Parts bind a function when they are made, so the module is asked first; what binds none is
    told by the host's choice for VAEs.
    """
    for function in _bound(module):
        known = _ATTENTION.get(getattr(function, "__name__", ""))
        if known is not None:
            return known
    return _chosen_by_host()


def _expands() -> bool:
    """Expandable segments need the driver's virtual memory, which torch uses on Linux only."""
    if not sys.platform.startswith("linux"):
        return False
    return "expandable_segments:true" in allocator_settings().replace(" ", "").lower()


def _bound(module: Any) -> Iterator[object]:
    """Attention functions that parts hold; then those their source files import."""
    parts = list(module.modules()) if hasattr(module, "modules") else []
    for part in parts:
        yield from (vars(part)[name] for name in _ATTRIBUTES if name in vars(part))
    for source in dict.fromkeys(type(part).__module__ for part in parts):
        if not source.startswith("torch."):
            yield getattr(sys.modules.get(source), "optimized_attention", None)


def _chosen_by_host() -> str:
    try:
        import comfy.model_management as management
    except ImportError:
        return SPLIT
    for name, enabled in (
        ("xformers", "xformers_enabled_vae"),
        ("pytorch", "pytorch_attention_enabled_vae"),
    ):
        # 0.3.64 and older have no answer of their own for VAEs.
        ask = getattr(management, enabled, None) or getattr(
            management, enabled.removesuffix("_vae"), None
        )
        if ask is not None and ask():
            return name
    return SPLIT
