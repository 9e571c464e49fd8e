"""The main job without a browser: one real decode under a budget the whole decode would break."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from .decoder import TEMPORAL_SCALE
from .job_state import DecodeRequest

if TYPE_CHECKING:
    from ..service import Supervisor
    from .decode_job import DecodeJobs
    from .job_state import JobSnapshot

TOLERATED_RELATIVE_ERROR: Final = 1e-4
BUDGET_SHARE: Final = 0.4
"""Of the whole decode's need, where no budget is given."""
CPU_JOB: Final = (320, 128, 13)
CUDA_JOB: Final = (640, 384, 25)
TIMEOUT_S: Final = 600.0

_MEASURED_BY: Final[dict[bool | None, str]] = {True: "allocator", False: "live tensors"}


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """What the smoke prints. Bytes; None where the job never got that far."""

    ok: bool
    frames: int | None
    plan: dict[str, object] | None
    predicted_peak_bytes: int | None
    measured_peak_bytes: int | None
    measured_by: str | None
    """``"allocator"``: torch's own counter. ``"live tensors"`` (the CPU has no such counter):
    every tensor the decode really made, without the kernels' own scratch memory."""
    relative_error: float | None
    samples: int
    whole_predicted_bytes: int | None
    budget_bytes: int | None
    device: str | None
    seconds: float | None
    ladder: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def smoke_request(
    device: str, *, size: tuple[int, int, int] | None, budget_bytes: int | None
) -> DecodeRequest:
    """The job for this device: seconds on two CPU cores, something bigger on CUDA.

    Args:
        device: where it will run.
        size: width, height and frames; None for the device's own.
        budget_bytes: None for a share of what the whole decode would need.
    """
    width, height, frames = size or (CPU_JOB if device == "cpu" else CUDA_JOB)
    share = None if budget_bytes is not None else BUDGET_SHARE
    return DecodeRequest(width, height, frames, budget_bytes, share, compare=True)


def run_smoke(
    supervisor: Supervisor, jobs: DecodeJobs, request: DecodeRequest, timeout_s: float = TIMEOUT_S
) -> SmokeResult:
    """Run the job on a started supervisor and judge it."""
    job_id = jobs.start(request)
    in_time = jobs.wait(timeout_s)
    return judge(jobs.latest(), request, count_samples(supervisor, job_id), in_time=in_time)


def judge(
    job: JobSnapshot, request: DecodeRequest, samples: int, *, in_time: bool = True
) -> SmokeResult:
    """Whether the job proved what it should, and if not, why. Pure."""
    problems = tuple(_problems(job, request, samples)) if in_time else ("it took too long",)
    return SmokeResult(
        ok=not problems,
        frames=job.frames,
        plan=None if job.plan is None else asdict(job.plan),
        predicted_peak_bytes=job.predicted_peak_bytes,
        measured_peak_bytes=job.measured_peak_bytes,
        measured_by=_MEASURED_BY.get(job.measured_exact),
        relative_error=job.relative_error,
        samples=samples,
        whole_predicted_bytes=job.whole_predicted_bytes,
        budget_bytes=job.budget_bytes,
        device=job.device,
        seconds=job.seconds,
        ladder=job.ladder,
        problems=problems,
    )


def count_samples(supervisor: Supervisor, job_id: str) -> int:
    """Telemetry samples, on any device, that carry this job's id."""
    return sum(
        sample.position.job_id == job_id
        for device in supervisor.devices
        for sample in supervisor.recent_samples(device.key, _ENOUGH_SAMPLES)
    )


_ENOUGH_SAMPLES: Final = 10_000


def _problems(job: JobSnapshot, request: DecodeRequest, samples: int) -> list[str]:
    if job.state != "done" or job.error is not None:
        return [job.error or f"the job is {job.state}"]
    wanted = 1 + (request.latent_shape()[2] - 1) * TEMPORAL_SCALE
    whole, budget = job.whole_predicted_bytes or 0, job.budget_bytes or 0
    measured, error = job.measured_peak_bytes, job.relative_error
    checks = (
        (job.frames == wanted, f"{job.frames} frames instead of {wanted}"),
        (whole > budget, f"the whole decode ({whole} B) fits the budget ({budget} B)"),
        (
            measured is not None and 0 < measured <= budget,
            f"the decode held {measured} B, the budget is {budget} B",
        ),
        (
            error is not None and error <= TOLERATED_RELATIVE_ERROR,
            f"the relative error is {error}",
        ),
        (samples > 0, "no telemetry sample carries the job"),
    )
    return [problem for fine, problem in checks if not fine]
