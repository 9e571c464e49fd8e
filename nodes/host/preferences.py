"""What a user wants of the pack in every workflow.

Kept in ComfyUI's user folder beside the history and changed through
``GET`` and ``POST /iamccs/supervisor/settings``. Headless servers set environment variables
before ComfyUI starts; what they say holds and cannot be changed from a page.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from ...supervisor.errors import QueryRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

PROTECT_VARIABLE: Final = "IAMCCS_PROTECT_VAE_DECODE"
PREFERENCES_NAME: Final = "settings.json"
_ON: Final = frozenset({"1", "true", "yes", "on"})
_OFF: Final = frozenset({"", "0", "false", "no", "off"})

Quality: TypeAlias = Literal["exact", "balanced", "fast"]


@dataclass(frozen=True, slots=True)
class Preferences:
    """The wishes, with what holds where nothing was said.

    Attributes:
        sampling_rate_hz: how often devices are read while a job runs or a page watches.
        history_days: how long finished jobs are kept.
        default_quality: of new nodes, and of core's decode nodes while they are protected.
        protect_vae_decode: core's own decode nodes decode as the safe node does.
    """

    sampling_rate_hz: float = 10.0
    history_days: int = 30
    default_quality: Quality = "exact"
    protect_vae_decode: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """What a setting may be, for whoever offers it and for who checks it."""

    type: Literal["number", "choice", "switch"]
    default: object
    min: float | None = None
    max: float | None = None
    step: float | None = None
    choices: tuple[str, ...] | None = None

    def refusal(self, value: object) -> str | None:
        """What is wrong with a value; None where it is fine."""
        if self.type == "switch":
            return None if isinstance(value, bool) else "is not true or false"
        if self.type == "choice":
            choices = self.choices or ()
            return None if value in choices else f"is none of {', '.join(choices)}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "is not a number"
        least, most = self.min or 0, self.max or 0
        if not least <= value <= most:
            return f"is not between {least:g} and {most:g}"
        whole = isinstance(self.default, float) or value == int(value)
        return None if whole else "is not a whole number"

    def as_dict(self) -> dict[str, object]:
        """For the pages; what does not apply is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


_STANDARD: Final = Preferences()
FIELDS: Final[Mapping[str, Field]] = {
    "sampling_rate_hz": Field("number", _STANDARD.sampling_rate_hz, min=1, max=20, step=1),
    "history_days": Field("number", _STANDARD.history_days, min=1, max=365, step=1),
    "default_quality": Field(
        "choice", _STANDARD.default_quality, choices=("exact", "balanced", "fast")
    ),
    "protect_vae_decode": Field("switch", _STANDARD.protect_vae_decode),
}


class PreferenceBook:
    """The preferences of this process, and their file. Thread-safe.

    Args:
        path: of the JSON file; its folder is made when something is first changed.
        environment: variables that say what holds whatever the file has.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.problem: str | None = None
        """Why the file does not serve, None when it does."""
        self.fixed = _fixed_by(environment)
        """Why a setting cannot be changed from a page, by its name."""
        self._follow: Callable[[Preferences], None] = _nothing
        found = _checked(self._read())
        fixed = {name: _switch(PROTECT_VARIABLE, environment) for name in self.fixed}
        self._preferences = replace(_STANDARD, **{**found, **fixed})

    @property
    def now(self) -> Preferences:
        """What holds."""
        return self._preferences

    def follow(self, follow: Callable[[Preferences], None]) -> None:
        """Call ``follow`` with what holds, now and after each change."""
        self._follow = follow
        follow(self._preferences)

    def change(self, body: object) -> None:
        """Take in some settings, all of them or none; blocking, for the file is written.

        Raises:
            QueryRejectedError: names the setting that is wrong or cannot be changed here.
        """
        wanted = _accepted(body, self.fixed)
        with self._lock:
            self._preferences = replace(self._preferences, **wanted)
            self._write()
            self._follow(self._preferences)

    def as_dict(self) -> dict[str, object]:
        """The settings route's answer."""
        return {
            "settings": asdict(self._preferences),
            "fields": {name: field.as_dict() for name, field in FIELDS.items()},
            "fixed": dict(self.fixed),
            "problem": self.problem,
        }

    def _read(self) -> object:
        try:
            return json.loads(self._path.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as problem:
            self.problem = (
                f"{self._path} cannot be read ({problem}). The standard settings hold; the file "
                "is left as it is until a setting is changed."
            )
            _log.warning("%s", self.problem)
            return {}

    def _write(self) -> None:
        """Beside it first, so that a crash leaves the old file or the new one."""
        text = json.dumps(asdict(self._preferences), indent=2) + "\n"
        beside = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, "utf-8")
            beside.replace(self._path)
            self.problem = None
        except OSError as problem:
            self.problem = (
                f"{self._path} cannot be written ({problem}). The settings hold until ComfyUI "
                "ends; make the folder writable and change one again to keep them."
            )
            _log.warning("%s", self.problem)


def _nothing(_preferences: Preferences) -> None:
    """Until somebody follows."""


def _accepted(body: object, fixed: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise QueryRejectedError("body", "is not a JSON object")
    wanted = cast("dict[str, Any]", body)
    for name, value in wanted.items():
        if name not in FIELDS:
            raise QueryRejectedError(name, f"is not known; known are {', '.join(FIELDS)}")
        refusal = FIELDS[name].refusal(value)
        if refusal is not None:
            raise QueryRejectedError(name, refusal)
        if name in fixed:
            raise QueryRejectedError(name, fixed[name])
    return {name: _as_kept(name, value) for name, value in wanted.items()}


def _checked(read: object) -> dict[str, Any]:
    """What of a file can be used; the rest is logged and left."""
    if not isinstance(read, dict):
        return {}
    found: dict[str, Any] = {}
    for name, value in cast("dict[str, object]", read).items():
        refusal = FIELDS[name].refusal(value) if name in FIELDS else "is not known"
        if refusal is None:
            found[name] = _as_kept(name, value)
        else:
            _log.warning("The kept setting %s %s; the standard one holds.", name, refusal)
    return found


def _as_kept(name: str, value: Any) -> object:
    """In the type of the standard value: JSON tells no whole number from another."""
    kind: Any = type(FIELDS[name].default)
    return kind(value)


def _fixed_by(environment: Mapping[str, str]) -> dict[str, str]:
    if not environment.get(PROTECT_VARIABLE, "").strip():
        return {}
    why = f"is set by {PROTECT_VARIABLE}; unset it and restart ComfyUI to change it here"
    return {"protect_vae_decode": why}


def _switch(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in _ON | _OFF:
        _log.warning("%s is %r, which is neither 1 nor 0: it stays off.", name, environment[name])
    return text in _ON
