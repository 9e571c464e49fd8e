"""How long a decode takes, learned from few measurements. Rows are sentences."""

import math
from dataclasses import replace

import pytest

from vram_supervisor.supervisor.planning.calibration import Measurement
from vram_supervisor.supervisor.planning.time_model import TimeModel, fit_time
from vram_supervisor.supervisor.units import GiB

PRIOR = TimeModel(
    per_pixel_s=1e-7,
    per_tile_s=0.02,
    per_moved_byte_s=1e-10,
    evict_per_byte_s=2e-10,
    reload_per_byte_s=3e-10,
    cpu_per_pixel_s=1e-5,
)
TRUTH = replace(PRIOR, per_pixel_s=5e-8, per_tile_s=0.08, per_moved_byte_s=1e-10)

WORK = [
    (60_000_000, 1, 0),
    (16_000_000, 1, 0),
    (80_000_000, 12, GiB),
    (90_000_000, 40, 2 * GiB),
    (2_000_000, 1, GiB),
    (75_000_000, 6, 0),
]
"""Pixels, tiles, moved bytes."""


def took(work, seconds, **more):
    pixels, tiles, moved_bytes = work
    given = {"seconds": seconds, "pixels": pixels, "tiles": tiles, "moved_bytes": moved_bytes}
    return Measurement(1, 9, 60, 104, 1000, 1200, **{**given, **more})


def runs(model, works=WORK, slower=1.0):
    return [took(work, model.decode_s(*work) * slower) for work in works]


def coefficients(model):
    return (model.per_pixel_s, model.per_tile_s, model.per_moved_byte_s)


def test_each_kind_of_work_has_its_time():
    assert PRIOR.decode_s(10_000_000) == pytest.approx(1.0 + 0.02)
    assert PRIOR.decode_s(10_000_000, 5, 10**9) == pytest.approx(1.0 + 0.1 + 0.1)
    assert PRIOR.evict_s(10**9) == pytest.approx(0.2)
    assert PRIOR.reload_s(10**9) == pytest.approx(0.3)
    assert PRIOR.cpu_s(1_000_000) == pytest.approx(10.0)


FINE = (60_000_000, 1, 0)

UNUSABLE = [
    ("nothing was measured", []),
    ("the time is unknown", [took(FINE, None)]),
    ("the pixels are unknown", [took(FINE, 1.0, pixels=None)]),
    ("the decode failed", [took(FINE, 1.0, failed=True)]),
    ("the time is 0", [took(FINE, 0.0)]),
    ("the time is NaN", [took(FINE, math.nan)]),
    ("the time never ends", [took(FINE, math.inf)]),
    ("the time is no time at all", [took(FINE, 1e-300)]),
    ("the time is longer than any decode", [took(FINE, 1e300)]),
    ("the time is negative", [took(FINE, -1.0)]),
    ("no pixel was decoded", [took(FINE, 1.0, pixels=0)]),
    ("no tile was decoded", [took(FINE, 1.0, tiles=0)]),
    ("less than nothing was moved", [took(FINE, 1.0, moved_bytes=-1)]),
]


