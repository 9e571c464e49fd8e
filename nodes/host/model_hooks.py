"""Settings that ride on a model: in force while that model samples, also from the cache."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .settings import SettingsScope

KEY: Final = "vram_supervisor"


def bind(model: Any, scope: SettingsScope, wishes: Mapping[str, object]) -> Any | None:
    """A clone of ``model`` that holds ``wishes`` from its pre-run to its clean-up.

    The clone stays in ComfyUI's cache with its callbacks, so the settings hold on a second
    queue in which the node itself does not run. Core cleans up in a ``finally``; the end of
    the job lets go all the same.

    Returns:
        None where the object takes no callbacks.
    """
    if not hasattr(model, "add_callback_with_key"):
        return None
    from comfy.patcher_extension import CallbacksMP

    bound = model.clone()
    owner = f"run:{uuid.uuid4().hex}"
    hold, release = partial(_hold, scope, owner, dict(wishes)), partial(_release, scope, owner)
    bound.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, hold)
    bound.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, release)
    return bound


def _hold(scope: SettingsScope, owner: str, wishes: Mapping[str, object], _patcher: object) -> None:
    scope.hold(owner, wishes)


def _release(scope: SettingsScope, owner: str, _patcher: object) -> None:
    scope.release(owner)
