"""What a reserve comes to: from how far others grew, never from ComfyUI's own models."""

import random
from dataclasses import replace

import pytest

from vram_supervisor.supervisor.planning.reserve import (
    SHRINK_PAUSE_S,
    SHRINK_STEP_BYTES,
    Ask,
    Facts,
    Growth,
    Held,
    decide,
    dynamic_headroom_bytes,
    growth,
    growths,
    kept_from_others_bytes,
    next_held,
    prior_bytes,
    system_name,
    uncounted_bytes,
    upper_quantile,
    window_s,
)
from vram_supervisor.supervisor.types import JobRecord, Reading
from vram_supervisor.supervisor.units import GiB, MiB

ADAPTIVE = Ask("adaptive", manual_bytes=9 * GiB)
CARD = 12 * GiB
SEEN = Growth(2 * GiB, 600, 60.0)
FEW = Growth(2 * GiB, 3, 60.0)
CALM = Growth(0, 600, 60.0)


def facts(**known):
    return Facts(**{"system": "Linux", "total_bytes": CARD, "host_bytes": 400 * MiB, **known})


@pytest.mark.parametrize(
    ("sentence", "ask", "known", "expected"),
    [
        ("others grew by 2 GiB: so much is left to them", ADAPTIVE, {"external": SEEN}, 2 * GiB),
        ("others never grew: the host's own reserve stays", ADAPTIVE, {"external": CALM},
         400 * MiB),
        ("what others hold already is none of it", ADAPTIVE,
         {"external": CALM, "external_bytes": 7 * GiB}, 400 * MiB),
        ("this process's own growth outside torch comes on top", ADAPTIVE,
         {"external": SEEN, "own": Growth(512 * MiB, 90, 60.0)}, 2 * GiB + 512 * MiB),
        ("where drivers move memory away, their margin too", ADAPTIVE,
         {"external": SEEN, "system": "Windows", "margin_bytes": 256 * MiB}, 2 * GiB + 256 * MiB),
        ("nothing is known: a guess", ADAPTIVE, {}, GiB),
        ("nothing is known on Windows: a larger guess", ADAPTIVE, {"system": "Windows"},
         int(1.25 * GiB)),
        ("little was seen, and it was more than the guess", ADAPTIVE, {"external": FEW}, 2 * GiB),
        ("little was seen, and it was less than the guess", ADAPTIVE,
         {"external": Growth(0, 3, 60.0)}, GiB),
        ("the guess is no more than an eighth of a small card", ADAPTIVE,
         {"total_bytes": 4 * GiB}, 512 * MiB),
        ("never more than a quarter of the card", ADAPTIVE,
         {"external": Growth(9 * GiB, 600, 60.0)}, 3 * GiB),
        ("never more than the maximum", Ask("adaptive", 0, max_bytes=GiB), {"external": SEEN}, GiB),
        ("a user's --reserve-vram stands, even above both", Ask("adaptive", 0, max_bytes=GiB),
         {"external": SEEN, "host_bytes": 5 * GiB}, 5 * GiB),
        ("figures are rounded up so that they hold still", ADAPTIVE,
         {"external": Growth(GiB + 1, 600, 60.0)}, GiB + 64 * MiB),
        ("auto_used_plus: others' memory plus the headroom", Ask("auto_used_plus", 0, GiB),
         {"external_bytes": 3 * GiB}, 4 * GiB),
        ("its headroom may be negative", Ask("auto_used_plus", 0, -GiB),
         {"external_bytes": 3 * GiB}, 2 * GiB),
        ("but not the reserve", Ask("auto_used_plus", 0, -2 * GiB),
         {"external_bytes": GiB, "host_bytes": 0}, 0),
        ("its maximum caps it", Ask("auto_used_plus", 0, GiB, 2 * GiB),
         {"external_bytes": 3 * GiB}, 2 * GiB),
        ("unknown use: a guess for it", Ask("auto_used_plus", 0, GiB), {}, GiB),
        ("manual is as given, whatever others do", Ask("manual", 2 * GiB), {"external": SEEN},
         2 * GiB),
        ("manual may go below the host's own", Ask("manual", 0), {}, 0),
    ],
)  # fmt: skip
def test_reserve(sentence, ask, known, expected):
    assert decide(ask, facts(**known)).reserve_bytes == expected


