"""Reserves that follow telemetry: decided from what was seen, revised while the job runs.

A reserve is held through the settings' scope under its node's name. When the job ends the scope
lets go of it, and a revision of what is no longer held does nothing: that is how following ends.
"""

from __future__ import annotations

import logging
import platform
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

from ...supervisor.planning.reserve import (
    WINDOWS_BACK,
    Ask,
    Decision,
    Facts,
    Growth,
    Held,
    Mode,
    decide,
    dynamic_headroom_bytes,
    growth,
    next_held,
    system_name,
    uncounted_bytes,
    window_s,
)
from ...supervisor.telemetry.external import SecondsTrace
from ...supervisor.types import Reading
from ...supervisor.units import GiB, format_bytes, from_gib
from .headroom import HEADROOM
from .torch_settings import RESERVE
from .wishes import reserve_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...supervisor.ports import OutsideTorch
    from ...supervisor.types import JobRecord, Sample
    from .settings import SettingsScope

TYPICAL_JOBS: Final = 20
"""How many of the newest jobs tell how long one takes."""
MODES: Final[dict[object, Mode]] = {
    "manual": "manual",
    "auto_used_plus": "auto_used_plus",
    "adaptive": "adaptive",
}

_log = logging.getLogger(__name__)


class Jobs(Protocol):
    """The part of the job tracker that is asked."""

    def recent(self, limit: int) -> Sequence[JobRecord]:
        """Finished jobs, newest first."""
        ...


class Monitor(Protocol):
    """The part of the supervisor that is asked."""

    @property
    def jobs(self) -> Jobs:
        """Which jobs run and ran."""
        ...

    def latest(self) -> dict[str, Sample]:
        """The newest sample of each device."""
        ...

    def primary_device(self) -> str:
        """The device jobs compute on."""
        ...


@dataclass(slots=True)
class _Followed:
    """A reserve that is revised while its job runs, one figure in force for each setting."""

    ask: Ask
    held: dict[str, Held]


