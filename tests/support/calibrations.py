"""Keys and measurements for calibration stores."""

from dataclasses import replace

from support.clock import EPOCH_S

from vram_supervisor.supervisor.planning.calibration import CalibrationKey, Measurement
from vram_supervisor.supervisor.units import GiB, KiB

KEY = CalibrationKey(
    "NVIDIA X", "570.1", "2.9", "91002", "native", "a1", "bf16", "pytorch", autotune=False
)
OTHER_KEY = replace(KEY, vae="b2")
DRY_RUN = "dry run"


def measured(edge=64, ratio=1.2, **more):
    return Measurement(1, None, edge, edge, GiB, int(GiB * ratio), **{"time_s": EPOCH_S, **more})


def edges(measurements):
    return [each.height for each in measurements]


def fill(store, clock, names, size_bytes=20 * KiB):
    for name in names:
        clock.now_s += 1
        store.remember(DRY_RUN, name, name.ljust(size_bytes, "."))


def corrupt_files(path):
    return sorted(each.name for each in path.parent.glob("*.corrupt-*"))
