"""Which devices ``CUDA_VISIBLE_DEVICES`` leaves, and NVML's names for CUDA's devices."""

import pytest

from vram_supervisor.supervisor.telemetry.probes.visible import Gpu, nvml_uuid, visible_uuids

A, B, AB = Gpu("GPU-aaaa-1"), Gpu("GPU-bbbb-2"), Gpu("GPU-aabb-3")
SPLIT = Gpu("GPU-cccc-4", is_mig=True, instances=("MIG-1111", "MIG-2222"))
EMPTY = Gpu("GPU-dddd-5", is_mig=True)

FORMS = [
    # (setting, GPUs, visible, why)
    (None, [A, B], ["GPU-aaaa-1", "GPU-bbbb-2"], "not set: all of them"),
    ("", [A, B], [], "empty: none"),
    ("-1", [A, B], [], "the usual way to hide all"),
    ("1,0", [A, B], ["GPU-bbbb-2", "GPU-aaaa-1"], "indexes, in the order given"),
    (" 1 , 0 ", [A, B], ["GPU-bbbb-2", "GPU-aaaa-1"], "blanks are ignored"),
    ("0,7,1", [A, B], ["GPU-aaaa-1"], "an index too high ends the list"),
    ("0,-1,1", [A, B], ["GPU-aaaa-1"], "so does a negative one"),
    ("0,0", [A, B], [], "a device named twice leaves none"),
    ("GPU-bbbb-2", [A, B], ["GPU-bbbb-2"], "a UUID"),
    ("GPU-bb", [A, B], ["GPU-bbbb-2"], "the beginning of one"),
    ("GPU-aa", [A, AB], [], "a beginning that fits two names neither"),
    ("GPU-ffff,0", [A, B], [], "an unknown UUID ends the list"),
    ("GPU-bb,0", [A, B], ["GPU-bbbb-2", "GPU-aaaa-1"], "mixed forms"),
    ("MIG-2222", [A, SPLIT], ["MIG-2222"], "one instance"),
    ("MIG-9", [A, SPLIT], [], "an instance that does not exist"),
    ("1", [A, SPLIT], ["MIG-1111", "MIG-2222"], "a split GPU stands for its instances"),
    (None, [EMPTY, A], ["GPU-aaaa-1"], "a split GPU without instances has nothing to use"),
    ("all", [A], [], "a word is no device"),
]


@pytest.mark.parametrize(("setting", "gpus", "expected", "why"), FORMS)
def test_visible_devices(setting, gpus, expected, why):
    assert list(visible_uuids(setting, gpus)) == expected, why


NAMES = [
    # (CUDA's UUID, setting, GPUs, NVML's UUID, why)
    (None, None, [A], None, "CUDA does not tell"),
    ("aaaa-1", None, [A, B], "GPU-aaaa-1", "CUDA leaves the prefix out"),
    ("GPU-bbbb-2", None, [A, B], "GPU-bbbb-2", "or not"),
    ("AAAA-1", None, [A, B], "GPU-aaaa-1", "letters may be large"),
    ("ffff-9", None, [], "GPU-ffff-9", "NVML did not answer yet: its form of the name"),
    ("2222", "MIG-2222", [SPLIT], "MIG-2222", "CUDA tells the instance"),
    ("cccc-4", "MIG-2222", [SPLIT], "MIG-2222", "CUDA tells the GPU, the setting the instance"),
    ("cccc-4", None, [SPLIT], "MIG-1111", "neither does: CUDA takes the first one"),
    ("dddd-5", None, [EMPTY], "GPU-dddd-5", "no instance at all: the GPU"),
]


@pytest.mark.parametrize(("cuda", "setting", "gpus", "expected", "why"), NAMES)
def test_nvmls_name(cuda, setting, gpus, expected, why):
    assert nvml_uuid(cuda, setting, gpus) == expected, why
