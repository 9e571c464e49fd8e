"""Probes put together from torch, runtimes and drivers that the test writes itself."""

import sys
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest
from support.clock import StillClock
from support.instruments import CUDA

from vram_supervisor.supervisor.telemetry.allocator import TorchCounter
from vram_supervisor.supervisor.telemetry.probes.cpu import CpuProbe
from vram_supervisor.supervisor.telemetry.probes.figures import DeviceFigures
from vram_supervisor.supervisor.telemetry.probes.process_names import ProcessNames, program_name
from vram_supervisor.supervisor.telemetry.probes.sources import (
    AcceleratorProbe,
    MemoryFromElsewhere,
    NoSource,
    RuntimeMemory,
    SystemMemory,
)
from vram_supervisor.supervisor.telemetry.torch_memory import TorchFigures, torch_figures
from vram_supervisor.supervisor.types import DeviceInfo


class FakeBackend:
    """``torch.cuda`` or ``torch.xpu``: one device, figures set by the test."""

    def __init__(self, allocated=30, reserved=40, peak=35, memory=(600, 1000)):
        self.initialised = True
        self.stats = {
            "allocated_bytes": {"all": {"current": allocated, "peak": peak}},
            "reserved_bytes": {"all": {"current": reserved, "peak": reserved}},
        }
        self.memory_info = memory
        self.asked_for_memory = 0
        self.memory = SimpleNamespace(memory_stats_as_nested_dict=lambda index: self.stats)

    def is_initialized(self):
        return self.initialised

    def mem_get_info(self, index):
        self.asked_for_memory += 1
        if isinstance(self.memory_info, Exception):
            raise self.memory_info
        return self.memory_info


@pytest.fixture
def backend(monkeypatch):
    backend = FakeBackend()
    mps = SimpleNamespace(current_allocated_memory=lambda: 3, driver_allocated_memory=lambda: 4)
    torch = SimpleNamespace(cuda=backend, xpu=backend, mps=mps)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return backend


class FixedSource:
    def __init__(self, **figures):
        self.given = DeviceFigures(**figures)
        self.arguments = None
        self.closed = False

    def figures(self, reserved_bytes, outside_bytes):
        self.arguments = (reserved_bytes, outside_bytes)
        return self.given

    def close(self):
        self.closed = True


def test_torch_figures_of_a_cuda_device(backend):
    assert torch_figures("cuda:0") == TorchFigures(30, 40, 35)
    assert torch_figures("xpu:0") == TorchFigures(30, 40, 35)
    counter = TorchCounter()
    assert (counter.allocated_bytes("cuda:0"), counter.peak_allocated_bytes("cuda:0")) == (30, 35)


def test_metal_counts_no_peak(backend):
    assert torch_figures("mps") == TorchFigures(3, 4, None)


def test_system_ram_is_not_torchs_to_count(backend):
    assert torch_figures("cpu") == TorchFigures()
    assert torch_figures("nvml:0") == TorchFigures()


def test_torch_that_was_not_woken_holds_nothing_and_stays_asleep(backend):
    backend.initialised = False
    backend.memory = None
    assert torch_figures("cuda:0") == TorchFigures(0, 0, 0)


