"""NVIDIA's own figures, through NVML. The only module that talks to ``pynvml``.

Devices are found by UUID, never by index: NVML numbers all GPUs of the machine by bus id,
CUDA those this process may use, in an order of its own.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pynvml

from ...errors import ProbeUnavailableError
from ...types import ProcessUse
from .figures import DeviceFigures, held_bytes, own_process_bytes, pids_are_ours
from .process_names import ProcessNames
from .sources import MEMORY
from .visible import Gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TypeAlias

    from ...ports import Clock

    Handle: TypeAlias = Any

_Answer = TypeVar("_Answer")

DRIVER: Final = "driver"

SLOW_INTERVAL_S: Final = 0.5
CLOSE_PATIENCE_S: Final = 1.0
"""Utilisation, temperature, power and the process list are asked at most this often."""
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0

_LOST: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""After these the library must be initialised anew before it can answer again."""

_OLD_DRIVER: Final = frozenset({pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, 25})
"""The driver is older than what was asked for. 25 is "argument version mismatch", which old
versions of pynvml have no name for."""

_log = logging.getLogger(__name__)


class NvmlSession:
    """The library's life, shared by all devices. Every method may be called on any thread.

    NVML counts initialisations, so other users in this process are not disturbed. The lock
    is not held during queries: a query that hangs must not hold up another device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queries = 0
        self._ready = False
        self.generation = 0
        """Grows with each initialisation; handles of an older one are void."""

    @contextmanager
    def query(self) -> Generator[int]:
        """Around every use of the library; gives the generation.

        Raises:
            pynvml.NVMLError: the library cannot be initialised.
        """
        with self._lock:
            if not self._ready:
                self._initialise()
            self._queries += 1
            generation = self.generation
        try:
            yield generation
        finally:
            with self._lock:
                self._queries -= 1

    def renew(self, generation: int) -> None:
        """Have the library initialised anew at the next query, unless that was done since.

        It is shut down first only while nobody is inside: taking it away under a running
        query would crash the process.
        """
        with self._lock:
            if generation != self.generation or not self._ready:
                return
            if self._queries == 0:
                self._shut_down()
            self._ready = False

    def close(self) -> None:
        """Undo our initialisation unless a query is still under way, or another device's
        thread hangs in the driver: the process may be ending and must not hang with it."""
        if not self._lock.acquire(timeout=CLOSE_PATIENCE_S):
            _log.warning("NVML does not answer and is left open.")
            return
        try:
            if self._ready and self._queries == 0:
                self._shut_down()
                self._ready = False
        finally:
            self._lock.release()

    def _initialise(self) -> None:
        pynvml.nvmlInit()
        self._ready = True
        self.generation += 1

    def _shut_down(self) -> None:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # Somebody else did before us, or the driver is gone: the end is the same.
            _log.debug("NVML was not there to be shut down: %s", error)


@dataclass(frozen=True, slots=True)
class NvmlInfo:
    """What does not change of a device. Bytes; None where the driver does not tell."""

    name: str | None = None
    total_bytes: int | None = None
    capability: str | None = None


def list_gpus(session: NvmlSession) -> tuple[Gpu, ...]:
    """All GPUs of the machine in NVML's order, with their MIG instances.

    Raises:
        ProbeUnavailableError: the driver does not answer.
    """
    try:
        with session.query():
            count = pynvml.nvmlDeviceGetCount()
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            return tuple(_gpu(handle) for handle in handles)
    except pynvml.NVMLError as error:
        raise ProbeUnavailableError("NVML", str(error)) from error


def driver_version(session: NvmlSession) -> str | None:
    """The driver's version as NVML tells it, None where it does not."""
    try:
        with session.query():
            return _or_none(lambda: str(pynvml.nvmlSystemGetDriverVersion()))
    except pynvml.NVMLError as error:
        _log.info("NVML does not tell the driver's version: %s", error)
        return None


