"""Real pynvml code against a fake driver library that follows a script."""

import pytest
from support.clock import StillClock
from support.nvml_world import ME, MEMORY, TWO_GPUS, World

from vram_supervisor.supervisor.errors import ProbeUnavailableError
from vram_supervisor.supervisor.telemetry.probes.nvidia import find_nvml, monitor_only_probes
from vram_supervisor.supervisor.telemetry.probes.nvml import (
    describe,
    driver_version,
    list_gpus,
)
from vram_supervisor.supervisor.telemetry.probes.visible import Gpu
from vram_supervisor.supervisor.types import ProcessUse
from vram_supervisor.supervisor.units import MiB

pytestmark = pytest.mark.compiler
SPLIT = """
gpu GPU-aaaa Alpha 1000000000
mig MIG-1111 GPU-aaaa 400000000
mig MIG-2222 GPU-aaaa 500000000
memory MIG-2222 60
process MIG-2222 4242 50 compute
"""


@pytest.fixture
def world():
    return World()


def test_the_happy_path(load_nvml, world):
    load_nvml(TWO_GPUS + "process GPU-aaaa 4242 90 compute\n")
    figures = world.device().figures(80, None)
    assert (figures.total_bytes, figures.used_bytes) == (1000000000, 100)
    assert figures.free_bytes == 1000000000 - 100 - MiB, "what the driver keeps is not free"
    assert (figures.process_bytes, figures.utilization_percent) == (90, 42.0)
    assert (figures.temperature_c, figures.power_w) == (55.0, 123.4)
    assert figures.errors == {}


def test_memory_is_read_every_time_and_the_rest_twice_a_second(load_nvml, world):
    library = load_nvml(TWO_GPUS)
    device = world.device()
    used = []
    for tenth in range(10):
        world.clock.now_s = tenth / 10
        used.append(device.figures(0, None).used_bytes)
    assert used == [100, 200] + [300] * 8
    calls = {
        name: library.fake_nvml_calls(f"nvmlDeviceGet{name}".encode())
        for name in ("MemoryInfo_v2", "UtilizationRates", "Temperature", "PowerUsage")
    }
    assert calls == {"MemoryInfo_v2": 10, "UtilizationRates": 2, "Temperature": 2, "PowerUsage": 2}


def test_a_device_is_found_by_uuid_whatever_its_place(load_nvml, world):
    load_nvml(TWO_GPUS)
    assert world.device("GPU-bbbb").figures(0, None).used_bytes == 7
    assert list_gpus(world.session) == (Gpu("GPU-aaaa"), Gpu("GPU-bbbb"))
    info = describe(world.session, "GPU-bbbb")
    assert (info.name, info.total_bytes, info.capability) == ("Beta", 2000000000, "9.0")


def test_the_drivers_version_is_told(load_nvml, world):
    load_nvml(TWO_GPUS)
    assert driver_version(world.session) == "580.95.05"


def test_a_driver_that_does_not_tell_its_version_is_none(load_nvml, world):
    load_nvml(f"{TWO_GPUS}error nvmlSystemGetDriverVersion 999 0 0\n")
    assert driver_version(world.session) is None


def test_a_device_that_does_not_exist_says_so(load_nvml, world):
    load_nvml(TWO_GPUS)
    assert world.device("GPU-ffff").figures(0, None).errors == {"driver": "Not Found"}
    assert describe(world.session, "GPU-ffff").name is None


SETTINGS = [
    # (CUDA_VISIBLE_DEVICES, devices watched, why)
    (None, ["GPU-aaaa", "GPU-bbbb"], "not set"),
    ("1", ["GPU-bbbb"], "by index"),
    ("GPU-bb", ["GPU-bbbb"], "by the beginning of a UUID"),
    ("", [], "hidden"),
]


