"""The bound: what measured decodes say about the next one. Rows are sentences."""

import math
from dataclasses import replace

import pytest
from support.bounds import PLAIN, POLICY, WIDE, image, video

from vram_supervisor.supervisor.planning.calibration import (
    Calibration,
    Measurement,
    PieceShape,
    bound_bytes,
)
from vram_supervisor.supervisor.units import GiB, MiB

NAN_BASE = replace(image(64, GiB, 1.2), base_bytes=math.nan)
NAN_MEASURED = replace(image(64, GiB, 1.2), measured_bytes=math.nan)
HUGE_MEASURED = replace(image(64, GiB, 1.2), measured_bytes=10**400)

RATIOS = [
    ("nothing measured and no prior: the ratio for unknown families", [], None, "prior", 2.5),
    ("nothing measured: the prior as it is, for it errs upwards already", [], 1.3, "prior", 1.3),
    ("a prior of NaN is not believed", [], math.nan, "prior", 2.5),
    ("a prior of 0 is not believed", [], 0.0, "prior", 2.5),
    ("a prior without end is not believed", [], math.inf, "prior", 2.5),
    (
        "one measured shape: its ratio and the first margin, whatever the prior",
        [image(64, GiB, 1.2)],
        2.0,
        "measured",
        1.2 * 1.03,
    ),
    (
        "two shapes: the larger ratio, and a smaller margin",
        [image(64, GiB, 1.2), image(96, 2 * GiB, 1.1)],
        2.0,
        "measured",
        1.2 * (1.03 - 0.02 / 7),
    ),
    (
        "a later smaller ratio lowers nothing",
        [image(64, GiB, 1.2, time_s=1), image(64, GiB, 1.1, time_s=2)],
        None,
        "measured",
        1.2 * 1.03,
    ),
    (
        "eight shapes: the smallest margin",
        [image(64 + n, GiB + n, 1.2) for n in range(8)],
        None,
        "measured",
        1.2 * 1.01,
    ),
    (
        "more shapes than eight: no smaller margin",
        [image(64 + n, GiB + n, 1.2) for n in range(30)],
        None,
        "measured",
        1.2 * 1.01,
    ),
    (
        "repeats of one shape are no further shapes",
        [image(64, GiB, 1.2, time_s=n) for n in range(30)],
        None,
        "measured",
        1.2 * 1.03,
    ),
    (
        "exactly eight times a measured base is still near",
        [image(64, GiB // 4, 1.2)],
        2.0,
        "measured",
        1.2 * 1.03,
    ),
    (
        "more than eight times a measured base: the prior, where it is larger",
        [image(64, GiB // 4 - MiB, 1.2)],
        2.0,
        "extrapolated",
        2.0,
    ),
    (
        "more than eight times a measured base: the measured ratio, where it is larger",
        [image(64, GiB // 4 - MiB, 1.9)],
        1.5,
        "extrapolated",
        1.9 * 1.03,
    ),
    (
        "exactly a sixteenth of a measured base is still near",
        [image(64, 32 * GiB, 1.2)],
        2.0,
        "measured",
        1.2 * 1.03,
    ),
    (
        "less than a sixteenth: the prior, where it is larger",
        [image(64, 33 * GiB, 1.2)],
        2.0,
        "extrapolated",
        2.0,
    ),
    (
        "one near shape is enough, and far ones still count",
        [image(64, 32 * MiB, 1.5), image(96, GiB, 1.2)],
        None,
        "measured",
        1.5 * (1.03 - 0.02 / 7),
    ),
    (
        "a failed allocation raises the prior",
        [image(64, GiB, 3.0, failed=True)],
        1.5,
        "prior",
        3.0 * 1.03,
    ),
    (
        "a failed allocation below the prior changes nothing",
        [image(64, GiB, 0.1, failed=True)],
        1.5,
        "prior",
        1.5,
    ),
    (
        "a failed allocation raises the measured ratio",
        [image(64, GiB, 1.2), image(96, 2 * GiB, 1.4, failed=True)],
        None,
        "measured",
        1.4 * 1.03,
    ),
    (
        "a figure that is only a lower bound never lowers",
        [image(64, GiB, 1.2), image(96, 2 * GiB, 0.7, exact=False)],
        None,
        "measured",
        1.2 * 1.03,
    ),
    (
        "a figure that is only a lower bound does not make a key warm",
        [image(96, 2 * GiB, 0.7, exact=False)],
        1.3,
        "prior",
        1.3,
    ),
    (
        "a failed allocation far away raises nothing",
        [image(8, 32 * MiB, 3.0, failed=True)],
        1.5,
        "prior",
        1.5,
    ),
    ("a base of 0 is left out", [image(64, GiB, 1.2), Measurement(1, None, 1, 1, 0, 9)], 2.0,
     "measured", 1.2 * 1.03),
    ("a base of NaN is left out", [NAN_BASE], 1.3, "prior", 1.3),
    ("a measured NaN is left out", [NAN_MEASURED], 1.3, "prior", 1.3),
    ("a measured figure beyond all memory is left out", [HUGE_MEASURED], 1.3, "prior", 1.3),
    ("a negative figure is left out", [image(64, GiB, -1.0)], 1.3, "prior", 1.3),
    ("a ratio above 20 is left out", [image(64, GiB, 20.5)], 1.3, "prior", 1.3),
    ("a ratio below 0.2 is left out", [image(64, GiB, 0.19)], 1.3, "prior", 1.3),
    ("a failed allocation 20 times too large is left out",
     [image(64, GiB, 20.5, failed=True)], 1.3, "prior", 1.3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("measurements", "prior", "source", "factor"),
    [row[1:] for row in RATIOS],
    ids=[row[0] for row in RATIOS],
)
def test_a_shape_that_was_not_measured(measurements, prior, source, factor):
    base_bytes = 2 * GiB
    found = bound_bytes(base_bytes, measurements, prior, policy=PLAIN)
    assert found.source == source
    assert found.bytes == pytest.approx(base_bytes * factor, rel=1e-6)
    assert found.bytes >= base_bytes * found.ratio


SAME = [
    (
        "the very shape: its largest figure and a small margin",
        [video(9, 60, 104, GiB, 1.17), video(9, 60, 104, GiB, 1.15), video(9, 30, 52, GiB, 1.4)],
        WIDE,
        1.17 * 1.01,
    ),
    (
        "another shape of the same base: by ratio",
        [video(9, 60, 104, GiB, 1.17)],
        PieceShape(1, 9, 104, 60),
        1.17 * 1.03,
    ),
    (
        "an image is not the clip of the same size",
        [image(60, GiB, 1.17)],
        PieceShape(1, 1, 60, 60),
        1.17 * 1.03,
    ),
    (
        "another batch is another shape",
        [video(9, 60, 104, GiB, 1.17)],
        WIDE._replace(batch=2),
        1.17 * 1.03,
    ),
    (
        "the same shape decoded in another way, as its base tells: by ratio",
        [video(9, 60, 104, GiB // 2, 1.17)],
        WIDE,
        1.17 * 1.03,
    ),
    (
        "a base that changed by a hair is the same way, and scales",
        [video(9, 60, 104, GiB * 1000 // 1002, 1.17)],
        WIDE,
        1.17 * 1.01,
    ),
    (
        "a failed allocation of this shape above its largest figure",
        [video(9, 60, 104, GiB, 1.17), video(9, 60, 104, GiB, 1.3, failed=True)],
        WIDE,
        1.3 * 1.03,
    ),
    (
        "a failed allocation of this shape below its largest figure",
        [video(9, 60, 104, GiB, 1.17), video(9, 60, 104, GiB, 0.9, failed=True)],
        WIDE,
        1.17 * 1.01,
    ),
    (
        "a smaller shape failed at more than this one took",
        [video(9, 60, 104, GiB, 1.17), video(5, 60, 100, GiB * 9 // 10, 1.5, failed=True)],
        WIDE,
        0.9 * 1.5 * 1.03,
    ),
    (
        "a shape failed that is smaller in one dimension only",
        [video(9, 60, 104, GiB, 1.17), video(5, 61, 100, GiB * 9 // 10, 1.5, failed=True)],
        WIDE,
        1.17 * 1.01,
    ),
    (
        "an image failed: that says nothing of the clip's own figure",
        [video(9, 60, 104, GiB, 1.17), image(60, GiB, 1.5, failed=True)],
        WIDE,
        1.17 * 1.01,
    ),
    (
        "this shape failed when decoded in a way that takes far more: not this way's bound",
        [video(9, 60, 104, GiB, 1.17), video(9, 60, 104, 9 * GiB, 1.5, failed=True)],
        WIDE,
        1.17 * 1.01,
    ),
]


@pytest.mark.parametrize(
    ("measurements", "shape", "factor"), [row[1:] for row in SAME], ids=[row[0] for row in SAME]
)
def test_a_shape_that_is_known(measurements, shape, factor):
    found = bound_bytes(GiB, measurements, 2.0, shape=shape, policy=PLAIN)
    assert found.source == "measured"
    assert found.bytes == pytest.approx(GiB * factor, rel=1e-6)


@pytest.mark.parametrize("ratio", [1.05, 1.692, 3.0])
@pytest.mark.parametrize("shape", [None, PieceShape(1, None, 64, 64)])
def test_a_warm_bound_is_never_below_what_was_measured(ratio, shape):
    measured = image(64, 987_654_321, ratio)
    found = bound_bytes(measured.base_bytes, [measured], None, shape=shape, policy=PLAIN)
    assert found.bytes > measured.measured_bytes


def test_measuring_another_shape_never_lowers_the_ratio():
    known = [image(64, GiB, 1.69)]
    before = bound_bytes(GiB, known, 2.0, policy=POLICY).ratio
    for edge, ratio in ((70, 1.2), (80, 1.69), (90, 0.5)):
        known.append(image(edge, GiB, ratio))
        assert bound_bytes(GiB, known, 2.0, policy=POLICY).ratio >= before


def test_the_nearest_shapes_alone_can_be_asked():
    """Sorted by how many times larger or smaller their base is, repeats counted once."""
    known = [
        image(16, 128 * MiB, 1.9),
        image(64, 2 * GiB, 1.2, time_s=1),
        image(64, 2 * GiB, 1.1, time_s=2),
        image(90, 4 * GiB, 1.3),
    ]
    ratios = [
        bound_bytes(2 * GiB, known, None, policy=replace(POLICY, nearest=count)).ratio
        for count in (0, 1, 2, 3, None)
    ]
    assert ratios == [pytest.approx(each, rel=1e-6) for each in (1.2, 1.2, 1.3, 1.9, 1.9)]


def test_small_decodes_get_a_constant_more():
    policy = POLICY
    measured = [image(8, MiB, 1.5)]
    for known, prior in ((measured, None), ([], 1.5)):
        with_it = bound_bytes(MiB, known, prior, policy=policy).bytes
        assert with_it - bound_bytes(MiB, known, prior, policy=PLAIN).bytes == 8 * MiB


REASONS = [
    ("cold", [], 1.3, None, "1.3 x the dry run, the family's prior"),
    ("unknown", [], None, None, "2.5 x the dry run, the ratio for unknown families"),
    ("warm", [image(64, GiB, 1.2)], None, None,
     "1.2 x the dry run, the largest of 1 measured size(s), + 3.0%"),
    ("same", [image(64, GiB, 1.25)], None, PieceShape(1, None, 64, 64),
     "measured at this size: 1.2 GiB"),
    ("far", [image(8, MiB, 1.2)], 1.3, None,
     "1.3 x the dry run, the family's prior; far from every measured size"),
    ("left out", [image(64, GiB, 30), image(65, GiB, 40)], 1.3, None,
     "1.3 x the dry run, the family's prior; left out: 2 x a ratio above 20"),
    ("failed", [image(64, GiB, 2.0, failed=True)], 1.3, None,
     "2 x the dry run, what a decode is known to exceed, + 3.0%"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("known", "prior", "shape", "reason"),
    [row[1:] for row in REASONS],
    ids=[row[0] for row in REASONS],
)
def test_the_reason_is_one_line(known, prior, shape, reason):
    assert bound_bytes(GiB, known, prior, shape=shape, policy=POLICY).reason == reason


def test_many_questions_give_what_one_does():
    known = [image(64, GiB, 1.2), image(96, 2 * GiB, 1.4, failed=True), image(8, MiB, 99)]
    prepared = Calibration(known, 1.3, POLICY)
    assert prepared.is_warm
    assert not Calibration([known[1]], 1.3).is_warm
    for base_bytes in (MiB, GiB, 3 * GiB, 90 * GiB):
        for shape in (None, PieceShape(1, None, 64, 64), PieceShape(1, None, 100, 100)):
            assert prepared.bound(base_bytes, shape) == bound_bytes(
                base_bytes, known, 1.3, shape=shape, policy=POLICY
            )