def describe(session: NvmlSession, uuid: str) -> NvmlInfo:
    """Name, memory and compute capability of a device; None for what it does not tell."""
    try:
        with session.query():
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            memory = _or_none(lambda: _memory(handle))
            capability = _or_none(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
            return NvmlInfo(
                name=_or_none(lambda: str(pynvml.nvmlDeviceGetName(handle))),
                total_bytes=None if memory is None else memory[0],
                capability=None if capability is None else "{}.{}".format(*capability),
            )
    except pynvml.NVMLError as error:
        _log.info("NVML does not describe %s: %s", uuid, error)
        return NvmlInfo()


class NvmlDevice:
    """The driver's figures of one device, by UUID. One thread at a time may ask.

    A device that is lost is asked again after a growing pause, with the library initialised
    anew; until then its figures are unknown.
    """

    def __init__(
        self,
        session: NvmlSession,
        uuid: str,
        clock: Clock,
        names: ProcessNames | None = None,
        own_pid: int | None = None,
    ) -> None:
        self._session = session
        self._uuid = uuid
        self._clock = clock
        self._names = names or ProcessNames()
        self._own_pid = os.getpid() if own_pid is None else own_pid
        self._handles: _Handles | None = None
        self._slow: _SlowFigures | None = None
        self._loss: str | None = None
        self._retry_at_s = 0.0
        self._retry_after_s = FIRST_RETRY_S

    def figures(self, reserved_bytes: int | None, outside_bytes: int | None) -> DeviceFigures:
        """Read now; what is lost or not supported is None and named in ``errors``."""
        if self._loss is not None and self._clock.monotonic_s() < self._retry_at_s:
            return DeviceFigures(errors={DRIVER: self._loss})
        try:
            with self._session.query() as generation:
                figures = self._read(self._current(generation), reserved_bytes, outside_bytes)
        except pynvml.NVMLError as error:
            return self._lost(str(error))
        self._recovered()
        return figures

    def close(self) -> None:
        """Let go of the library; other devices initialise it again when they need it."""
        self._handles = None
        self._session.close()

    def _lost(self, reason: str) -> DeviceFigures:
        if self._loss is None:
            _log.warning(
                "NVML lost %s (%s); its figures are unknown meanwhile.", self._uuid, reason
            )
        self._session.renew(
            self._session.generation if self._handles is None else self._handles.generation
        )
        self._handles = self._slow = None
        self._loss = reason
        self._retry_at_s = self._clock.monotonic_s() + self._retry_after_s
        self._retry_after_s = min(2 * self._retry_after_s, LAST_RETRY_S)
        return DeviceFigures(errors={DRIVER: reason})

    def _recovered(self) -> None:
        if self._loss is not None:
            _log.info("NVML answers for %s again.", self._uuid)
        self._loss = None
        self._retry_after_s = FIRST_RETRY_S

    def _current(self, generation: int) -> _Handles:
        if self._handles is None or self._handles.generation != generation:
            device = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            # An instance has no sensors: temperature and power are its board's.
            is_mig = self._uuid.startswith("MIG-")
            board = (
                pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device) if is_mig else device
            )
            self._handles = _Handles(generation, device, board)
            self._slow = None
        return self._handles

    def _read(
        self, handles: _Handles, reserved_bytes: int | None, outside_bytes: int | None
    ) -> DeviceFigures:
        ask = _Asker()
        memory = ask(MEMORY, lambda: _memory(handles.device))
        held = held_bytes(None, reserved_bytes, outside_bytes) or 0
        slow = self._slow
        if slow is None or self._clock.monotonic_s() - slow.read_s >= SLOW_INTERVAL_S:
            slow = self._slow = self._read_slow(handles, reserved_bytes, held)
        total_bytes, used_bytes, free_bytes = (None, None, None) if memory is None else memory
        return replace(
            slow.figures,
            total_bytes=total_bytes,
            used_bytes=used_bytes,
            free_bytes=free_bytes,
            process_bytes=slow.process_bytes(held),
            errors={**ask.errors, **slow.figures.errors},
        )

    def _read_slow(self, handles: _Handles, reserved_bytes: int | None, held: int) -> _SlowFigures:
        ask = _Asker()
        device, board = handles.device, handles.board
        load = ask("utilization", lambda: pynvml.nvmlDeviceGetUtilizationRates(device).gpu)
        celsius = ask(
            "temperature",
            lambda: pynvml.nvmlDeviceGetTemperature(board, pynvml.NVML_TEMPERATURE_GPU),
        )
        milliwatts = ask("power", lambda: pynvml.nvmlDeviceGetPowerUsage(board))
        processes = self._named(ask("processes", lambda: _processes(device)) or (), reserved_bytes)
        figures = DeviceFigures(
            process_bytes=own_process_bytes(processes, self._own_pid, reserved_bytes),
            utilization_percent=None if load is None else float(load),
            temperature_c=None if celsius is None else float(celsius),
            power_w=None if milliwatts is None else milliwatts / 1000,
            processes=processes,
            errors=ask.errors,
        )
        return _SlowFigures(self._clock.monotonic_s(), held, figures)

    def _named(
        self, processes: tuple[ProcessUse, ...], reserved_bytes: int | None
    ) -> tuple[ProcessUse, ...]:
        if not pids_are_ours(processes, self._own_pid, reserved_bytes):
            return processes
        names = self._names.of(use.pid for use in processes)
        return tuple(replace(use, name=names[use.pid]) for use in processes)


