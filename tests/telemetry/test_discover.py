"""Which probes a machine gets, with torch and the driver played by the test."""

import ctypes
import sys
from types import SimpleNamespace

import pytest
from support.clock import StillClock

from vram_supervisor.supervisor.errors import ProbeUnavailableError
from vram_supervisor.supervisor.telemetry.probes import discover, nvidia
from vram_supervisor.supervisor.telemetry.probes.cuda_driver import CudaDevice, CudaDriver
from vram_supervisor.supervisor.telemetry.probes.visible import Gpu

UUID = bytes(range(16))
UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


class FakeCuda:
    """The driver library, as ctypes would present it."""

    def __init__(self, failing=(), missing=(), contexts=(0,)):
        self.failing, self.contexts = set(failing), contexts
        self.called = []
        for name in missing:
            setattr(self, name, None)

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if not name.startswith("cu") or found is None:
            return found
        self.called.append(name)
        return (lambda *arguments: 100) if name in self.failing else found

    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = 2
        return 0

    def cuDeviceGet(self, handle, index):
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name, size, handle):
        name.value = b"Card %d" % handle.value
        return 0

    def cuDeviceTotalMem_v2(self, total, handle):
        total._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):
        value._obj.value = {75: 8, 76: 9, 18: handle.value}[attribute]
        return 0

    def cuDeviceGetUuid_v2(self, raw, handle):
        ctypes.memmove(raw, UUID, 16)
        return 0

    def cuDeviceGetUuid(self, raw, handle):
        ctypes.memmove(raw, bytes(16), 16)
        return 0

    def cuDevicePrimaryCtxGetState(self, handle, flags, active):
        active._obj.value = handle.value in self.contexts
        return 0


def test_what_the_driver_says_of_its_devices():
    first, second = CudaDriver(FakeCuda()).devices()
    assert first == CudaDevice(0, UUID_TEXT, "Card 0", 24 << 30, "8.9", integrated=False)
    assert (second.index, second.name, second.integrated) == (1, "Card 1", True)


def test_an_old_driver_has_the_older_question_for_a_uuid():
    driver = CudaDriver(FakeCuda(missing=["cuDeviceGetUuid_v2"]))
    assert driver.devices()[0].uuid == "00000000-0000-0000-0000-000000000000"


def test_whether_there_is_a_context():
    driver = CudaDriver(FakeCuda(contexts=(1,)))
    assert [driver.has_context(0), driver.has_context(1)] == [False, True]
    assert CudaDriver(FakeCuda(failing=["cuDevicePrimaryCtxGetState"])).has_context(0) is None


def test_no_call_makes_a_context():
    library = FakeCuda()
    driver = CudaDriver(library)
    driver.devices()
    driver.has_context(0)
    assert not [name for name in library.called if "Create" in name or "Retain" in name]


def test_a_driver_that_does_not_start_is_unavailable():
    with pytest.raises(ProbeUnavailableError, match="cuInit failed with code 100"):
        CudaDriver(FakeCuda(failing=["cuInit"]))


class FakeBackend:
    """``torch.cuda`` or ``torch.xpu`` of some machine."""

    def __init__(self, count=0, initialised=False):
        self.count, self.initialised, self.woken = count, initialised, False

    def is_available(self):
        return self.count > 0

    def is_initialized(self):
        return self.initialised

    def device_count(self):
        return self.count

    def get_device_properties(self, index):
        self.woken = True
        return SimpleNamespace(
            name=f"Torch card {index}", uuid=UUID_TEXT, total_memory=7, major=9, minor=0
        )


class NoDriver:
    def __init__(self):
        raise ProbeUnavailableError("CUDA driver", "none here")


@pytest.fixture
def machine(monkeypatch):
    """``machine(cuda=, xpu=, hip=, mps=)`` gives the probes of such a torch."""

    def find(cuda=None, xpu=None, hip=None, mps=False, driver=NoDriver):
        backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
        torch = SimpleNamespace(
            cuda=cuda or FakeBackend(),
            xpu=xpu or FakeBackend(),
            backends=backends,
            version=SimpleNamespace(hip=hip),
        )
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(nvidia, "CudaDriver", driver)
        monkeypatch.setattr(
            discover, "find_nvml", lambda clock: nvidia.Nvml(clock, None, problem="none here")
        )
        return discover.discover_probes(StillClock())

    return find


