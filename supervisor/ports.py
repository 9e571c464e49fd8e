"""What the rooms ask of the outside world. Everything here is injected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .types import DeviceInfo, JobPosition, JobRecord, Reading


class Clock(Protocol):
    """Time. Tests inject one they can move."""

    def time_s(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back, for intervals."""
        ...


class Probe(Protocol):
    """Reads one device. ``read`` may block (it runs in a worker thread) and never raises
    for a figure it cannot get: that figure is None and ``Reading.error`` says why."""

    @property
    def device(self) -> DeviceInfo:
        """The device this probe reads."""
        ...

    def read(self) -> Reading:
        """Take one reading."""
        ...

    def close(self) -> None:
        """Give back what the probe holds; reading afterwards is an error."""
        ...


class AllocatorCounter(Protocol):
    """Torch's allocator as a read-only instrument; its peak counter is never reset."""

    def allocated_bytes(self, device: str) -> int | None:
        """Bytes in live tensors now."""
        ...

    def peak_allocated_bytes(self, device: str) -> int | None:
        """The allocator's own high-water mark since whoever reset it last."""
        ...


class PositionSource(Protocol):
    """Which job and node run right now; cheap and callable from any thread."""

    def position(self) -> JobPosition:
        """The position now; all None between jobs."""
        ...


class HistoryStore(Protocol):
    """Keeps finished jobs. Calls may block and never raise for a broken disk."""

    def add(self, record: JobRecord) -> None:
        """Keep one finished job."""
        ...

    def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
        """Newest first."""
        ...

    def keep_for(self, seconds: float) -> None:
        """Forget jobs that ended longer ago, where age counts."""
        ...

    def problem(self) -> str | None:
        """Why records are not reaching the disk, None when they are."""
        ...

    def close(self) -> None:
        """Write what is pending and let go of the file."""
        ...


class OutsideTorch(Protocol):
    """Device bytes this process is known to hold outside torch (streamed weights)."""

    def __call__(self, device: str) -> int | None:
        """Bytes held on the device, None when not known."""
        ...