@dataclass(frozen=True, slots=True)
class _Handles:
    generation: int
    device: Handle
    board: Handle


@dataclass(frozen=True, slots=True)
class _SlowFigures:
    """What is asked less often, with the moment and what this process was known to hold."""

    read_s: float
    held_bytes: int
    figures: DeviceFigures

    def process_bytes(self, held_now_bytes: int) -> int | None:
        """The driver's figure for this process, moved along with what it is known to hold:
        otherwise a model loaded since would for a moment look like somebody else's."""
        then_bytes = self.figures.process_bytes
        if then_bytes is None:
            return None
        return max(0, then_bytes + held_now_bytes - self.held_bytes)


class _Asker:
    """Asks for one figure after another and notes why some are missing."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}

    def __call__(self, name: str, question: Callable[[], _Answer]) -> _Answer | None:
        try:
            return question()
        except pynvml.NVMLError as error:
            if _code(error) in _LOST:
                raise
            self.errors[name] = str(error)
            return None


def _code(error: pynvml.NVMLError) -> int:
    """The library's number for an error; its class sets the attribute where no checker sees."""
    return int(error.value)  # pyright: ignore[reportAttributeAccessIssue]


def _memory(handle: Handle) -> tuple[int, int, int]:
    """Total, used and free bytes. Version 2 leaves what the driver keeps for itself out of
    ``used``, as nvidia-smi does; drivers before 510 only know version 1."""
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except pynvml.NVMLError as error:
        if _code(error) not in _OLD_DRIVER:
            raise
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.used), int(memory.free)


def _processes(handle: Handle) -> tuple[ProcessUse, ...]:
    """Who holds memory on the device, most first. A process that computes and draws is on
    both lists with the same figure."""
    used: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        for process in _running(kind, handle):
            used[process.pid] = max(
                (
                    each
                    for each in (used.get(process.pid), process.usedGpuMemory)
                    if each is not None
                ),
                default=None,
            )
    by_size = sorted(used.items(), key=lambda item: -(item[1] or 0))
    return tuple(ProcessUse(pid, used_bytes) for pid, used_bytes in by_size)


def _running(kind: str, handle: Handle) -> list[Any]:
    try:
        return getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v3")(handle)
    except pynvml.NVMLError as error:
        if _code(error) not in _OLD_DRIVER:
            raise
        return getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_v2")(handle)


def _gpu(handle: Handle) -> Gpu:
    uuid = str(pynvml.nvmlDeviceGetUUID(handle))
    mode = _or_none(lambda: pynvml.nvmlDeviceGetMigMode(handle))
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return Gpu(uuid)
    count = _or_none(lambda: pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)) or 0
    instances = (
        _or_none(
            lambda index=index: str(
                pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
            )
        )
        for index in range(count)
    )
    # Places without an instance answer with an error.
    return Gpu(uuid, is_mig=True, instances=tuple(each for each in instances if each is not None))


def _or_none(question: Callable[[], _Answer]) -> _Answer | None:
    """An answer that is nice to have. What does not exist here is None; a lost driver is not."""
    return _Asker()("", question)