@pytest.mark.parametrize(
    ("ask", "known", "words"),
    [
        (ADAPTIVE, {}, "a guess for Linux"),
        (ADAPTIVE, {"external": FEW}, "3 of 30 windows"),
        (ADAPTIVE, {"external": SEEN}, "grew by no more"),
        (ADAPTIVE, {"external": SEEN}, "not measured here"),
        (Ask("auto_used_plus", 0, GiB), {"external_bytes": GiB}, "own models twice"),
        (Ask("adaptive", 0, max_bytes=GiB), {"external": SEEN}, "reserved_vram_auto_max_gb"),
        (ADAPTIVE, {"external": CALM}, "host's own"),
        (ADAPTIVE, {"system": "WSL", "margin_bytes": GiB}, "driver on WSL moves nothing"),
    ],
)
def test_the_report_says_where_it_comes_from(ask, known, words):
    assert words in "\n".join(decide(ask, facts(**known)).why)


def test_growth_is_the_highest_rise_within_each_window():
    chance = random.Random(5)
    for _ in range(60):
        seconds = sorted(chance.sample(range(80), 25))
        points = [(float(second), chance.randint(0, 40)) for second in seconds]
        length = chance.randint(1, 30)
        expected = [
            max(value for at, value in points[i:] if at <= start + length) - first
            for i, (start, first) in enumerate(points)
        ]
        whole = [
            rise
            for rise, (start, _) in zip(expected, points, strict=True)
            if start + length <= points[-1][0]
        ]
        assert growths(points, length, unfinished=True) == expected[::-1]
        assert growths(points, length) == whole[::-1]


@pytest.mark.parametrize(
    ("sentence", "values", "quantile", "enough"),
    [
        ("calm for minutes", [5] * 400, 0, True),
        ("one jump lately is within the quantile", [0] * 200 + [2 * GiB] * 30, 2 * GiB, True),
        ("what goes up for seconds counts while it comes back", [0, 0, 0, GiB, 0] * 60, GiB, True),
        ("going down is no growth", [GiB] * 100 + [0] * 100, 0, True),
        ("few seconds: the most seen", [0] * 10 + [GiB] * 10, GiB, False),
        ("one second", [GiB], 0, False),
    ],
)
def test_growth_within_twenty_seconds(sentence, values, quantile, enough):
    found = growth([(float(second), value) for second, value in enumerate(values)], 20.0)
    assert (found.quantile_bytes, found.is_enough) == (quantile, enough)


def test_what_happened_long_ago_is_forgotten():
    values = [0] * 10 + [GiB] * 3 + [0] * 600
    found = growth([(float(second), value) for second, value in enumerate(values)], 20.0)
    assert found.quantile_bytes == 0


def test_nothing_seen_is_no_growth_of_anybody():
    assert growth([], 20.0) == Growth(0, 0, 20.0)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.0, 1)])
def test_quantile_is_a_value_that_was_seen(share, expected):
    assert upper_quantile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], share) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [([], 60.0), ([40, 50, 900], 50.0), ([1, 1], 20.0), ([5000], 300.0)],
)
def test_a_window_is_as_long_as_a_typical_job(seconds, expected):
    jobs = [JobRecord("a", 100.0, 100.0 + each, "success") for each in seconds]
    failed = [JobRecord("b", 0.0, 7.0, "error"), JobRecord("c", 0.0)]
    assert window_s([*jobs, *failed]) == expected


