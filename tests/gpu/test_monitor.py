"""The monitor on a real CUDA device, next to nvidia-smi and torch itself."""

import subprocess

import pytest

from vram_supervisor.supervisor.telemetry.probes.discover import discover_probes
from vram_supervisor.supervisor.units import GiB, MiB

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")


@pytest.fixture
def probe():
    torch.cuda.init()
    probes = discover_probes()
    yield next(probe for probe in probes if probe.device.key == "cuda:0")
    for each in probes:
        each.close()
    torch.cuda.empty_cache()


def nvidia_smi_used_mib(uuid):
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", uuid]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout)


def test_the_device_is_found_by_its_uuid(probe):
    uuids = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    assert probe.device.uuid
    assert probe.device.uuid in uuids


def test_used_memory_is_what_nvidia_smi_says(probe):
    held = torch.zeros(4 * GiB, dtype=torch.uint8, device="cuda")
    torch.cuda.synchronize()
    used_mib = probe.read().used_bytes / MiB
    assert abs(used_mib - nvidia_smi_used_mib(probe.device.uuid)) < 64
    assert held.numel() == 4 * GiB


def test_torch_figures_are_torchs_own(probe):
    held = torch.zeros(2 * GiB, dtype=torch.uint8, device="cuda")
    cached = torch.zeros(1 * GiB, dtype=torch.uint8, device="cuda")
    del cached
    reading = probe.read()
    assert reading.torch_allocated_bytes == torch.cuda.memory_allocated(0)
    assert reading.torch_reserved_bytes == torch.cuda.memory_reserved(0)
    assert reading.torch_allocated_bytes >= held.numel()


def test_the_parts_add_up_to_what_is_used(probe):
    torch.zeros(1, device="cuda")
    reading = probe.read()
    ours = (
        reading.process_bytes if reading.process_bytes is not None else reading.torch_reserved_bytes
    )
    assert ours is not None
    assert reading.external_bytes is not None
    assert abs(ours + reading.external_bytes - reading.used_bytes) < 64 * MiB


def test_the_peak_counter_is_read_and_never_reset(probe):
    torch.zeros(2 * GiB, dtype=torch.uint8, device="cuda")
    before = torch.cuda.max_memory_allocated(0)
    for _ in range(3):
        probe.read()
    assert torch.cuda.max_memory_allocated(0) == before
