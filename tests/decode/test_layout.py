"""Layouts keep to the budget, whatever it is, and cost less the more of it there is."""

from fractions import Fraction
from functools import cache
from itertools import pairwise

import pytest

pytest.importorskip("torch")

from vram_supervisor.supervisor.decode import layout_bands
from vram_supervisor.supervisor.decode.layout import lay_out, least_bytes, with_halo
from vram_supervisor.supervisor.decode.survey import (
    PhaseNeeds,
    StageNeeds,
    Survey,
)

MIB = 1 << 20
BUDGETS = [1.0, 1.02, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 10, 20, 50, 200, 1000]


def stage(name, **how):
    """A stage of 128 channels of two bytes, whose work is four times its result."""
    facts = {
        "whole": False,
        "halo": 2,
        "align": 1,
        "scale_in": Fraction(1),
        "scale": Fraction(1),
        "fixed_bytes": 4096.0,
        "bytes_per_area": 1024.0,
        "in_bytes_per_area": 256.0,
        "out_bytes_per_area": 256.0,
        "carry_bytes_per_area": 0.0,
        "norms": 1,
        "ahead_bytes_per_area": 768.0,
    }
    return StageNeeds(name, **{**facts, **how})


def phase(*stages, chunks=1, in_bytes_per_area=32.0, scale_in=Fraction(1)):
    single = len(stages) == 1 and not stages[0].whole
    return PhaseNeeds(stages, single, chunks, in_bytes_per_area, scale_in)


def picture(height=128, width=96):
    """Like an image decoder: a middle seen whole, then twice the size, then pixels."""
    two = Fraction(2)
    larger = {"scale": two, "out_bytes_per_area": 1024.0, "bytes_per_area": 2560.0}
    return Survey(
        (
            phase(
                stage("middle", whole=True, in_bytes_per_area=32.0),
                stage("block"),
                stage("larger", norms=0, ahead_bytes_per_area=3072.0, **larger),
                stage("block 2", scale_in=two),
                stage("pixels", scale_in=two, halo=1, norms=0, out_bytes_per_area=6.0),
            ),
        ),
        height,
        width,
        channels=3,
    )


def clip(height=64, width=112):
    """Like a causal video decoder: the middle whole, then tiles through time."""
    middle = stage("middle", whole=True, in_bytes_per_area=64.0, norms=0)
    up = stage("up", halo=8, scale=Fraction(8), bytes_per_area=90_000.0, norms=0)
    return Survey(
        (
            phase(middle, chunks=5, in_bytes_per_area=320.0),
            phase(up, chunks=5, in_bytes_per_area=1280.0),
        ),
        height,
        width,
        channels=3,
    )


def carried(height=64, width=112):
    """Like a video decoder with norms over each frame: chunk by chunk, with memory."""
    two = Fraction(2)
    memory = {"carry_bytes_per_area": 512.0}
    return Survey(
        (
            phase(
                stage("middle", whole=True),
                stage("block", **memory),
                stage("larger", scale=two, out_bytes_per_area=1024.0, bytes_per_area=2560.0),
                stage("block 2", scale_in=two, **memory),
                stage("pixels", scale_in=two, out_bytes_per_area=12.0, **memory),
                chunks=4,
                in_bytes_per_area=1024.0,
            ),
        ),
        height,
        width,
        channels=3,
    )


def encoder(height=512, width=384):
    half = Fraction(1, 2)
    return Survey(
        (
            phase(
                stage("first", in_bytes_per_area=6.0),
                stage("down", halo=2, align=2, scale=half, out_bytes_per_area=64.0),
                stage("block", scale_in=half),
                stage("down again", scale_in=half, align=4, scale=half, out_bytes_per_area=16.0),
                in_bytes_per_area=6.0,
            ),
        ),
        height,
        width,
        channels=3,
    )


SURVEYS = {
    "picture": picture(),
    "wide picture": picture(40, 200),
    "clip": clip(),
    "tall clip": clip(112, 64),
    "carried": carried(),
    "encoder": encoder(),
    "odd encoder": encoder(509, 387),
    "one pixel": picture(1, 1),
}


@pytest.fixture(autouse=True)
def copies_leave_at_once(monkeypatch):
    """As they do on a CPU; what is on its way from a GPU is more than all that is laid out here."""
    monkeypatch.setattr(layout_bands, "LEAVING_BYTES", 0)


@pytest.fixture(params=sorted(SURVEYS))
def survey(request):
    return SURVEYS[request.param]


@cache
def least_of(survey):
    return least_bytes(survey)


@cache
def layouts(survey, **how):
    least = least_of(survey)
    return tuple((int(least * each), lay_out(survey, int(least * each), **how)) for each in BUDGETS)


def stages_of(survey):
    return {
        (number, index): each
        for number, phase in enumerate(survey.phases)
        for index, each in enumerate(phase.stages)
    }


def test_never_above_the_budget(survey):
    for budget_bytes, layout in layouts(survey):
        assert layout is not None
        assert layout.peak_bytes <= budget_bytes
        assert layout.resident_bytes <= budget_bytes


