"""ComfyUI's own context windows, put on a copy of a guider."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

    from ..windowing import Windows

TIME_DIM: Final = 2
"""Of [B, C, T, H, W]."""
HANDLER: Final = "context_handler"
SCHEDULE: Final = "standard_uniform"
FUSE: Final = "pyramid"


def context_windows() -> ModuleType | None:
    """The host's module, None where it has none."""
    try:
        import comfy.context_windows as module
    except ImportError:
        return None
    names = ("IndexListContextHandler", "create_prepare_sampling_wrapper")
    return module if all(hasattr(module, name) for name in names) else None


def has_windows(guider: Any) -> bool:
    """Whether somebody put windows on its model already."""
    options: dict[str, object] = getattr(guider, "model_options", None) or {}
    return options.get(HANDLER) is not None


def copied(guider: Any) -> Any:
    """A guider of its own with a clone of the model: what is put on it stays off the caller's."""
    own = copy.copy(guider)
    model = guider.model_patcher.clone()
    # Guiders and other nodes may have put options on the guider alone.
    if guider.model_options is not guider.model_patcher.model_options:
        from comfy.model_patcher import create_model_options_clone

        model.model_options = create_model_options_clone(guider.model_options)
    own.model_patcher, own.model_options = model, model.model_options
    return own


def put_windows(module: ModuleType, guider: Any, windows: Windows) -> None:
    """Have a copied guider sample in windows of time, as the host's nodes for video do.

    Args:
        module: what ``context_windows`` gave.
        guider: what ``copied`` gave.
        windows: how to cut, in latent frames.
    """
    model = guider.model_patcher
    wanted = {
        "context_length": windows.length,
        "context_overlap": windows.overlap,
        "dim": TIME_DIM,
        # Without it each window draws noise of its own and the blend goes soft.
        "freenoise": True,
    }
    known = inspect.signature(module.IndexListContextHandler).parameters
    handler = module.IndexListContextHandler(
        module.get_matching_context_schedule(_schedule(module)),
        module.get_matching_fuse_method(_fuse(module)),
        **{name: value for name, value in wanted.items() if name in known},
    )
    model.model_options[HANDLER] = handler
    # The host counts one window's memory only; the other wrapper shuffles the noise.
    module.create_prepare_sampling_wrapper(model)
    if "freenoise" in known and hasattr(module, "create_sampler_sample_wrapper"):
        module.create_sampler_sample_wrapper(model)


def _schedule(module: Any) -> str:
    return getattr(module.ContextSchedules, "UNIFORM_STANDARD", SCHEDULE)


def _fuse(module: Any) -> str:
    return getattr(module.ContextFuseMethods, "PYRAMID", FUSE)
