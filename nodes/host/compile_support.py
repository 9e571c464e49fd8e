"""torch.compile through ComfyUI's own support, so that it survives LoRA and offload."""

from __future__ import annotations

import inspect
import shutil
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMPILED: Final = "torch_compile_kwargs"
"""Where the host keeps what a model was compiled with, among its options."""
COMPILERS: Final = ("c++", "g++", "clang++", "cl")
_OPTIONS: Final = "transformer_options"
_OVERRIDE: Final = "optimized_attention_override"


def host_support() -> Callable[..., None] | None:
    """The host's function that puts a compiled network on a model, None where it has none."""
    try:
        from comfy_api.torch_helpers import set_torch_compile_wrapper
    except ImportError:
        return None
    return set_torch_compile_wrapper


def is_compiled(model: Any) -> bool:
    """Whether a node before had it compiled."""
    return bool(getattr(model, "model_options", {}).get(COMPILED))


def compiled(model: Any, mode: str, support: Callable[..., None]) -> Any:
    """A clone whose network is compiled when it first runs.

    Args:
        model: the host's patcher.
        mode: one of torch.compile's.
        support: what ``host_support`` gave.
    """
    clone = _static_clone(model)
    support(model=clone, backend="inductor", options=options_of(mode))
    return clone


def options_of(mode: str) -> dict[str, Any]:
    """A mode as options: torch takes a mode or options, and what is guarded is an option."""
    import torch._inductor as inductor

    return {**inductor.list_mode_options(mode), "guard_filter_fn": guarded}


def guarded(entries: Sequence[Any]) -> list[bool]:
    """Which values a compiled graph depends on: not the host's options, which change with every
    step, but whose attention runs."""
    return [_OPTIONS not in each.name or _OVERRIDE in each.name for each in entries]


def has_triton() -> bool:
    """Whether inductor can compile for a GPU here."""
    try:
        from torch.utils._triton import has_triton as found
    except ImportError:
        return False
    return bool(found())


def has_cpp_compiler() -> bool:
    """Whether inductor can compile for a CPU here."""
    return any(shutil.which(name) for name in COMPILERS)


def _static_clone(model: Any) -> Any:
    """A compiled network's weights stay where they are: DynamicVRAM would move them."""
    if "disable_dynamic" in inspect.signature(model.clone).parameters:
        return model.clone(disable_dynamic=True)
    return model.clone()
