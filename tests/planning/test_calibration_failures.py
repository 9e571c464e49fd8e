"""The bound after failed allocations, and without usable figures."""

import math

import pytest
from support.bounds import PLAIN, POLICY, WIDE, image, video

from vram_supervisor.supervisor.planning.calibration import (
    NO_FIGURE_BYTES,
    PieceShape,
    bound_bytes,
)
from vram_supervisor.supervisor.units import GiB, MiB


@pytest.mark.parametrize("prior", [None, 1.1])
@pytest.mark.parametrize("ratio", [0.3, 1.0, 1.7, 19.0])
@pytest.mark.parametrize("base_bytes", [1, 3 * MiB, 7 * GiB, 1 << 50])
def test_a_failed_allocation_is_always_exceeded(base_bytes, ratio, prior):
    """At its own shape and at every larger one, however little is added."""
    failed = video(9, 60, 104, base_bytes, ratio, failed=True)
    for shape in (WIDE, WIDE._replace(frames=10), PieceShape(2, 20, 61, 200)):
        found = bound_bytes(base_bytes, [failed], prior, shape=shape, policy=PLAIN)
        assert found.bytes > failed.measured_bytes


def test_a_cold_key_knows_a_failed_shape():
    failed = image(64, GiB // 100, 9.0, failed=True)
    shape = PieceShape(1, None, 80, 80)
    found = bound_bytes(GiB // 100, [failed], 1.5, shape=shape, policy=PLAIN)
    assert found.bytes > failed.measured_bytes
    assert found.source == "prior"


@pytest.mark.parametrize("base_bytes", [0, -5, math.nan, math.inf, 10**400])
def test_a_dry_run_without_a_figure_fits_nowhere(base_bytes):
    found = bound_bytes(
        base_bytes, [image(64, GiB, 1.2)], 1.3, shape=PieceShape(1, None, 65, 64), policy=POLICY
    )
    assert found.bytes == NO_FIGURE_BYTES
    assert "no usable figure" in found.reason


def test_a_dry_run_without_a_figure_for_a_measured_shape():
    known = [image(64, GiB, 1.2), image(64, GiB, 1.3)]
    found = bound_bytes(0, known, 1.3, shape=PieceShape(1, None, 64, 64), policy=PLAIN)
    assert found.source == "measured"
    assert found.bytes == pytest.approx(1.3 * 1.03 * GiB, rel=1e-6)


def test_an_absurd_base_stays_a_number():
    assert bound_bytes(NO_FIGURE_BYTES - 1, [], 20.0, policy=POLICY).bytes == NO_FIGURE_BYTES


def test_a_ratio_that_is_not_believed_elsewhere_holds_where_it_was_measured():
    odd = image(64, MiB, 40)
    same = bound_bytes(MiB, [odd], 1.1, shape=PieceShape(1, None, 64, 64), policy=PLAIN)
    other = bound_bytes(2 * MiB, [odd], 1.1, shape=PieceShape(1, None, 96, 64), policy=PLAIN)
    assert same.bytes >= 40 * MiB
    assert other.bytes < 4 * MiB


def test_a_failed_allocation_far_above_the_prediction_is_not_forgotten():
    failed = image(64, MiB, 30, failed=True)
    found = bound_bytes(MiB, [failed], 1.1, shape=PieceShape(1, None, 64, 64), policy=PLAIN)
    assert found.bytes > 30 * MiB


def test_a_failure_is_refuted_by_a_later_decode_that_took_less():
    shape = PieceShape(1, None, 64, 64)
    failed = image(64, GiB, 3, failed=True, time_s=1)
    before, after = image(64, GiB, 1.1, time_s=0), image(64, GiB, 1.1, time_s=2)
    poisoned = bound_bytes(GiB, [before, failed], 1.1, shape=shape, policy=PLAIN)
    cleared = bound_bytes(GiB, [before, failed, after], 1.1, shape=shape, policy=PLAIN)
    assert poisoned.bytes > 3 * GiB
    assert cleared.bytes < 1.2 * GiB
