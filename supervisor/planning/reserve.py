"""How much memory to leave to others while a job runs. Pure.

A reserve covers what comes on top of what is held already: how far other processes' use may
grow while the job runs, and what this process takes beyond what it plans with. ComfyUI's own
models are in neither: it counts them itself, and a reserve that counts them again starves it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ..units import GiB, MiB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..types import JobRecord, Reading

    Points: TypeAlias = Sequence[tuple[float, int]]
    """Seconds on a clock and bytes, oldest first."""

Mode: TypeAlias = Literal["manual", "auto_used_plus", "adaptive"]

QUANTILE: Final = 0.95
LEAST_WINDOWS: Final = 30
"""So many windows make a quantile; before, the prior stands beside what was seen."""
WINDOWS_BACK: Final = 15
"""What happened once in so many windows is one in 14 of them and so within the quantile."""
SHORTEST_WINDOW_S: Final = 20.0
LONGEST_WINDOW_S: Final = 300.0
USUAL_WINDOW_S: Final = 60.0
"""Where no job has been timed yet."""
SHARE: Final = 0.25
"""No adaptive reserve takes more than this share of the device."""
PRIOR_SHARE: Final = 0.125
GRAIN_BYTES: Final = 64 * MiB
"""Adaptive figures are rounded up to this, so that they do not change with every sample."""
SHRINK_STEP_BYTES: Final = 256 * MiB
SHRINK_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a node's widgets ask for, in bytes.

    Attributes:
        manual_bytes: the figure given, or the profile's.
        headroom_bytes: of auto_used_plus; may be negative.
        max_bytes: upper limit of the automatic modes; None: none.
    """

    mode: Mode
    manual_bytes: int
    headroom_bytes: int = 0
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """How far something grew within windows of a length.

    Attributes:
        quantile_bytes: upper quantile over the windows; the most seen where they are few.
        windows: complete windows it rests on.
        window_s: their length.
    """

    quantile_bytes: int
    windows: int
    window_s: float

    @property
    def is_enough(self) -> bool:
        """Whether there are enough windows to do without the prior."""
        return self.windows >= LEAST_WINDOWS


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a reserve is decided. Bytes; None where unknown.

    Attributes:
        system: "Windows", "WSL", "Linux" or another operating system.
        host_bytes: the host's own default, below which no reserve goes.
        external_bytes: what other processes hold now.
        external: how that grew lately.
        own: how this process's memory outside torch grew, which no estimate of the host covers.
        margin_bytes: kept from drivers that move memory to the system before it is full.
    """

    system: str
    total_bytes: int | None = None
    host_bytes: int = 0
    external_bytes: int | None = None
    external: Growth | None = None
    own: Growth | None = None
    margin_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """A reserve beyond what others hold now, and why, in lines for a report."""

    reserve_bytes: int
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A figure in force, and when on the monotonic clock it was last needed, or last shrunk."""

    held_bytes: int
    needed_s: float


# --- what was seen ------------------------------------------------------------------------


def system_name(system: str, release: str) -> str:
    """ "WSL" where Linux runs on Windows' driver, else ``platform.system()`` as it is."""
    return "WSL" if system == "Linux" and "microsoft" in release.lower() else system


def window_s(jobs: Iterable[JobRecord]) -> float:
    """How long a typical job takes: the median of those that succeeded, within limits."""
    seconds = [
        job.ended_s - job.started_s
        for job in jobs
        if job.ended_s is not None and job.status == "success"
    ]
    if not seconds:
        return USUAL_WINDOW_S
    return min(LONGEST_WINDOW_S, max(SHORTEST_WINDOW_S, median(seconds)))


