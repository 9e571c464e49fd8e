"""Scripted instruments and readings for the tests that speak HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from vram_supervisor.supervisor.types import (
    DeviceInfo,
    JobPosition,
    JobRecord,
    Reading,
    Sample,
)
from vram_supervisor.supervisor.units import GiB

if TYPE_CHECKING:
    from collections.abc import Sequence

GPU = DeviceInfo("cuda:0", "cuda", "Test GPU", "GPU-1", 24 * GiB, "8.9")
CPU = DeviceInfo("cpu", "cpu", "Test CPU", None, 64 * GiB)
BUSY_READING = Reading(
    total_bytes=24 * GiB,
    used_bytes=10 * GiB,
    free_bytes=14 * GiB,
    process_bytes=7 * GiB,
    torch_allocated_bytes=5 * GiB,
    torch_reserved_bytes=6 * GiB,
    outside_torch_bytes=1 * GiB,
    external_bytes=3 * GiB,
    utilization_percent=50.0,
)


class SilentProbe:
    """A device whose figures the test publishes itself."""

    def __init__(self, device: DeviceInfo) -> None:
        self.device = device

    def read(self) -> Reading:
        return Reading(total_bytes=self.device.total_bytes)

    def close(self) -> None:
        pass


class NoCounter:
    def allocated_bytes(self, device: str) -> int | None:
        return None

    def peak_allocated_bytes(self, device: str) -> int | None:
        return None


class ListHistory:
    """Finished jobs, newest first; says on which thread it was asked."""

    def __init__(self, records: Sequence[JobRecord] = (), problem: str | None = None) -> None:
        self.records = list(records)
        self.trouble = problem

    def add(self, record: JobRecord) -> None:
        self.records.insert(0, record)

    def jobs(self, limit: int, job_id: str | None = None) -> Sequence[JobRecord]:
        wanted = [record for record in self.records if job_id in {None, record.job_id}]
        return wanted[:limit]

    def keep_for(self, seconds: float) -> None:
        pass

    def problem(self) -> str | None:
        return self.trouble

    def close(self) -> None:
        pass


def sample_at(
    time_s: float, reading: Reading = BUSY_READING, device: DeviceInfo = GPU, **position: str
) -> Sample:
    return Sample(time_s, time_s, device, reading, JobPosition(**position))


async def listen(app: web.Application, runners: list[web.AppRunner]) -> str:
    runner = web.AppRunner(app)
    runners.append(runner)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
