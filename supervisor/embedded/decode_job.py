"""Decode jobs of the embedded host: one at a time, in a worker thread, seen by the monitor."""

from __future__ import annotations

import copy
import logging
import math
import threading
import time
import uuid
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Final

import psutil
import torch

from ..decode.engine import Engine
from ..decode.memory import is_out_of_memory
from ..decode.running import Hooks
from ..decode.sink import TensorSink
from ..errors import (
    DecodeBusyError,
    DecodeFailedError,
    DecodeInterruptedError,
    NothingFitsError,
    PartDoesNotFitError,
)
from ..planning.recommend import free_for_us_bytes
from ..telemetry.allocator import TorchCounter
from .decoder import CausalVideoDecoder, DecoderConfig
from .job_state import (
    BYTES_PER_VALUE,
    CHANNELS,
    DecodeRequest,
    JobSnapshot,
    TileState,
    decoded_size,
    pictures_bytes,
)
from .latent import random_latent
from .measure import PeakMeter, memory_cap
from .png import encode_png
from .tile_map import MappedOutput, TileMap
from .ways import Ways

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from ..service import Supervisor
    from ..types import JobStatus
    from .ways import Way

__all__ = ["DecodeJobs", "DecodeRequest", "JobSnapshot", "TileState"]

_log = logging.getLogger(__name__)

BUDGET_SHARE: Final = 0.9
"""Of free memory, where no budget is given."""
CUDA_CHANNELS: Final = (96, 64, 48, 32)
"""Work enough for a GPU to show in the monitor."""


@dataclass(slots=True)
class _Job:
    """What the worker thread needs of one job."""

    job_id: str
    request: DecodeRequest
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class DecodeJobs:
    """Runs the embedded decoder as jobs. Thread-safe."""

    def __init__(
        self,
        supervisor: Supervisor,
        *,
        device: str | None = None,
        config: DecoderConfig | None = None,
    ) -> None:
        """Decode on ``device``; None: on the supervisor's primary device if torch can use it."""
        self.device = named_device(device) or _torch_device(supervisor.primary_device())
        self._supervisor = supervisor
        self._config = config or default_config(self.device)
        self._counter = TorchCounter()
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._snapshot = JobSnapshot()
        self._preview: Tensor | None = None
        self._decoder: CausalVideoDecoder | None = None

    def start(self, request: DecodeRequest) -> str:
        """Start a job and return its id at once.

        Raises:
            DecodeBusyError: a job is running.
        """
        job = _Job(f"embedded-{uuid.uuid4().hex[:12]}", request)
        with self._lock:
            if self._job is not None:
                raise DecodeBusyError(self._job.job_id)
            self._job = job
            self._snapshot = JobSnapshot("running", job.job_id, self.device)
            self._preview = None
        name = f"vram-supervisor-{job.job_id}"
        threading.Thread(target=self._run, args=(job,), name=name, daemon=True).start()
        return job.job_id

    def cancel(self) -> None:
        """Ask the running job, if any, to stop before its next chunk."""
        with self._lock:
            if self._job is not None:
                self._job.stop.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no job runs; False when that took longer than ``timeout_s``."""
        with self._lock:
            job = self._job
        return job is None or job.ended.wait(timeout_s)

    def latest(self) -> JobSnapshot:
        """The current or last job."""
        with self._lock:
            return self._snapshot

    def snapshot(self) -> dict[str, object]:
        """The same, ready for JSON."""
        latest = self.latest()
        return {**asdict(latest), "progress": round(latest.progress, 4)}

    def preview_png(self) -> bytes | None:
        """A frame from the middle of the last decode as PNG; None before there is one."""
        with self._lock:
            preview = self._preview
        return None if preview is None else encode_png(preview)

    def _run(self, job: _Job) -> None:
        """The worker thread: whatever happens, the job ends and says how."""
        started_s = time.monotonic()
        tracker = self._supervisor.jobs
        tracker.start_job(job.job_id)
        status: JobStatus = "error"
        try:
            self._work(job)
            status = "success"
        except DecodeInterruptedError as error:
            status = "interrupted"
            self._change(error=str(error))
        except Exception as error:  # noqa: BLE001
            # The thread's last resort: the page shows it, the log keeps the traceback.
            _log.exception("decode job %s failed", job.job_id)
            self._change(error=f"{type(error).__name__}: {error}")
        finally:
            tracker.end_job(status)
            state = "done" if status == "success" else "error"
            self._change(state=state, seconds=round(time.monotonic() - started_s, 3))
            with self._lock:
                self._job = None
            job.ended.set()

    def _work(self, job: _Job) -> None:
        request = job.request
        spare_bytes = _spare_host_bytes(request, self.device)
        decoder = self._get_decoder()
        with full_precision() if request.compare else nullcontext():
            self._work_in_nodes(job, decoder, spare_bytes)

    def _work_in_nodes(self, job: _Job, decoder: CausalVideoDecoder, spare_bytes: int) -> None:
        request = job.request
        with self._node("latent", "RandomLatent"):
            latent = random_latent(request.latent_shape(), request.seed).to(self.device)
        with self._node("decode", "StreamedTiledDecode"):
            pixels = self._decode(job, decoder, latent, spare_bytes)
        if request.compare:
            with self._node("compare", "WholeDecode"):
                error = _relative_error(decoder, latent, pixels)
            self._change(relative_error=error)

    def _decode(
        self, job: _Job, decoder: CausalVideoDecoder, latent: Tensor, spare_bytes: int
    ) -> Tensor:
        """Pixels ``[F, H, W, 3]`` in [-1, 1], in host memory.

        Raises:
            DecodeFailedError: out of memory whatever was tried.
        """
        shape = job.request.latent_shape()
        ways = Ways(decoder, shape, self.device, spare_bytes)
        budget = self._budget_bytes(job.request, ways.whole_bytes)
        frames, height, width = decoded_size(shape)
        self._change(
            budget_bytes=budget,
            whole_predicted_bytes=ways.whole_bytes,
            frames=frames,
            height=height,
            width=width,
        )
        for way in ways.within(budget):
            self._change(plan=way.plan, predicted_peak_bytes=way.plan.predicted_peak_bytes)
            with memory_cap(self.device, budget), PeakMeter(self.device, self._counter) as meter:
                pixels = self._follow(job, way, latent)
            if pixels is None:
                continue
            with self._lock:
                self._preview = pixels[frames // 2].permute(2, 0, 1).clone()
            self._change(measured_peak_bytes=meter.peak_bytes, measured_exact=meter.exact)
            return pixels
        raise DecodeFailedError(self.latest().ladder, None)

    def _budget_bytes(self, request: DecodeRequest, whole_bytes: int) -> int:
        if request.budget_bytes is not None:
            return request.budget_bytes
        if request.budget_share is not None:
            return int(whole_bytes * request.budget_share)
        sample = self._supervisor.latest().get(self.device)
        free = free_for_us_bytes(None if sample is None else sample.reading)
        # With free memory unknown, try whole: the engine goes smaller where it must.
        return whole_bytes if free is None else int(free * BUDGET_SHARE)

    def _follow(self, job: _Job, way: Way, latent: Tensor) -> Tensor | None:
        """What ``_decode`` wants, in one way; None when it ran out of memory for good."""
        frames, height, width = decoded_size(job.request.latent_shape())
        sink = TensorSink()
        sink.begin(frames, height, width, CHANNELS)
        tile_map = TileMap(way.tiles, frames, lambda tiles: self._change(tiles=tiles))
        output = MappedOutput(sink, frames, tile_map)
        hooks = Hooks(check=lambda: self._check(job), ran_out=self._ran_out)
        try:
            Engine(way.program, way, latent.device, hooks).run(latent, output)
        except PartDoesNotFitError as problem:
            _log.warning("Decoding %s: %s", way.plan.kind, problem)
            return None
        output.flush()
        output.check_complete()
        return sink.pixels

    def _check(self, job: _Job) -> None:
        if job.stop.is_set():
            raise DecodeInterruptedError(sum(tile.done for tile in self.latest().tiles))

    def _ran_out(self, part: str) -> None:
        self._change(ladder=(*self.latest().ladder, f"{part}: out of memory"))

    def _get_decoder(self) -> CausalVideoDecoder:
        if self._decoder is None:
            self._decoder = CausalVideoDecoder(self._config).to(self.device)
        return self._decoder

    @contextmanager
    def _node(self, node_id: str, node_type: str) -> Generator[None]:
        self._supervisor.jobs.enter_node(node_id, node_type)
        try:
            yield
        finally:
            self._supervisor.jobs.leave_node(node_id)

    def _change(self, **fields: object) -> None:
        with self._lock:
            self._snapshot = replace(self._snapshot, **fields)  # pyright: ignore[reportArgumentType]


def default_config(device: str) -> DecoderConfig:
    """A decoder that keeps this device busy for seconds, not minutes."""
    return DecoderConfig() if device == "cpu" else DecoderConfig(channels=CUDA_CHANNELS)


@contextmanager
def full_precision() -> Generator[None]:
    """TF32 off in convolutions, so that two ways of decoding can be compared; put back after."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
        yield