@pytest.mark.parametrize("known", [row[1] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_the_prior_stays_when(known):
    assert fit_time(known, PRIOR) == PRIOR


@pytest.mark.parametrize("known", [row[1] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_the_others_count_when(known):
    good = runs(TRUTH)
    assert fit_time([*known, *good], PRIOR) == fit_time(good, PRIOR)


@pytest.mark.parametrize("work", WORK, ids=str)
@pytest.mark.parametrize("slower", [0.05, 0.5, 1.0, 7.0])
def test_one_measurement_scales_the_prior(work, slower):
    found = fit_time(runs(PRIOR, [work], slower), PRIOR)
    assert coefficients(found) == pytest.approx([c * slower for c in coefficients(PRIOR)])


def test_evicting_and_the_cpu_are_not_learned_from_decodes():
    found = fit_time(runs(PRIOR, slower=7.0), PRIOR)
    kept = (found.evict_per_byte_s, found.reload_per_byte_s, found.cpu_per_pixel_s)
    assert kept == (2e-10, 3e-10, 1e-5)


def test_a_figure_that_is_no_exact_peak_still_has_a_time():
    known = [took(FINE, 3.0, exact=False)]
    assert fit_time(known, PRIOR).decode_s(*FINE) == pytest.approx(3.0)


def test_several_measurements_tell_the_coefficients_apart():
    found = fit_time(runs(TRUTH), PRIOR)
    for work in [*WORK, (30_000_000, 20, 0), (100_000_000, 1, 3 * GiB)]:
        assert found.decode_s(*work) == pytest.approx(TRUTH.decode_s(*work), rel=0.05)
    assert found.per_tile_s / found.per_pixel_s > 3 * PRIOR.per_tile_s / PRIOR.per_pixel_s


def test_what_no_measurement_tells_apart_keeps_the_priors_proportions():
    """Ten tiles to every hundred million pixels, always: no fit could split their time."""
    known = runs(PRIOR, [(10**8 * n, 10 * n, 0) for n in (1, 2, 5)], slower=2.0)
    assert coefficients(fit_time(known, PRIOR)) == pytest.approx(
        [2 * c for c in coefficients(PRIOR)]
    )


OUTLIERS = [
    ("the first run tried out kernels", [took(WORK[0], TRUTH.decode_s(*WORK[0]) * 6)]),
    ("a run stood still for an hour", [took((16_000_001, 1, 0), 3600.0)]),
    ("a run shared the device for a while", [took((60_000_001, 1, 0), 7.0)]),
    ("a clock went wrong", [took((16_000_001, 1, 0), 1e-6)]),
    (
        "two runs out of eight were disturbed",
        [took((16_000_001, 1, 0), 30.0), took((60_000_001, 1, 0), 30.0)],
    ),
]


@pytest.mark.parametrize("odd", [row[1] for row in OUTLIERS], ids=[row[0] for row in OUTLIERS])
def test_outliers_are_left_out(odd):
    found = fit_time([*odd, *runs(TRUTH)], PRIOR)
    for work in WORK:
        assert found.decode_s(*work) == pytest.approx(TRUTH.decode_s(*work), rel=0.05)


def test_of_two_runs_of_the_same_decode_the_faster_one_counts():
    known = [took(FINE, 12.0), took(FINE, 3.0)]
    assert fit_time(known, PRIOR).decode_s(*FINE) == pytest.approx(3.0)


CONTRADICTIONS = [
    ("more tiles were faster", [took((10**8, 1, 0), 9.0), took((10**8, 50, 0), 2.0)]),
    ("more pixels were faster", [took((10**7, 1, 0), 9.0), took((10**9, 1, 0), 2.0)]),
    ("more copies were faster", [took((10**8, 1, 0), 9.0), took((10**8, 1, 90 * GiB), 2.0)]),
    ("everything at random", [took(*each) for each in zip(WORK, (9, 1, 5, 2, 7, 3), strict=True)]),
    ("times beyond belief", [took(FINE, 1e-5), took(WORK[1], 1e6), took(WORK[2], 1.0)]),
]


@pytest.mark.parametrize(
    "known", [row[1] for row in CONTRADICTIONS], ids=[row[0] for row in CONTRADICTIONS]
)
def test_every_coefficient_stays_above_nothing(known):
    found = fit_time(known, PRIOR)
    assert all(math.isfinite(each) and each > 0 for each in coefficients(found))


PRIORS = [
    ("nothing is known before", TimeModel(0, 0, 0, 0, 0, 0)),
    ("the prior is NaN", replace(PRIOR, per_pixel_s=math.nan)),
]


@pytest.mark.parametrize("prior", [row[1] for row in PRIORS], ids=[row[0] for row in PRIORS])
def test_a_prior_that_says_nothing_stays(prior):
    assert repr(fit_time(runs(TRUTH), prior)) == repr(prior)


def test_a_coefficient_the_prior_has_at_nothing_stays_there():
    free_copies = replace(PRIOR, per_moved_byte_s=0.0)
    known = runs(replace(TRUTH, per_moved_byte_s=0.0))
    found = fit_time(known, free_copies)
    assert found.per_moved_byte_s == 0
    assert found.decode_s(*FINE) == pytest.approx(TRUTH.decode_s(*FINE), rel=0.05)