@pytest.mark.parametrize(("setting", "uuids", "why"), SETTINGS)
def test_without_cuda_in_torch_visible_devices_are_watched(
    load_nvml, monkeypatch, setting, uuids, why
):
    load_nvml(TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if setting is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    probes = monitor_only_probes(find_nvml(StillClock()))
    assert [probe.device.uuid for probe in probes] == uuids, why
    assert [probe.device.key for probe in probes] == [f"nvml:{n}" for n in range(len(uuids))]
    assert all(probe.read().used_bytes for probe in probes)
    for probe in probes:
        probe.close()


def test_a_mig_instance_has_memory_of_its_own_and_its_boards_sensors(load_nvml, world):
    load_nvml(SPLIT)
    assert list_gpus(world.session) == (
        Gpu("GPU-aaaa", is_mig=True, instances=("MIG-1111", "MIG-2222")),
    )
    figures = world.device("MIG-2222").figures(40, None)
    assert (figures.total_bytes, figures.used_bytes, figures.process_bytes) == (500000000, 60, 50)
    assert (figures.temperature_c, figures.power_w) == (55.0, 123.4)
    assert figures.errors == {"utilization": "Not Supported"}


def test_a_lost_gpu_comes_back(load_nvml, world, caplog):
    library = load_nvml(TWO_GPUS + f"error {MEMORY} 15 1 1\n")
    device = world.device()
    assert device.figures(0, None).used_bytes == 100
    lost = device.figures(0, None)
    assert (lost.used_bytes, lost.errors) == (None, {"driver": "GPU is lost"})
    calls = library.fake_nvml_calls(MEMORY.encode())
    assert device.figures(0, None).errors == {"driver": "GPU is lost"}
    assert library.fake_nvml_calls(MEMORY.encode()) == calls, "not asked again at once"
    world.clock.now_s += 1.0
    assert device.figures(0, None).used_bytes == 200
    assert library.fake_nvml_calls(b"nvmlInitWithFlags") == 2, "initialised anew"
    assert library.fake_nvml_calls(b"nvmlShutdown") == 1
    assert caplog.text.count("NVML lost GPU-aaaa") == 1


def test_the_pause_grows_while_a_gpu_stays_lost_and_is_short_again_after(load_nvml, world):
    library = load_nvml(TWO_GPUS + f"error {MEMORY} 15 0 3\nerror {MEMORY} 15 4 1\n")
    device = world.device()
    asked = []
    for _ in range(70):
        before = library.fake_nvml_calls(MEMORY.encode())
        device.figures(0, None)
        if library.fake_nvml_calls(MEMORY.encode()) > before:
            asked.append(world.clock.now_s)
        world.clock.now_s += 0.5
    assert asked[:5] == [0.0, 1.0, 3.0, 7.0, 7.5]
    assert asked[5] == 8.5


def test_a_lost_gpu_does_not_take_the_others_with_it(load_nvml, world):
    load_nvml(TWO_GPUS + f"error {MEMORY} 15 0 0 GPU-aaaa\n")
    lost, healthy = world.device("GPU-aaaa"), world.device("GPU-bbbb")
    for _ in range(20):
        assert healthy.figures(0, None).used_bytes == 7
        assert lost.figures(0, None).used_bytes is None
        world.clock.now_s += 1.0


def test_somebody_elses_shutdown_is_recovered_from(load_nvml, world):
    library = load_nvml(TWO_GPUS)
    device = world.device()
    device.figures(0, None)
    library.nvmlShutdown()
    assert device.figures(0, None).errors == {"driver": "Uninitialized"}
    world.clock.now_s += 1.0
    assert device.figures(0, None).errors == {}


def test_a_driver_that_is_not_loaded_yet_is_found_later(load_nvml):
    load_nvml(TWO_GPUS + "error nvmlInitWithFlags 9 0 1\n")
    nvml = find_nvml(StillClock())
    assert nvml.gpus == ()
    assert nvml.problem
    assert nvml.source("GPU-bbbb").figures(0, None).used_bytes == 7


def test_listing_without_a_driver_raises_what_the_caller_expects(load_nvml, world):
    load_nvml("error nvmlInitWithFlags 9 0 0\n")
    with pytest.raises(ProbeUnavailableError):
        list_gpus(world.session)


REFUSALS = [
    # (function, code, figure, reason, why)
    (MEMORY, 3, "memory", "Not Supported", "unified memory (GB10) has no memory figure"),
    ("nvmlDeviceGetUtilizationRates", 3, "utilization", "Not Supported", "an old GPU"),
    ("nvmlDeviceGetPowerUsage", 4, "power", "Insufficient Permissions", "a locked-down machine"),
    ("nvmlDeviceGetTemperature", 999, "temperature", "Unknown Error", "a fault of its own"),
    (
        "nvmlDeviceGetComputeRunningProcesses_v3",
        4,
        "processes",
        "Insufficient Permissions",
        "processes hidden",
    ),
]


@pytest.mark.parametrize(("function", "code", "figure", "reason", "why"), REFUSALS)
def test_one_refused_figure_leaves_the_others(
    load_nvml, world, *, function, code, figure, reason, why
):
    load_nvml(TWO_GPUS + f"error {function} {code} 0 0\n")
    figures = world.device().figures(0, None)
    assert figures.errors == {figure: reason}, why
    known = {
        "memory": figures.used_bytes,
        "utilization": figures.utilization_percent,
        "temperature": figures.temperature_c,
        "power": figures.power_w,
    }
    assert {name for name, value in known.items() if value is None} == {figure} & set(known)


def test_an_old_driver_is_asked_in_its_own_way(load_nvml, world):
    library = load_nvml(TWO_GPUS + "process GPU-aaaa 4242 90 compute\n", driver="old")
    figures = world.device().figures(80, None)
    assert figures.used_bytes == 100 + MiB, "version 1 counts what the driver keeps"
    assert (figures.process_bytes, figures.errors) == (90, {})
    assert library.fake_nvml_calls(b"nvmlDeviceGetComputeRunningProcesses_v2") > 0


PROCESSES = [
    # (process lines, torch reserved, own bytes, processes listed, why)
    ([], 0, None, [], "nobody"),
    (["4242 90 compute", "7 20 compute"], 80, 90, [(ME, 90), (7, 20)], "largest first"),
    (["4242 90 compute", "4242 90 graphics"], 80, 90, [(ME, 90)], "on both lists, counted once"),
    (["4242 10 compute"], 80, None, [(ME, 10)], "less than torch holds: not us"),
    (["4242 - compute", "7 - graphics"], 80, None, [(ME, None), (7, None)], "WDDM does not tell"),
    (["7 20 compute"], 80, None, [(7, 20)], "we are not on the list: a container"),
]


@pytest.mark.parametrize(("lines", "reserved", "own", "listed", "why"), PROCESSES)
def test_whose_memory_it_is(load_nvml, world, *, lines, reserved, own, listed, why):
    load_nvml(TWO_GPUS + "".join(f"process GPU-aaaa {line}\n" for line in lines))
    figures = world.device().figures(reserved, None)
    assert figures.process_bytes == own, why
    assert [(use.pid, use.used_bytes) for use in figures.processes] == listed, why


def test_other_processes_are_named_unless_their_ids_are_another_namespaces(load_nvml):
    world = World(names={ME: "python", 7: "blender"})
    load_nvml(TWO_GPUS + "process GPU-aaaa 7 20 graphics\nprocess GPU-aaaa 4242 90 compute\n")
    assert world.device().figures(80, None).processes == (
        ProcessUse(ME, 90, "python"),
        ProcessUse(7, 20, "blender"),
    )
    load_nvml(TWO_GPUS + "process GPU-aaaa 7 20 compute\n")
    container = World(names={7: "a different process with this id"})
    assert container.device().figures(80, None).processes == (ProcessUse(7, 20, None),)


def test_between_two_lists_our_figure_moves_with_what_we_are_known_to_hold(load_nvml, world):
    load_nvml(TWO_GPUS + "process GPU-aaaa 4242 90 compute\n")
    device = world.device()
    assert device.figures(80, 5).process_bytes == 90
    world.clock.now_s = 0.1
    assert device.figures(180, 5).process_bytes == 190, "torch took 100 more"
    assert device.figures(180, 15).process_bytes == 200, "and 10 outside torch"
    world.clock.now_s = 0.6
    assert device.figures(85, 0).process_bytes == 90, "asked again"


def test_closing_undoes_the_initialisation_once(load_nvml, world):
    library = load_nvml(TWO_GPUS)
    first, second = world.device("GPU-aaaa"), world.device("GPU-bbbb")
    first.figures(0, None)
    second.figures(0, None)
    first.close()
    second.close()
    assert library.fake_nvml_calls(b"nvmlInitWithFlags") == 1
    assert library.fake_nvml_calls(b"nvmlShutdown") == 1
