"""Watches for memory that the driver moves to the system while ComfyUI's jobs run."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from ...supervisor.telemetry.spill import (
    SpillDetector,
    can_spill,
    plan_margin_bytes,
    sample_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.ports import OutsideTorch, PositionSource
    from ...supervisor.telemetry.spill import SpillWarning
    from ...supervisor.types import Sample

REMEMBERED: Final = 16

_log = logging.getLogger(__name__)


class Monitor(Protocol):
    """The part of the supervisor that is asked."""

    @property
    def jobs(self) -> PositionSource:
        """Which job runs."""
        ...

    def latest(self) -> dict[str, Sample]:
        """The newest sample of each device."""
        ...

    def primary_device(self) -> str:
        """The device jobs compute on."""
        ...


@dataclass
class SpillWatch:
    """Feeds the detector with samples and steps, and keeps its warnings by job.

    Attributes:
        streamed: bytes of weights on a device outside torch, as the host knows them.
        step: at which step a node is, None where it shows none.
        system: "Windows", "WSL", "Linux" or another operating system.
    """

    monitor: Monitor
    streamed: OutsideTorch
    step: Callable[[str], int | None]
    system: str
    detector: SpillDetector = field(default_factory=SpillDetector)
    _warnings: deque[tuple[str | None, SpillWarning]] = field(
        default_factory=lambda: deque[tuple[str | None, "SpillWarning"]](maxlen=REMEMBERED)
    )
    _newest_s: float = -1.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> None:
        """Take in the newest sample; called after each. Does nothing where no driver spills."""
        if not can_spill(self.system):
            return
        sample = self.monitor.latest().get(self.monitor.primary_device())
        with self._lock:
            if sample is None or sample.monotonic_s <= self._newest_s:
                return
            self._newest_s = sample.monotonic_s
            warning = self._observe(sample)
        if warning is not None:
            _log.warning("%s", warning.text)

    def _observe(self, sample: Sample) -> SpillWarning | None:
        position, now_s = self.monitor.jobs.position(), sample.monotonic_s
        node_id = position.node_id
        step = None if node_id is None else self.step(node_id)
        running_s = self.detector.steps.look(now_s, None if step is None else node_id, step or 0)
        streamed = self.streamed(sample.device.key)
        warning = self.detector.observe(sample_of(sample.reading, now_s, streamed, running_s))
        if warning is not None:
            self._warnings.append((position.job_id, warning))
        return warning

    def warnings(self, job_id: str | None = None) -> list[str]:
        """In words, oldest first: of one job, or all that are remembered."""
        with self._lock:
            kept = list(self._warnings)
        return [each.text for of_job, each in kept if job_id is None or of_job == job_id]

    def margin_bytes(self, total_bytes: int | None) -> int:
        """What plans leave free so that nothing spills; more once something has."""
        with self._lock:
            warned = bool(self._warnings)
        return plan_margin_bytes(total_bytes, self.system, warned=warned)


def host_step(node_id: str) -> int | None:
    """At which step ComfyUI's progress shows a node; None where it shows none or the last is done.
    What follows then is no step."""
    from comfy_execution.progress import get_progress_state

    entry = dict(get_progress_state().nodes).get(node_id)
    if entry is None or entry["value"] >= entry["max"]:
        return None
    return int(entry["value"])
