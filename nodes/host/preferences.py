"""What a user wants of the pack in every workflow; everything is off until they ask for it.

Headless servers set environment variables before ComfyUI starts.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

PROTECT_VARIABLE: Final = "IAMCCS_PROTECT_VAE_DECODE"
_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Preferences:
    """The wishes, with what holds where nothing was said.

    Attributes:
        protect_vae_decode: core's own decode nodes decode as the safe node does.
    """

    protect_vae_decode: bool = False


def preferences_from(environment: Mapping[str, str]) -> Preferences:
    """Read the environment variables; a text that is neither yes nor no counts as no."""
    return Preferences(protect_vae_decode=_switch(PROTECT_VARIABLE, environment))


def _switch(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in _ON | _OFF:
        _log.warning("%s is %r, which is neither 1 nor 0: it stays off.", name, environment[name])
    return text in _ON
