"""Dry runs of host VAEs: remembered, found on disk, run now within a time, or run later."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from ...supervisor.planning.trace import trace_from_json
from .dry_runs import trace_vae

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.planning.trace import Trace
    from .vae import Vae

Found: TypeAlias = Literal["memory", "disk", "run"]
"""Where a dry run came from: made by this process before, by another one, or just now."""

DRY_RUN: Final = "dry run"
"""Under which name the store keeps dry runs."""
TRACES_IN_MEMORY: Final = 512

_log = logging.getLogger(__name__)


class NoDryRun(Exception):  # noqa: N818
    """There is none to be had now; the message says why."""


class TakesTooLong(NoDryRun):
    """It was given up, or not begun, because somebody waits for it."""


class CannotBeTraced(NoDryRun):
    """The decoder does what fake tensors cannot."""


class TextCache(Protocol):
    """The part of the calibration store that keeps dry runs."""

    def cached(self, kind: str, key: str) -> str | None:
        """A text remembered before."""
        ...

    def remember(self, kind: str, key: str, text: str) -> None:
        """Keep a text."""
        ...


@dataclass(frozen=True)
class DryRun:
    """One dry run: of what, and how.

    Attributes:
        shape: of the latent, [B, C, H, W] or [B, C, T, H, W].
        tiled: see ``trace_vae``, as are the next two.
        text: the same for the same decoder, sizes and settings in every process.
    """

    shape: tuple[int, ...]
    tiled: bool
    fused_attention: bool
    total_bytes: int | None
    text: str


class Tracer(Protocol):
    """``trace_vae``, or what a test puts in its place."""

    def __call__(
        self,
        vae: Vae,
        shape: tuple[int, ...],
        *,
        tiled: bool,
        fused_attention: bool,
        total_bytes: int | None,
        check: Callable[[], None],
    ) -> Trace:
        """Dry-run; ``check`` may raise to stop it."""
        ...


class Allowance:
    """Seconds that one planning may wait for dry runs; None: whatever they take."""

    def __init__(self, seconds: float | None) -> None:
        self.left_s = seconds

    def covers(self, seconds: float) -> bool:
        """Whether so much is left."""
        return self.left_s is None or seconds <= self.left_s

    def spend(self, seconds: float) -> None:
        """Take off what a dry run took."""
        if self.left_s is not None:
            self.left_s = max(0.0, self.left_s - seconds)


@dataclass
class Traces:
    """The dry runs of this process and, through the store, of all before it.

    Attributes:
        check: raises the host's interrupt if the user asked for one.
        is_interrupt: whether an error is that interrupt.
    """

    store: TextCache
    check: Callable[[], None]
    is_interrupt: Callable[[BaseException], bool]
    run: Tracer = trace_vae
    clock: Callable[[], float] = time.monotonic
    _kept: dict[str, Trace] = field(default_factory=dict[str, "Trace"])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def known(self, dry_run: DryRun) -> tuple[Trace, Found] | None:
        """One that was made before."""
        with self._lock:
            if dry_run.text in self._kept:
                return self._kept[dry_run.text], "memory"
        text = self.store.cached(DRY_RUN, dry_run.text)
        trace = None if text is None else trace_from_json(text)
        if trace is None:
            return None
        self._keep(dry_run.text, trace)
        return trace, "disk"

    def make(
        self, vae: Vae, dry_run: DryRun, allowance: Allowance, expected_s: float = 0.0
    ) -> Trace:
        """Run it now.

        Args:
            expected_s: how long it should take; it is not begun where that is too long.

        Raises:
            TakesTooLong: the allowance is not enough.
            CannotBeTraced: it failed. The user's interrupt passes through.
        """
        if not allowance.covers(expected_s):
            raise TakesTooLong
        started_s = self.clock()

        def go_on() -> None:
            self.check()
            if not allowance.covers(self.clock() - started_s):
                raise TakesTooLong

        try:
            return self.make_unhurried(vae, dry_run, go_on)
        except NoDryRun:
            raise
        except Exception as problem:
            if self.is_interrupt(problem):
                raise
            _log.info("The decoder cannot be dry-run", exc_info=problem)
            raise CannotBeTraced(f"{type(problem).__name__}: {problem}") from problem
        finally:
            allowance.spend(self.clock() - started_s)

    def make_unhurried(self, vae: Any, dry_run: DryRun, check: Callable[[], None]) -> Trace:
        """Run it, or find that it was made meanwhile; what fails or stops it comes through."""
        known = self.known(dry_run)
        if known is not None:
            return known[0]
        trace = self.run(
            vae,
            dry_run.shape,
            tiled=dry_run.tiled,
            fused_attention=dry_run.fused_attention,
            total_bytes=dry_run.total_bytes,
            check=check,
        )
        self._keep(dry_run.text, trace)
        self.store.remember(DRY_RUN, dry_run.text, trace.to_json())
        return trace

    def _keep(self, text: str, trace: Trace) -> None:
        with self._lock:
            while len(self._kept) >= TRACES_IN_MEMORY:
                del self._kept[next(iter(self._kept))]
            self._kept[text] = trace