def named_device(name: str | None) -> str | None:
    """A torch device as telemetry names it: ``"cuda"`` is the first one, ``"cpu:0"`` the CPU.

    Raises:
        RuntimeError: torch does not know the name.
    """
    if name is None:
        return None
    kind = torch.device(name).type
    index = name.partition(":")[2] or "0"
    return "cpu" if kind == "cpu" else f"{kind}:{int(index)}"


def _torch_device(primary: str) -> str:
    """The primary device if it is torch's, else the CPU (a GPU that only NVML sees)."""
    return primary if primary.startswith("cuda:") and torch.cuda.is_available() else "cpu"


def _spare_host_bytes(request: DecodeRequest, device: str) -> int:
    """What system memory has left beside a job; what it cannot hold is refused, before the
    system kills the process for it.

    Raises:
        NothingFitsError: frames and latent are larger than the memory available.
    """
    shape = request.latent_shape()
    copies = 2 if request.compare and device == "cpu" else 1
    need = 3 * math.prod(shape) * BYTES_PER_VALUE + copies * pictures_bytes(shape)
    available: int = psutil.virtual_memory().available
    if need > available:
        raise NothingFitsError(available, need)
    return available - need


def _relative_error(decoder: CausalVideoDecoder, latent: Tensor, pixels: Tensor) -> float:
    """Relative L2 distance of ``pixels`` from the whole decode, which ignores every budget.

    Where the device cannot hold the whole decode, the CPU does it.
    """
    whole = _whole_on(latent.device.type, decoder, latent)
    if whole is None:
        whole = _whole_on("cpu", copy.deepcopy(decoder).cpu(), latent.cpu())
    if whole is None:
        raise DecodeFailedError(("whole decode for comparison: out of memory",), None)
    whole = whole[0].permute(1, 2, 3, 0)
    return float((pixels - whole).norm() / whole.norm())


def _whole_on(device: str, decoder: CausalVideoDecoder, latent: Tensor) -> Tensor | None:
    """The whole decode in host memory; None when the device ran out of its own."""
    try:
        with torch.inference_mode():
            return decoder(latent).cpu()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        _log.warning("the whole decode for comparison does not fit on %s", device)
        return None
