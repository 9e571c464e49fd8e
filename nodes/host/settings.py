"""Process-wide settings that hold for a while and are put back afterwards.

ComfyUI's reserve and torch's matmul flags are one number or flag for the whole process. Who
wants one holds it under a name (a node for the length of a job, a model for one sampling
run); while several hold the same setting they are combined; when the last lets go, the
value from before the first is written back, exactly.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_log = logging.getLogger(__name__)


class Setting(Protocol):
    """One process-wide value. Values are compared with ``==`` and written back as read."""

    @property
    def name(self) -> str:
        """What nodes and reports call it."""
        ...

    def read(self) -> object:
        """The value now, in a form that ``write`` takes back exactly."""
        ...

    def write(self, value: object) -> None:
        """Set it."""
        ...

    def combine(self, wishes: Sequence[object]) -> object:
        """One value for all who hold it now; ``wishes`` oldest first, never empty."""
        ...


@dataclass
class _Taken:
    """A setting that somebody holds: what it was before, and what we wrote last."""

    original: object
    written: object


@dataclass
class SettingsScope:
    """Holds settings by owner and puts them back. Thread-safe.

    A value that somebody else changed while we held it is theirs: it is not overwritten
    when the last owner lets go, and the log says so.
    """

    settings: Mapping[str, Setting]
    _wishes: dict[str, dict[str, object]] = field(default_factory=dict)
    _taken: dict[str, _Taken] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def hold(self, owner: str, wishes: Mapping[str, object]) -> dict[str, str]:
        """Hold these settings for ``owner``; holding again replaces its earlier wishes.

        Returns:
            Why, by setting name, for those that could not be set; the others are set.
        """
        with self._lock:
            names = [*self._wishes.pop(owner, {}), *wishes]
            if wishes:
                self._wishes[owner] = dict(wishes)
            return self._settle(names)

    def revise(self, owner: str, wishes: Mapping[str, object]) -> bool:
        """Change what ``owner`` holds, as far as it still holds it; the rest stays.

        Returns:
            False where it holds none of it: it let go, or its job ended.
        """
        with self._lock:
            held = self._wishes.get(owner, {})
            changed = {name: value for name, value in wishes.items() if name in held}
            if changed:
                held.update(changed)
                self._settle(changed)
            return bool(changed)

    def release(self, owner: str) -> None:
        """Let go of everything ``owner`` holds; unknown owners are fine."""
        with self._lock:
            self._settle(list(self._wishes.pop(owner, {})))

    def release_all(self) -> None:
        """Put everything back: the job ended, however it ended."""
        with self._lock:
            self._wishes.clear()
            self._settle(list(self._taken))

    def held(self) -> dict[str, object]:
        """What is in force now because somebody holds it, by setting name."""
        with self._lock:
            return {name: taken.written for name, taken in self._taken.items()}

    def original(self, name: str) -> object:
        """What a setting is without anybody's wish; None where there is no such setting."""
        with self._lock:
            taken = self._taken.get(name)
            if taken is not None:
                return taken.original
            return self.settings[name].read() if name in self.settings else None

    def _settle(self, names: Iterable[str]) -> dict[str, str]:
        failures: dict[str, str] = {}
        for name in dict.fromkeys(names):
            wishes = [held[name] for held in self._wishes.values() if name in held]
            try:
                if wishes:
                    self._take(self.settings[name], wishes)
                else:
                    self._put_back(self.settings[name])
            except (RuntimeError, AttributeError, TypeError, ValueError) as problem:
                _log.warning("The setting %s could not be changed: %s", name, problem)
                failures[name] = str(problem)
        return failures

    def _take(self, setting: Setting, wishes: Sequence[object]) -> None:
        before = setting.read()
        wanted = setting.combine(wishes)
        taken = self._taken.setdefault(setting.name, _Taken(before, before))
        if before != taken.written:
            # Somebody else changed it while we held it: that is what is put back now.
            taken.original = before
        if before != wanted:
            try:
                setting.write(wanted)
            except Exception:
                # A value made of several flags may be half written.
                setting.write(before)
                raise
            finally:
                taken.written = setting.read()

    def _put_back(self, setting: Setting) -> None:
        taken = self._taken.get(setting.name)
        if taken is None:
            return
        now = setting.read()
        if now != taken.written:
            _log.info("%s was changed to %s by somebody else and is left so", setting.name, now)
        elif now != taken.original:
            setting.write(taken.original)
        # Only now: a write that failed is tried again at the next release.
        del self._taken[setting.name]