def test_a_process_without_torch_holds_nothing(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_figures("cuda:0") == TorchFigures(0, 0, 0)
    assert torch_figures("mps") == TorchFigures(0, 0, 0)


def test_a_torch_that_another_thread_is_importing_holds_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    assert torch_figures("cuda:0") == TorchFigures(0, 0, 0)


def test_an_accelerator_reads_torch_then_the_driver(backend):
    source = FixedSource(total_bytes=1000, used_bytes=400, free_bytes=600, process_bytes=55)
    probe = AcceleratorProbe(CUDA, source, lambda device: {"cuda:0": 12}[device])
    reading = probe.read()
    assert source.arguments == (40, 12)
    assert (reading.torch_allocated_bytes, reading.torch_reserved_bytes) == (30, 40)
    assert (reading.outside_torch_bytes, reading.external_bytes) == (15, 345)
    probe.close()
    assert source.closed


def test_a_driver_without_a_total_leaves_what_is_known_of_the_device(backend):
    assert AcceleratorProbe(CUDA, FixedSource()).read().total_bytes == CUDA.total_bytes


CONTEXTS = [
    # (torch initialised, torch reserves, driver knows of a context, asked, why)
    (True, 40, None, True, "torch holds memory, so there is a context"),
    (True, 0, None, False, "nothing held: asking would make a context"),
    (True, 0, True, True, "the driver says there is one"),
    (True, 40, False, False, "the driver says there is none"),
    (False, 40, True, False, "torch is asleep and stays so"),
]


@pytest.mark.parametrize(("initialised", "reserved", "context", "asked", "why"), CONTEXTS)
def test_free_memory_is_only_asked_where_a_context_is(
    backend, *, initialised, reserved, context, asked, why
):
    backend.initialised = initialised
    source = RuntimeMemory("cuda", 0, lambda: context)
    figures = source.figures(reserved, None)
    assert (backend.asked_for_memory > 0) is asked, why
    assert (figures.used_bytes is not None) is asked, why
    assert bool(figures.errors) is not asked, why


def test_total_and_free_from_the_runtime(backend):
    figures = RuntimeMemory("cuda", 0).figures(1, None)
    assert (figures.total_bytes, figures.used_bytes, figures.free_bytes) == (1000, 400, 600)


FAULTS = [
    RuntimeError("CUDA error: device lost\nCUDA kernel errors might be"),
    NotImplementedError("not on this device"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_runtime_that_refuses_is_named_in_one_line(backend, fault):
    backend.memory_info = fault
    figures = RuntimeMemory("cuda", 0).figures(1, None)
    assert figures.errors == {"memory": str(fault).split("\n")[0]}


def test_a_driver_without_memory_figures_gets_them_elsewhere():
    """GB10: NVML knows the temperature and not the memory."""
    nvml = FixedSource(temperature_c=50.0, errors={"memory": "Not Supported", "power": "x"})
    runtime = FixedSource(total_bytes=10, used_bytes=4, free_bytes=6)
    figures = MemoryFromElsewhere(nvml, runtime).figures(1, 2)
    assert (figures.used_bytes, figures.temperature_c) == (4, 50.0)
    assert figures.errors == {"power": "x"}
    assert runtime.arguments == (1, 2)


def test_a_driver_with_memory_figures_is_enough():
    runtime = FixedSource(used_bytes=4)
    both = MemoryFromElsewhere(FixedSource(used_bytes=5), runtime)
    assert both.figures(1, 2).used_bytes == 5
    assert runtime.arguments is None
    both.close()
    assert runtime.closed


def test_where_nobody_knows_the_first_reason_stands():
    none = MemoryFromElsewhere(NoSource("NVML", "not installed"), FixedSource())
    assert none.figures(1, 2).errors == {"NVML": "not installed"}


def test_apples_gpu_has_the_systems_ram(backend):
    probe = AcceleratorProbe(DeviceInfo("mps", "mps", unified=True), SystemMemory())
    reading = probe.read()
    assert reading.total_bytes == psutil.virtual_memory().total
    assert (reading.torch_reserved_bytes, reading.error) == (4, None)


def test_the_cpu_probe_reads_this_machine():
    probe = CpuProbe(StillClock())
    reading = probe.read()
    assert probe.device.total_bytes == reading.total_bytes == psutil.virtual_memory().total
    assert reading.used_bytes + reading.free_bytes == reading.total_bytes
    assert 0 < reading.process_bytes < reading.total_bytes
    assert reading.torch_allocated_bytes is None
    probe.close()


class Times(NamedTuple):
    user: float
    idle: float
    iowait: float
    guest: float


def test_the_load_is_read_at_most_twice_a_second(monkeypatch):
    """One second of user time in ten, then two; a guest's time is in the user's already."""
    times = iter([Times(0, 0, 0, 0), Times(1, 8, 1, 1), Times(3, 15, 2, 2)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    clock = StillClock()
    probe = CpuProbe(clock)
    seen = []
    for clock.now_s in (0.1, 0.5, 0.9, 1.0):
        seen.append(probe.read().utilization_percent)
    assert seen == [None, 10.0, 10.0, 20.0]


def test_a_ram_that_cannot_be_read_is_unknown(monkeypatch):
    probe = CpuProbe(StillClock())

    def refuse():
        raise psutil.AccessDenied(1, "x")

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    reading = probe.read()
    assert reading.used_bytes is None
    assert "system RAM" in reading.error


def test_names_are_looked_up_once_and_forgotten_with_the_process():
    asked = []
    names = ProcessNames(lambda pid: asked.append(pid) or f"program {pid}")
    assert names.of([1, 2]) == {1: "program 1", 2: "program 2"}
    assert names.of([2]) == {2: "program 2"}
    assert asked == [1, 2]
    names.of([1])
    assert asked == [1, 2, 1], "the id may be another program's by now"


def test_this_programs_name_and_that_of_nobody():
    import os

    assert program_name(os.getpid()) == psutil.Process().name()
    assert program_name(2**31 - 1) is None
    assert program_name(-1) is None
