"""Names of other processes, looked up once each. Never their command lines: those may hold
secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def program_name(pid: int) -> str | None:
    """The program a process runs, None where it is gone or not ours to see."""
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, OSError, ValueError):
        return None


class ProcessNames:
    """Remembers the names of the processes of the last list only, for ids are used again."""

    def __init__(self, look_up: Callable[[int], str | None] = program_name) -> None:
        self._look_up = look_up
        self._names: dict[int, str | None] = {}

    def of(self, pids: Iterable[int]) -> dict[int, str | None]:
        """Names by process id; None where a name is not known."""
        known = self._names
        self._names = {pid: known[pid] if pid in known else self._look_up(pid) for pid in pids}
        return self._names
