"""Traces of a card that is full: which of them mean that the driver moved memory away."""

import pytest

from vram_supervisor.supervisor.telemetry.spill import (
    SILENT_S,
    SpillDetector,
    SpillSample,
    can_spill,
    plan_margin_bytes,
    sample_of,
)
from vram_supervisor.supervisor.types import Reading
from vram_supervisor.supervisor.units import GiB, MiB

CARD = 12 * GiB
FULL = CARD - 100 * MiB


def trace(*parts):
    """Samples ten times a second: each part is (seconds, step seconds, figures)."""
    at, step, spent = 0.0, 0, 0.0
    for seconds, step_s, figures in parts:
        for _ in range(round(seconds * 10)):
            at, spent = round(at + 0.1, 3), round(spent + 0.1, 3)
            if step_s and spent >= step_s - 1e-9:
                step, spent = step + 1, 0.0
            yield at, step, figures


def warnings_of(*parts, node="3"):
    detector, found = SpillDetector(), []
    for at, step, figures in trace(*parts):
        running_s = detector.steps.look(at, node, step)
        known = {"total_bytes": CARD, "running_s": running_s, **figures}
        warning = detector.observe(SpillSample(at, **known))
        if warning is not None:
            found.append(warning)
    return found


def card(used, own=None, outside=None, shared=None):
    return {
        "used_bytes": used, "own_bytes": own, "outside_bytes": outside, "shared_bytes": shared,
    }  # fmt: skip


EASY, TIGHT = card(8 * GiB, 7 * GiB, GiB), card(FULL, 10 * GiB, 2 * GiB)


@pytest.mark.parametrize(
    ("sentence", "parts", "warned"),
    [
        ("room enough and even steps", [(20, 1.0, EASY)], 0),
        ("room enough: slow steps are something else", [(10, 1.0, EASY), (20, 5.0, EASY)], 0),
        ("full and even steps: it just fits", [(30, 1.0, TIGHT)], 0),
        ("full, and steps take five times as long", [(10, 1.0, EASY), (20, 5.0, TIGHT)], 1),
        ("full, and steps take twice as long, nothing grew", [(40, 1.0, TIGHT), (20, 2.0, TIGHT)],
         0),
        ("full, others grew, and steps take twice as long",
         [(10, 1.0, card(FULL, 11 * GiB, GiB)), (20, 2.2, TIGHT)], 1),
        ("a step that never ends is told of while it runs", [(8, 1.0, EASY), (4, 0, TIGHT)], 1),
        ("torch holds more than the card has in use", [(5, 1.0, card(FULL, 13 * GiB, 0))], 1),
        ("a little more is only two readings apart", [(5, 1.0, card(FULL, FULL + 64 * MiB, 0))], 0),
        ("full and the shared counter grows",
         [(5, 1.0, card(FULL, shared=0)), (5, 1.0, card(FULL, shared=GiB))], 1),
        ("the shared counter grows with room enough: pinned memory",
         [(5, 1.0, card(GiB, shared=0)), (5, 1.0, card(GiB, shared=GiB))], 0),
        ("what was shared all along is no growth", [(10, 1.0, card(FULL, shared=GiB))], 0),
        ("too few steps to compare with", [(3, 1.0, EASY), (9, 5.0, TIGHT)], 0),
        ("the first step loads the model", [(20, 9.0, TIGHT), (20, 1.0, TIGHT)], 0),
        ("nothing is known of the card", [(10, 1.0, {"total_bytes": None}), (20, 5.0, {})], 0),
        ("it is not told of at every sample", [(10, 1.0, EASY), (SILENT_S - 10, 5.0, TIGHT)], 1),
        ("but again when it goes on",
         [(10, 1.0, card(FULL, 13 * GiB)), (SILENT_S, 1.0, card(FULL, 13 * GiB))], 2),
    ],
)  # fmt: skip
def test_traces(sentence, parts, warned):
    assert len(warnings_of(*parts)) == warned


def test_the_warning_says_how_much_and_how_slow():
    (warning,) = warnings_of((10, 1.0, EASY), (8, 5.0, card(FULL, 13 * GiB, 0)))
    assert "1.1 GiB lie in shared system memory" in warning.text
    assert "No Sysmem Fallback" in warning.text
    (warning,) = warnings_of((10, 1.0, EASY), (20, 5.0, TIGHT))
    assert warning.spilled_bytes is None
    assert f"{warning.slower:.1f} times as long" in warning.text


def test_another_node_has_steps_of_its_own():
    detector = SpillDetector()
    for at in range(10):
        detector.steps.look(float(at), "sampler", at)
    assert detector.steps.usual_s() == 1.0
    assert detector.steps.look(10.0, "upscaler", 0) is None
    assert detector.steps.usual_s() is None
    assert detector.steps.look(11.0, None, 0) is None


@pytest.mark.parametrize(
    ("reading", "streamed", "own", "outside"),
    [
        (Reading(used_bytes=9, torch_reserved_bytes=4), 2, 6, 3),
        (Reading(used_bytes=9, torch_reserved_bytes=12), None, 12, 0),
        (Reading(used_bytes=9), 2, None, None),
    ],
)
def test_from_a_reading(reading, streamed, own, outside):
    sample = sample_of(reading, 1.0, streamed, None)
    assert (sample.own_bytes, sample.outside_bytes) == (own, outside)


@pytest.mark.parametrize(
    ("system", "total", "warned", "expected"),
    [
        ("Linux", CARD, False, 0),
        ("Linux", CARD, True, 0),
        ("Windows", 8 * GiB, False, 256 * MiB),
        ("WSL", 24 * GiB, False, int(24 * GiB * 0.02)),
        ("Windows", 24 * GiB, True, 2 * int(24 * GiB * 0.02)),
        ("Windows", None, False, 256 * MiB),
        ("Windows", 200 * GiB, False, GiB),
    ],
)
def test_margin(system, total, warned, expected):
    assert plan_margin_bytes(total, system, warned=warned) == expected
    assert can_spill(system) is (system != "Linux")