def keys(probes):
    return [(probe.device.key, probe.device.kind) for probe in probes]


MACHINES = [
    # (torch, probes, why)
    ({}, [("cpu", "cpu")], "nothing but a CPU"),
    (
        {"cuda": FakeBackend(2)},
        [("cuda:0", "cuda"), ("cuda:1", "cuda"), ("cpu", "cpu")],
        "two NVIDIA cards",
    ),
    (
        {"cuda": FakeBackend(1), "hip": "6.2"},
        [("cuda:0", "hip"), ("cpu", "cpu")],
        "ROCm, under CUDA's name",
    ),
    ({"xpu": FakeBackend(1)}, [("xpu:0", "xpu"), ("cpu", "cpu")], "Intel"),
    ({"mps": True}, [("mps", "mps"), ("cpu", "cpu")], "Apple"),
    (
        {"cuda": FakeBackend(1), "xpu": FakeBackend(1)},
        [("cuda:0", "cuda"), ("xpu:0", "xpu"), ("cpu", "cpu")],
        "two makers at once",
    ),
]


@pytest.mark.parametrize(("torch", "expected", "why"), MACHINES)
def test_the_probes_of_a_machine(machine, torch, expected, why):
    assert keys(machine(**torch)) == expected, why


def test_a_sleeping_torch_is_not_woken(machine):
    for name in ("cuda", "xpu"):
        backend = FakeBackend(1, initialised=False)
        assert machine(**{name: backend})[0].device.name is None
        assert not backend.woken
    backend = FakeBackend(1, initialised=False)
    machine(cuda=backend, hip="6.2")
    assert not backend.woken


def test_torch_that_is_awake_is_asked_where_the_driver_is_not_there(machine):
    device = machine(cuda=FakeBackend(1, initialised=True))[0].device
    assert (device.name, device.uuid, device.capability) == (
        "Torch card 0",
        f"GPU-{UUID_TEXT}",
        "9.0",
    )


def test_the_driver_names_cards_without_waking_torch(machine):
    backend = FakeBackend(2, initialised=False)
    first, second, _ = machine(cuda=backend, driver=lambda: CudaDriver(FakeCuda()))
    assert (first.device.name, first.device.uuid) == ("Card 0", f"GPU-{UUID_TEXT}")
    assert (second.device.total_bytes, second.device.unified) == (24 << 30, True)
    assert not backend.woken


def test_without_nvml_the_reading_says_why(machine):
    reading = machine(cuda=FakeBackend(1))[0].read()
    assert reading.error == "NVML: none here"


def test_without_torch_there_is_still_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(discover, "find_nvml", lambda clock: nvidia.Nvml(clock, None))
    assert keys(discover.discover_probes()) == [("cpu", "cpu")]


def test_without_nvidias_binding_nothing_breaks(monkeypatch):
    monkeypatch.setitem(sys.modules, f"{nvidia.__package__}.nvml", None)
    found = nvidia.find_nvml(StillClock())
    assert (found.session, found.problem) == (None, "nvidia-ml-py is not installed")
    assert nvidia.monitor_only_probes(found) == []
    assert found.source("GPU-1").figures(0, None).errors == {"NVML": found.problem}


def test_a_mig_instance_is_read_by_its_own_uuid(machine, monkeypatch):
    """CUDA may report the GPU's UUID: NVML must be asked for the instance."""
    split = Gpu(f"GPU-{UUID_TEXT}", is_mig=True, instances=("MIG-1", "MIG-2"))
    asked = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-2")
    monkeypatch.setattr(nvidia.Nvml, "source", lambda self, uuid: asked.append(uuid))
    torch = SimpleNamespace(cuda=FakeBackend(1, initialised=True))
    monkeypatch.setattr(nvidia, "CudaDriver", NoDriver)
    nvml = nvidia.Nvml(StillClock(), None, gpus=(split,))
    (probe,) = nvidia.cuda_probes(torch, nvml, None)
    assert (probe.device.uuid, asked) == ("MIG-2", ["MIG-2"])