def test_every_stage_has_parts_of_whole_steps(survey):
    for _, layout in layouts(survey):
        assert set(layout.parts) == set(stages_of(survey))
        for key, each in stages_of(survey).items():
            height, width = (int(e * each.scale_in) for e in (survey.height, survey.width))
            rows, columns = layout.parts[key]
            assert rows >= height or (rows > 0 and rows % each.align == 0)
            assert columns >= width or (columns > 0 and columns % each.align == 0)
            if each.whole:
                assert rows >= height
                assert columns >= width


def test_nothing_below_the_least(survey):
    least = least_bytes(survey)
    assert lay_out(survey, least) is not None
    assert lay_out(survey, int(least * 0.95)) is None
    assert lay_out(survey, 1) is None
    assert lay_out(survey, 0) is None


def test_with_plenty_nothing_is_cut_nor_moved(survey):
    layout = lay_out(survey, 1 << 50)
    assert layout.overhead == pytest.approx(1.0)
    assert (layout.moved_bytes, layout.host_bytes) == (0, 0)
    assert layout.pieces == sum(len(phase.stages) * phase.chunks for phase in survey.phases)


def test_more_room_costs_less(survey):
    """Not at every step, for parts come in whole rows, but never much more."""
    found = [layout for _, layout in layouts(survey)]
    costs = [layout.overhead + layout.moved_bytes / work_bytes(survey) for layout in found]
    for smaller, larger in pairwise(costs):
        assert larger <= smaller * 1.1
    assert costs[-1] == min(costs)


def work_bytes(survey):
    return sum(
        each.bytes_per_area * int(survey.height * each.scale_in) * int(survey.width * each.scale_in)
        for each in stages_of(survey).values()
    )


def test_room_is_used():
    for survey in (SURVEYS["clip"], SURVEYS["picture"]):
        whole = lay_out(survey, 1 << 50).peak_bytes
        for budget_bytes, layout in layouts(survey):
            if 2 * least_of(survey) < budget_bytes < whole:
                assert layout.peak_bytes >= 0.8 * budget_bytes


@pytest.mark.parametrize("host", [0, 1 << 16, 1 << 18, 1 << 20, 1 << 22])
def test_no_more_waits_in_the_host_than_it_has(survey, host):
    for budget_bytes, layout in layouts(survey, host_bytes=host):
        if layout is not None:
            assert layout.host_bytes <= host
            assert layout.peak_bytes <= budget_bytes


def test_without_host_memory_more_of_the_device_is_needed():
    survey = SURVEYS["encoder"]
    tight = least_bytes(survey)
    assert lay_out(survey, tight).host_bytes > 0
    without = next(
        size for size in range(tight, 99 * tight, tight // 9) if lay_out(survey, size, 0)
    )
    assert without > 1.2 * tight
    assert lay_out(survey, without, 0).host_bytes == 0


@pytest.mark.parametrize("edge", [8, 16, 33, 64])
def test_an_edge_that_was_asked_for_is_kept_where_it_fits(survey, edge):
    for key, each in stages_of(survey).items():
        rows, columns = lay_out(survey, 1 << 50, fixed=edge).parts[key]
        height, width = (int(e * each.scale_in) for e in (survey.height, survey.width))
        asked = int(edge * each.scale_in)
        if each.whole:
            continue
        if asked < min(height, width):
            assert min(rows, columns) <= max(asked, each.align)
        if asked >= max(height, width):
            assert rows >= height
            assert columns >= width


def test_an_edge_that_does_not_fit_is_made_smaller(survey):
    for budget_bytes, layout in layouts(survey, fixed=1 << 20):
        assert layout.peak_bytes <= budget_bytes


def test_smaller_halos_make_less_work():
    survey = SURVEYS["clip"]
    cut = with_halo(survey, 0.5)
    assert [each.halo for phase in cut.phases for each in phase.stages] == [2, 4]
    budget_bytes = 2 * least_bytes(survey)
    assert lay_out(cut, budget_bytes).overhead < lay_out(survey, budget_bytes).overhead


def test_halos_of_bands_are_exact_and_stay():
    survey = SURVEYS["picture"]
    assert with_halo(survey, 0.5) == survey


def test_a_report_shows_the_last_stage():
    layout = lay_out(SURVEYS["picture"], 1 << 50)
    assert layout.largest == layout.parts[0, 4] == (256, 192)


def test_causal_memory_counts():
    """The same clip without memory fits into less."""
    survey = SURVEYS["carried"]
    assert lay_out(survey, 1 << 50).peak_bytes > MIB
    free = Survey(
        tuple(
            phase(
                *(stage_without_memory(each) for each in p.stages),
                chunks=p.chunks,
                in_bytes_per_area=p.in_bytes_per_area,
            )
            for p in survey.phases
        ),
        survey.height,
        survey.width,
        survey.channels,
    )
    assert lay_out(free, 1 << 50).peak_bytes < lay_out(survey, 1 << 50).peak_bytes


def stage_without_memory(each):
    from dataclasses import replace

    return replace(each, carry_bytes_per_area=0.0)
