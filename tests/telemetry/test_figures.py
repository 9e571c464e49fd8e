"""How the sources' figures become one reading."""

import pytest

from vram_supervisor.supervisor.telemetry.probes.figures import (
    DeviceFigures,
    combine,
    held_bytes,
    own_process_bytes,
    pids_are_ours,
)
from vram_supervisor.supervisor.telemetry.torch_memory import TorchFigures
from vram_supervisor.supervisor.types import ProcessUse

ME, OTHER = 100, 200

SPLITS = [
    # (used, process, torch reserved, known outside, outside torch, external, why)
    (90, 50, 40, None, 10, 40, "the driver tells all"),
    (90, 50, 40, 30, 10, 40, "what the driver counts beats what is known otherwise"),
    (90, None, 40, None, None, 50, "without it, external is used minus torch"),
    (90, None, 40, 20, None, 30, "and minus what is known outside torch"),
    (90, None, None, 20, None, 70, "without torch, minus what is known"),
    (90, None, None, None, None, None, "nothing known of us, nothing known of the others"),
    (None, 50, 40, None, 10, None, "the whole unknown, so are the others"),
    (90, 95, 97, None, 0, 0, "figures read at slightly different moments never go below zero"),
]


@pytest.mark.parametrize(
    ("used", "process", "reserved", "outside", "expected_outside", "external", "why"), SPLITS
)
def test_who_holds_what(*, used, process, reserved, outside, expected_outside, external, why):
    driver = DeviceFigures(used_bytes=used, process_bytes=process)
    reading = combine(driver, TorchFigures(1, reserved, 1), outside)
    assert (reading.outside_torch_bytes, reading.external_bytes) == (expected_outside, external), (
        why
    )


def test_missing_figures_are_named_in_one_line():
    driver = DeviceFigures(errors={"power": "Not Supported", "processes": "No Permission"})
    reading = combine(driver, TorchFigures(), None)
    assert reading.error == "power: Not Supported; processes: No Permission"
    assert combine(DeviceFigures(), TorchFigures(), None).error is None


OWN = [
    # (processes as pid -> bytes, torch reserved, own figure, names trusted, why)
    ({ME: 50, OTHER: 9}, 40, 50, True, "the figure covers what torch holds"),
    ({ME: 30, OTHER: 9}, 40, None, True, "a figure below torch's cannot be ours"),
    ({OTHER: 9}, 40, None, False, "we hold memory and are not listed: another namespace's ids"),
    ({OTHER: 9}, 0, None, True, "we hold nothing, so not being listed proves nothing"),
    ({ME: None}, 40, None, True, "the driver lists us without a figure (WDDM)"),
    ({ME: 50}, None, 50, True, "without torch the id is believed"),
    ({}, 40, None, False, "an empty list while we hold memory"),
]


@pytest.mark.parametrize(("uses", "reserved", "own", "trusted", "why"), OWN)
def test_which_process_is_ours(uses, reserved, own, trusted, why):
    processes = tuple(ProcessUse(pid, used) for pid, used in uses.items())
    assert own_process_bytes(processes, ME, reserved) == own, why
    assert pids_are_ours(processes, ME, reserved) is trusted, why


def test_what_is_known_to_be_held():
    assert held_bytes(7, 1, 1) == 7
    assert held_bytes(None, 3, 2) == 5
    assert held_bytes(None, 3, None) == 3
    assert held_bytes(None, None, 2) == 2
    assert held_bytes(None, None, None) is None
