"""Real pynvml code against a fake driver that stalls or hangs."""

import json
import os
import subprocess
import sys
import threading

import anyio
import pytest
from support.instruments import CPU, FixedPosition, ScriptedProbe
from support.nvml_world import MEMORY, TWO_GPUS, World

from vram_supervisor.supervisor.telemetry.probes.nvidia import Nvml
from vram_supervisor.supervisor.telemetry.probes.sources import AcceleratorProbe
from vram_supervisor.supervisor.telemetry.sampler import Sampler
from vram_supervisor.supervisor.types import DeviceInfo

pytestmark = pytest.mark.compiler


@pytest.fixture
def world():
    return World()


def test_a_hanging_query_is_never_shut_down_under(load_nvml, world, tmp_path):
    gate = tmp_path / "gate"
    library = load_nvml(
        TWO_GPUS + f"gate {MEMORY} {gate} 0 1 GPU-aaaa\nerror {MEMORY} 15 1 1 GPU-bbbb\n"
    )
    hanging, lost = world.device("GPU-aaaa"), world.device("GPU-bbbb")
    lost.figures(0, None)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(hanging.figures(0, None)))
    thread.start()
    while not library.fake_nvml_calls(MEMORY.encode()) >= 2:
        pass
    assert lost.figures(0, None).errors == {"driver": "GPU is lost"}
    world.session.close()
    assert library.fake_nvml_calls(b"nvmlShutdown") == 0
    gate.touch()
    thread.join()
    assert answers[0].used_bytes == 100


def test_closing_does_not_wait_for_a_thread_that_hangs(load_nvml, world, caplog):
    load_nvml(TWO_GPUS)
    with world.session._lock:
        closing = threading.Thread(target=world.session.close)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
    assert "left open" in caplog.text


async def sample_until(probes, enough, on_sample=lambda sample: None):
    """Run the sampler at its busy rate until ``enough(samples)``; gives the samples."""
    samples, changed = [], anyio.Event()
    loop_token = anyio.lowlevel.current_token()

    def sink(sample):
        samples.append(sample)
        on_sample(sample)
        if enough(samples):
            anyio.from_thread.run_sync(changed.set, token=loop_token)

    from vram_supervisor.supervisor.telemetry.clock import SystemClock

    sampler = Sampler(probes, SystemClock(), FixedPosition(), sink, lambda: True)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(sampler.run)
            await changed.wait()
            group.cancel_scope.cancel()
    return samples


def make_probe(world):
    nvml = Nvml(world.clock, world.session)
    return AcceleratorProbe(DeviceInfo("cuda:0", "cuda"), nvml.source("GPU-aaaa"))


def keys(samples):
    return [sample.device.key for sample in samples]


def test_stalls_of_300_ms_soon_hold_up_nobody_else(load_nvml, world):
    """Read in turn, the two would alternate for ever."""
    load_nvml(TWO_GPUS + f"delay {MEMORY} 300 0 0\n")
    gpu = make_probe(world)

    def enough(samples):
        return keys(samples)[-2:] == ["cpu", "cpu"]

    samples = anyio.run(sample_until, [gpu, ScriptedProbe(CPU)], enough)
    figures = {each.reading.used_bytes for each in samples if each.device.key != "cpu"}
    assert figures <= {100, 200}, "a stall is no reason to give up a figure"
    gpu.close()


def test_a_call_that_hangs_gives_samples_that_say_so(load_nvml, world, tmp_path):
    """The call returns only once three CPU samples and an unknown GPU sample have come."""
    gate = tmp_path / "gate"
    library = load_nvml(TWO_GPUS + f"gate {MEMORY} {gate} 0 0\n")
    gpu = make_probe(world)
    seen, calls = [], []

    def open_gate(sample):
        seen.append(sample)
        unknown = [each for each in seen if each.reading.error]
        if keys(seen).count("cpu") >= 3 and unknown and not gate.exists():
            calls.append(library.fake_nvml_calls(MEMORY.encode()))
            gate.touch()

    samples = anyio.run(
        sample_until,
        [gpu, ScriptedProbe(CPU)],
        lambda samples: any(sample.reading.used_bytes == 100 for sample in samples),
        open_gate,
    )
    unknown = [sample for sample in samples if sample.reading.error]
    assert unknown[0].reading.used_bytes is None
    assert "has not answered" in unknown[0].reading.error
    assert calls[0] == 1, "a stuck call is not made again"
    gpu.close()


WHOLE = """
import json, threading
from vram_supervisor.supervisor.service import build_supervisor
import torch
supervisor = build_supervisor(None)
arrived = threading.Event()
stream = supervisor.open_stream(None, arrived.set)
supervisor.start()
while "nvml:0" not in supervisor.latest():
    arrived.clear()
    stream.take(100)
    assert arrived.wait(60)
sample = supervisor.latest()["nvml:0"]
supervisor.stop()
print(json.dumps({
    "devices": [device.key for device in supervisor.devices],
    "name": sample.device.name,
    "used": sample.reading.used_bytes,
    "torch sees": torch.cuda.device_count(),
    "torch has CUDA": torch.cuda.is_available(),
}))
"""


def test_a_whole_supervisor_on_the_fake_driver_and_torch_never_sees_it(nvml_libraries, tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    script = tmp_path / "script.txt"
    script.write_text(TWO_GPUS)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(nvml_libraries["new"].parent),
        "FAKE_NVML_SCRIPT": str(script),
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb",
    }
    done = subprocess.run(
        [sys.executable, "-c", WHOLE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "devices": ["nvml:0", "cpu"],
        "name": "Beta",
        "used": 7,
        "torch sees": 0,
        "torch has CUDA": False,
    }