@dataclass
class Reserves:
    """Decides reserves and keeps them current. Every method may be called on any thread.

    Attributes:
        streamed: bytes of weights on a device outside torch, as the host knows them.
        dynamic: whether DynamicVRAM manages the weights.
        system: "Windows", "WSL", "Linux" or another operating system.
        no_headroom: why DynamicVRAM's headroom cannot be set here, None where it can.
        margin: bytes that plans keep from the driver, of a device's total.
    """

    monitor: Monitor
    scope: SettingsScope
    streamed: OutsideTorch
    dynamic: Callable[[], bool]
    system: str
    no_headroom: str | None = None
    margin: Callable[[int | None], int] = lambda _total_bytes: 0
    _external: SecondsTrace = field(default_factory=SecondsTrace)
    _uncounted: SecondsTrace = field(default_factory=SecondsTrace)
    _own: SecondsTrace = field(default_factory=SecondsTrace)
    _newest_s: float = -1.0
    _total_bytes: int | None = None
    _reading: tuple[Reading, int | None] = (Reading(), None)
    """The newest, and the streamed weights then."""
    _grown: tuple[Growth | None, Growth | None] | None = None
    _followed: dict[str, _Followed] = field(default_factory=dict[str, _Followed])
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # --- telemetry ------------------------------------------------------------------------

    def look(self) -> None:
        """Take in the newest sample and revise what is held; called after each sample."""
        sample = self.monitor.latest().get(self.monitor.primary_device())
        with self._lock:
            if sample is None or sample.monotonic_s <= self._newest_s:
                return
            self._newest_s = sample.monotonic_s
            self._take_in(sample.monotonic_s, sample.device.key, sample.reading)
            followed = dict(self._followed)
        for owner, each in followed.items():
            self._revise(owner, each, sample.monotonic_s)

    def _take_in(self, now_s: float, device: str, reading: Reading) -> None:
        if reading.total_bytes is not None:
            self._total_bytes = reading.total_bytes
        dynamic, streamed_bytes = self.dynamic(), self.streamed(device)
        self._reading = reading, streamed_bytes
        found = (
            (self._external, reading.external_bytes),
            (self._uncounted, uncounted_bytes(reading, streamed_bytes)),
            # Under DynamicVRAM streamed weights come and go there, and they are planned for.
            (self._own, None if dynamic else reading.outside_torch_bytes),
        )
        for trace, value_bytes in found:
            if value_bytes is not None and trace.add(now_s, value_bytes):
                self._grown = None

    # --- decisions ------------------------------------------------------------------------

    def facts(self) -> Facts:
        """What is known now."""
        with self._lock:
            if self._grown is None:
                length_s = window_s(self.monitor.jobs.recent(TYPICAL_JOBS))
                since_s = self._newest_s - WINDOWS_BACK * length_s
                external = self._external.points(since_s)
                own = self._own.points(since_s)
                self._grown = (
                    growth(external, length_s) if external else None,
                    growth(own, length_s) if own else None,
                )
            return Facts(
                system=self.system,
                total_bytes=self._total_bytes,
                host_bytes=_bytes(self.scope.original(RESERVE)),
                external_bytes=self._external.now_bytes(),
                external=self._grown[0],
                own=self._grown[1],
                margin_bytes=self.margin(self._total_bytes),
            )

    def wishes(self, ask: Ask) -> tuple[Decision, dict[str, object]]:
        """What an ask comes to now, and what to hold for it."""
        facts = self.facts()
        decision = decide(ask, facts)
        wishes: dict[str, object] = {}
        if RESERVE in self.scope.settings:
            wishes[RESERVE] = decision.reserve_bytes
        if HEADROOM in self.scope.settings:
            reading, streamed_bytes = self._reading
            uncounted = self._uncounted.now_bytes() or 0
            headroom_bytes = dynamic_headroom_bytes(
                decision, ask.mode, reading, streamed_bytes, uncounted
            )
            least_bytes = _bytes(self.scope.original(HEADROOM))
            wishes[HEADROOM] = max(least_bytes, headroom_bytes)
        return decision, wishes

    def in_force(self) -> tuple[int | None, str]:
        """What is kept free for others now, in bytes where that is known, and by whom."""
        held = self.scope.held().get(RESERVE)
        if held is not None:
            return _bytes(held), "asked for by a node of the running job"
        own = self.scope.original(RESERVE)
        return None if own is None else _bytes(own), "ComfyUI's own"

    # --- while the job runs ---------------------------------------------------------------

    def hold(
        self, owner: str, inputs: Mapping[str, object], plain: Mapping[str, object]
    ) -> dict[str, str]:
        """Hold a node's settings from its prompt's start, its reserve as its mode has it.

        ``plain`` is what it wants to hold, with the figure its widgets give the reserve.

        Returns:
            Why, by setting name, for those that could not be set.
        """
        figure = plain.get(RESERVE)
        if figure is None:
            return self.scope.hold(owner, plain)
        ask = ask_for(inputs, _bytes(figure))
        wishes = self.wishes(ask)[1]
        failures = self.scope.hold(owner, {**plain, **wishes})
        self.follow(owner, ask, wishes)
        return failures

    def follow(self, owner: str, ask: Ask, wishes: Mapping[str, object]) -> None:
        """Keep the reserve that ``owner`` holds current until it lets go of it."""
        with self._lock:
            self._followed.pop(owner, None)
            if ask.mode != "manual":
                held = {name: Held(_bytes(value), self._newest_s) for name, value in wishes.items()}
                self._followed[owner] = _Followed(ask, held)

    def _revise(self, owner: str, each: _Followed, now_s: float) -> None:
        _, wanted = self.wishes(each.ask)
        after = {
            name: next_held(held, _bytes(wanted[name]), now_s)
            for name, held in each.held.items()
            if name in wanted
        }
        if self.scope.revise(owner, {name: held.held_bytes for name, held in after.items()}):
            for name, held in after.items():
                if held.held_bytes != each.held[name].held_bytes:
                    _log.debug("%s of %s is now %s", name, owner, format_bytes(held.held_bytes))
            each.held = after
        else:
            with self._lock:
                if self._followed.get(owner) is each:
                    del self._followed[owner]


def this_system() -> str:
    """The operating system, as reserves tell them apart."""
    return system_name(platform.system(), platform.release())


def ask_of(inputs: Mapping[str, object], profile_gb: Callable[[str], float]) -> Ask | None:
    """What a node's widgets ask for; None when they ask for no reserve."""
    wanted_bytes = reserve_bytes(inputs, profile_gb)
    return None if wanted_bytes is None else ask_for(inputs, wanted_bytes)


def ask_for(inputs: Mapping[str, object], manual_bytes: int) -> Ask:
    """The same where the plain figure is known. A mode that is not known yet is manual."""
    mode = MODES.get(inputs.get("reserved_vram_mode"), "manual")
    headroom, most_bytes = inputs.get("reserved_vram_auto_headroom_gb"), _limit(inputs)
    headroom_bytes = int(headroom * GiB) if isinstance(headroom, int | float) else GiB
    return Ask(mode, manual_bytes, headroom_bytes, most_bytes)


def _limit(inputs: Mapping[str, object]) -> int | None:
    most = inputs.get("reserved_vram_auto_max_gb")
    most_bytes = from_gib(most) if isinstance(most, int | float) else 0
    return most_bytes or None


def _bytes(value: object) -> int:
    """A setting's value; the host's reserve may be a float, and None counts as 0."""
    return int(cast("float", value or 0))