def growths(points: Points, length_s: float, *, unfinished: bool = False) -> list[int]:
    """From each point, latest first, how far the bytes rose above it within ``length_s``.

    Windows that are not over know too little of what was still to come; they count where
    ``unfinished``.
    """
    rising: deque[tuple[float, int]] = deque()
    """Points of the window that nothing earlier in it exceeds; the first is its highest."""
    found: list[int] = []
    for time_s, value_bytes in reversed(points):
        while rising and rising[-1][1] <= value_bytes:
            rising.pop()
        rising.append((time_s, value_bytes))
        while rising[0][0] > time_s + length_s:
            rising.popleft()
        if unfinished or time_s + length_s <= points[-1][0]:
            found.append(rising[0][1] - value_bytes)
    return found


def growth(points: Points, length_s: float) -> Growth:
    """The upper quantile of the growth lately; the most seen at all while windows are few."""
    recent = [each for each in points if each[0] >= points[-1][0] - WINDOWS_BACK * length_s]
    found = growths(recent, length_s)
    if len(found) >= LEAST_WINDOWS:
        return Growth(upper_quantile(found, QUANTILE), len(found), length_s)
    most = max(growths(recent, length_s, unfinished=True), default=0)
    return Growth(most, len(found), length_s)


def upper_quantile(values: Sequence[int], share: float) -> int:
    """The least value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def uncounted_bytes(reading: Reading, streamed_bytes: int | None) -> int | None:
    """What is used on a device beside torch's memory and streamed weights, whoever holds it.

    DynamicVRAM compares its headroom with the whole device and knows only its own share.
    """
    if reading.used_bytes is None or reading.torch_reserved_bytes is None:
        return None
    return max(0, reading.used_bytes - reading.torch_reserved_bytes - (streamed_bytes or 0))


# --- what to reserve ----------------------------------------------------------------------


def prior_bytes(system: str, total_bytes: int | None) -> int:
    """Before anything was seen: a desktop with a browser, more where Windows draws the screen."""
    usual = int(1.25 * GiB) if system in {"Windows", "WSL"} else GiB
    return usual if total_bytes is None else min(usual, int(total_bytes * PRIOR_SHARE))


def decide(ask: Ask, facts: Facts) -> Decision:
    """The reserve that ``ask`` comes to here."""
    if ask.mode == "manual":
        return Decision(ask.manual_bytes, (f"manual: {format_bytes(ask.manual_bytes)} as given",))
    if ask.mode == "auto_used_plus":
        return _used_plus(ask, facts)
    return _adaptive(ask, facts)


def _adaptive(ask: Ask, facts: Facts) -> Decision:
    external, why = _external_part(facts)
    own, own_why = _own_part(facts)
    lines = ["adaptive", why, own_why]
    if facts.margin_bytes:
        margin = format_bytes(facts.margin_bytes)
        lines.append(f"{margin} so that the driver on {facts.system} moves nothing to system RAM")
    return _within(_up(external + own + facts.margin_bytes), ask, facts, lines, shared=True)


def _external_part(facts: Facts) -> tuple[int, str]:
    seen, prior = facts.external, prior_bytes(facts.system, facts.total_bytes)
    if seen is None:
        return prior, (
            f"{format_bytes(prior)} for other programs, a guess for {facts.system}: what they "
            "hold is not known here"
        )
    grew = format_bytes(seen.quantile_bytes)
    if seen.is_enough:
        return seen.quantile_bytes, (
            f"{grew} for other programs: in {QUANTILE:.0%} of the last {seen.windows} windows of "
            f"{seen.window_s:.0f} s they grew by no more"
        )
    return max(prior, seen.quantile_bytes), (
        f"{format_bytes(max(prior, seen.quantile_bytes))} for other programs: a guess of "
        f"{format_bytes(prior)} for {facts.system} until enough was seen ({seen.windows} of "
        f"{LEAST_WINDOWS} windows of {seen.window_s:.0f} s); so far they grew by {grew}"
    )


def _own_part(facts: Facts) -> tuple[int, str]:
    if facts.own is None:
        return 0, "nothing for this process beyond its estimates: that was not measured here"
    own = facts.own.quantile_bytes
    return own, (
        f"{format_bytes(own)} for this process beyond its estimates: growth outside torch "
        f"(libraries, workspaces) in {facts.own.windows} windows"
    )


def _used_plus(ask: Ask, facts: Facts) -> Decision:
    difference = (
        "auto_used_plus counts what other programs hold. Packs that count all used memory "
        "count ComfyUI's own models twice. ComfyUI's free memory leaves out what others hold "
        "already: adaptive reserves for their growth only"
    )
    if facts.external_bytes is None:
        prior = prior_bytes(facts.system, facts.total_bytes)
        why = f"{format_bytes(prior)}: what other programs hold is not known here"
        return _within(prior, ask, facts, ("auto_used_plus", why, difference), shared=False)
    wanted = facts.external_bytes + ask.headroom_bytes
    why = (
        f"{format_bytes(facts.external_bytes)} held by other programs plus "
        f"{format_bytes(ask.headroom_bytes)}"
    )
    return _within(
        _up(max(0, wanted)), ask, facts, ("auto_used_plus", why, difference), shared=False
    )


def _within(
    wanted_bytes: int, ask: Ask, facts: Facts, why: Sequence[str], *, shared: bool
) -> Decision:
    """Above by the limits, then below by the host's own reserve, which is the user's or safe."""
    mode, *lines = why
    limits = {"reserved_vram_auto_max_gb": ask.max_bytes}
    if shared and facts.total_bytes is not None:
        limits[f"{SHARE:.0%} of the card"] = int(facts.total_bytes * SHARE)
    reserve = wanted_bytes
    for name, limit in limits.items():
        if limit is not None and limit < reserve:
            reserve = limit
            lines.append(f"limited to {format_bytes(limit)} by {name}")
    if reserve < facts.host_bytes:
        reserve = facts.host_bytes
        lines.append(f"raised to the host's own {format_bytes(facts.host_bytes)}")
    return Decision(reserve, (f"{mode}: {format_bytes(reserve)}", *lines))


def _up(value_bytes: int) -> int:
    return -(-value_bytes // GRAIN_BYTES) * GRAIN_BYTES


# --- what changes while the job runs ------------------------------------------------------


def next_held(held: Held, wanted_bytes: int, now_s: float) -> Held:
    """Grow at once; shrink by a step at a time, once more than a step was too much for a while."""
    if wanted_bytes >= held.held_bytes - SHRINK_STEP_BYTES:
        return Held(max(held.held_bytes, wanted_bytes), now_s)
    if now_s - held.needed_s < SHRINK_PAUSE_S:
        return held
    return Held(held.held_bytes - SHRINK_STEP_BYTES, now_s)


def dynamic_headroom_bytes(
    decision: Decision, mode: Mode, reading: Reading, streamed_bytes: int | None, uncounted: int
) -> int:
    """The same reserve as DynamicVRAM's headroom, which counts from the whole device.

    Its weights leave while this process's own use plus the headroom exceed the capacity, so
    what it does not count (``uncounted``, steadier than the one ``reading``) must be in it.
    ``manual`` is given to it as the host's --reserve-vram is.
    """
    if mode == "manual":
        return decision.reserve_bytes
    if mode == "auto_used_plus":  # what others hold is in the decision already
        external, now = reading.external_bytes, uncounted_bytes(reading, streamed_bytes)
        own = 0 if external is None or now is None else max(0, now - external)
        return decision.reserve_bytes + own
    kept = kept_from_others_bytes(reading, decision.reserve_bytes)
    return _up(decision.reserve_bytes + uncounted + kept)


def kept_from_others_bytes(reading: Reading, reserve_bytes: int) -> int:
    """How much of the reserve torch's unused cache keeps from others at this moment.

    DynamicVRAM lets weights in beside the cache; only the driver knows that nothing is free.
    """
    reserved, live = reading.torch_reserved_bytes, reading.torch_allocated_bytes
    if reading.free_bytes is None or reserved is None or live is None:
        return 0
    return min(max(0, reserve_bytes - reading.free_bytes), max(0, reserved - live))
