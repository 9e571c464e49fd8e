"""Frozen records that cross the rooms. Unknown is ``None``, never 0 or -1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

DeviceKind: TypeAlias = Literal["cuda", "hip", "xpu", "mps", "cpu"]
JobStatus: TypeAlias = Literal["running", "success", "error", "interrupted"]
EventKind: TypeAlias = Literal["telemetry", "job", "decode", "state"]
PlanKind: TypeAlias = Literal["whole", "evict", "tiled", "streamed", "cpu"]
DecodeOutcome: TypeAlias = Literal["running", "done", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device this process may use.

    Attributes:
        key: torch's name for it, ``"cuda:0"`` or ``"cpu"``; unique within the process.
        kind: the backend behind the key; ROCm devices are ``"hip"`` under a ``cuda:N`` key.
        uuid: the driver's identifier (``GPU-...`` or ``MIG-...``), None where there is none.
        total_bytes: memory the device has, for ``cpu`` the system RAM.
        capability: compute capability such as ``"9.0"``, CUDA only.
        unified: the GPU shares system RAM (GB10, Apple), so free memory is the RAM's.
        driver: version of the driver, ``"580.95.05"``.
    """

    key: str
    kind: DeviceKind
    name: str | None = None
    uuid: str | None = None
    total_bytes: int | None = None
    capability: str | None = None
    unified: bool = False
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """Device memory of one process as the driver reports it."""

    pid: int
    used_bytes: int | None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a probe sees of one device at one moment. Bytes; every field may be unknown.

    ``process_bytes`` is all that this process holds on the device as the driver counts it;
    ``outside_torch_bytes`` is the part of it that torch's allocator does not know (CUDA
    context, streamed weights). Where the driver does not tell (WDDM, WSL, containers),
    both are None and ``external_bytes`` is used minus what this process is known to hold.
    """

    total_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    process_bytes: int | None = None
    torch_allocated_bytes: int | None = None
    torch_reserved_bytes: int | None = None
    outside_torch_bytes: int | None = None
    external_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    processes: tuple[ProcessUse, ...] = ()
    error: str | None = None
    """Why a figure is missing, in one line; None when all went well."""


@dataclass(frozen=True, slots=True)
class JobPosition:
    """Where the work is right now. All None between jobs."""

    job_id: str | None = None
    node_id: str | None = None
    node_type: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one device, with the moment and the job it belongs to.

    Attributes:
        time_s: seconds since the epoch when the reading was complete.
        monotonic_s: the same moment on the monotonic clock.
    """

    time_s: float
    monotonic_s: float
    device: DeviceInfo
    reading: Reading
    position: JobPosition = JobPosition()


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that one node, or a whole job (``node_id`` None), held on one device.

    Attributes:
        used_bytes: largest sampled figure of the whole device, everybody included.
        process_bytes: largest sampled figure of this process as the driver counts it.
        torch_bytes: largest allocation known to torch while the node ran.
        torch_exact: True when ``torch_bytes`` was read from the allocator's own peak
            counter; False when it is the largest sample, so the truth may lie higher.
        torch_bound_bytes: the counter's value where it is only an upper bound.
    """

    device: str
    used_bytes: int | None = None
    process_bytes: int | None = None
    torch_bytes: int | None = None
    torch_exact: bool | None = None
    torch_bound_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One run of one node inside a job. Times are seconds since the epoch."""

    node_id: str
    node_type: str | None
    started_s: float
    ended_s: float | None = None
    peaks: tuple[Peak, ...] = ()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job (a prompt) with its nodes and peaks. Times are seconds since the epoch."""

    job_id: str
    started_s: float
    ended_s: float | None = None
    status: JobStatus = "running"
    nodes: tuple[NodeRecord, ...] = ()
    peaks: tuple[Peak, ...] = ()
    decodes: tuple[DecodeSummary, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodeSummary:
    """What a decode or encode was expected to add to its device, and what it did.

    Attributes:
        what: decode or encode.
        family: class of the VAE's network, None where nobody said.
        width: of the pictures, pixels; height and frames likewise. None where they are none.
        held_bytes: used on the device, by everybody, when it began to follow its plan.
        plan: the plan that was followed last, in one line; ``kind`` is its kind.
        predicted_bytes: what it was to add, None where nothing was predicted.
        measured_bytes: what it added, None where that was not measured.
        retries: what ran out of memory on the way, or was evicted, in words.
    """

    what: Literal["decode", "encode"]
    device: str
    node_id: str | None
    started_s: float
    ended_s: float | None = None
    outcome: DecodeOutcome = "running"
    family: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    held_bytes: int | None = None
    kind: PlanKind | None = None
    plan: str | None = None
    predicted_bytes: int | None = None
    predicted_seconds: float | None = None
    measured_bytes: int | None = None
    seconds: float | None = None
    retries: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DecodeProgress:
    """How far a running decode is.

    Attributes:
        number: of the decode, counted from 1 in this process.
        job_id: which job it belongs to.
        steps: parts to run, None until there is a plan; ``done`` of them have run.
        finished: rectangles in pixels of the output that are final, with their frames:
            ``(first frame, frames, left, top, right, bottom)``. All of them in a snapshot,
            those since the last event in an event.
        time_s: when, seconds since the epoch.
    """

    number: int
    job_id: str | None
    summary: DecodeSummary
    steps: int | None = None
    done: int = 0
    finished: tuple[tuple[int, int, int, int, int, int], ...] = ()
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JobChange:
    """Something happened to a job: it started, moved to another node, or ended."""

    time_s: float
    phase: Literal["start", "node", "end"]
    position: JobPosition
    record: JobRecord | None = None
    """The full record with peaks, at the end only."""


@dataclass(frozen=True, slots=True)
class State:
    """What holds for the whole process and changes now and then.

    Attributes:
        reserve_bytes: what is kept free for others on the main device, None where not known.
        reserve_words: why so much, in one line.
        warnings: what a user should know now, such as memory spilling to the system's.
    """

    time_s: float
    reserve_bytes: int | None = None
    reserve_words: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """What a stream carries. ``sequence`` grows by one per event and is the SSE id."""

    sequence: int
    kind: EventKind
    payload: Sample | JobChange | DecodeProgress | State


@dataclass(frozen=True, slots=True)
class DecodeContext:
    """What is known about a decode to come. None where unknown; sizes in pixels and frames."""

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    family: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a decode will be done. Sizes in pixels and frames; None where not applicable.

    Attributes:
        kind: whole; evict (whole after freeing memory); tiled; streamed (through time); cpu.
        tiles: how many pieces are decoded.
        predicted_peak_bytes: predicted memory the decode adds to what is held before, on the
            device (for ``cpu``: in the system).
        reason: one line for the report.
        fits: that much is there, or can be made; for ``cpu``: known to be there.
        predicted_seconds: with eviction and reload; None where no times are known.
        tile_width: pixels, overlap included, where tiles need not be square; ``tile_size`` is
            then the longer edge.
        tile_height: likewise.
        batch: items decoded together where the latent has several, else None.
        evict_bytes: what must be evicted first.
    """

    kind: PlanKind
    tiles: int
    reason: str
    predicted_peak_bytes: int
    fits: bool
    quality: str = "exact"
    tile_size: int | None = None
    overlap: int | None = None
    temporal_size: int | None = None
    temporal_overlap: int | None = None
    warnings: tuple[str, ...] = field(default=())
    predicted_seconds: float | None = None
    tile_width: int | None = None
    tile_height: int | None = None
    batch: int | None = None
    evict_bytes: int = 0