@pytest.mark.parametrize(
    ("sentence", "held", "needed", "wanted", "now", "expected"),
    [
        ("grows at once, however little", GiB, 0.0, GiB + 1, 0.1, (GiB + 1, 0.1)),
        ("a small surplus stays for good", GiB, 0.0, GiB - SHRINK_STEP_BYTES, 999.0, (GiB, 999.0)),
        ("a large surplus stays for a while", GiB, 0.0, 0, SHRINK_PAUSE_S - 0.1, (GiB, 0.0)),
        ("then a step of it goes", GiB, 0.0, 0, SHRINK_PAUSE_S,
         (GiB - SHRINK_STEP_BYTES, SHRINK_PAUSE_S)),
    ],
)  # fmt: skip
def test_while_the_job_runs(sentence, held, needed, wanted, now, expected):
    assert next_held(Held(held, needed), wanted, now) == Held(*expected)


def test_a_swing_does_not_make_the_figure_swing():
    held, changes = Held(0, 0.0), 0
    for tenth in range(600):
        after = next_held(held, (2 * GiB) if tenth % 40 < 20 else GiB, tenth / 10)
        changes += after.held_bytes != held.held_bytes
        held = after
    assert held.held_bytes == 2 * GiB
    assert changes == 1


ROOMY = Reading(free_bytes=6 * GiB, used_bytes=6 * GiB, torch_reserved_bytes=GiB,
                torch_allocated_bytes=GiB, external_bytes=4 * GiB)  # fmt: skip
CACHED = replace(ROOMY, free_bytes=GiB, torch_reserved_bytes=4 * GiB)


@pytest.mark.parametrize(
    ("sentence", "mode", "reserve", "reading", "uncounted", "expected"),
    [
        ("what others hold is on the card already", "adaptive", 2 * GiB, ROOMY, 5 * GiB, 7 * GiB),
        ("unknown: the reserve alone", "adaptive", 2 * GiB, Reading(), 0, 2 * GiB),
        ("torch's unused cache keeps some of it from others", "adaptive", 2 * GiB, CACHED, GiB,
         4 * GiB),
        ("used plus has others in it; this process's context is not", "auto_used_plus", 6 * GiB,
         ROOMY, 5 * GiB, 7 * GiB),
        ("manual as --reserve-vram", "manual", 2 * GiB, ROOMY, 5 * GiB, 2 * GiB),
    ],
)  # fmt: skip
def test_headroom_counts_from_the_whole_card(sentence, mode, reserve, reading, uncounted, expected):
    decision = decide(Ask("manual", reserve), facts())
    assert dynamic_headroom_bytes(decision, mode, reading, 0, uncounted) == expected


@pytest.mark.parametrize(
    ("sentence", "reading", "kept"),
    [
        ("enough is free", replace(CACHED, free_bytes=2 * GiB), 0),
        ("the cache keeps what is missing", CACHED, GiB),
        ("it cannot keep more than it has", replace(CACHED, torch_allocated_bytes=4 * GiB - 1), 1),
        ("unknown", Reading(free_bytes=0), 0),
    ],
)
def test_kept_from_others(sentence, reading, kept):
    assert kept_from_others_bytes(reading, 2 * GiB) == kept


@pytest.mark.parametrize(
    ("reading", "streamed", "expected"),
    [
        (Reading(used_bytes=9, torch_reserved_bytes=4), 2, 3),
        (Reading(used_bytes=9, torch_reserved_bytes=4), None, 5),
        (Reading(used_bytes=9, torch_reserved_bytes=12), 2, 0),
        (Reading(used_bytes=9), 2, None),
        (Reading(torch_reserved_bytes=9), 2, None),
    ],
)
def test_uncounted(reading, streamed, expected):
    assert uncounted_bytes(reading, streamed) == expected


def test_systems_and_guesses():
    assert system_name("Linux", "5.15.90.1-microsoft-standard-WSL2") == "WSL"
    assert system_name("Linux", "6.8.0-generic") == "Linux"
    assert system_name("Windows", "11") == "Windows"
    assert prior_bytes("WSL", None) > prior_bytes("Linux", None)
