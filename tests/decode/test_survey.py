"""What a dry run of a program foresees is what running it takes."""

import json

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import (  # noqa: E402
    Clips,
    Encoder,
    Kl,
    chain,
    chunks_of,
    noise,
    run_whole,
    simple,
)

from vram_supervisor.supervisor.decode import layout_bands  # noqa: E402
from vram_supervisor.supervisor.decode.engine import Engine  # noqa: E402
from vram_supervisor.supervisor.decode.layout import lay_out, least_bytes  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.decode.survey import survey, survey_from_json  # noqa: E402
from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402
from vram_supervisor.supervisor.planning.workspace import CUDNN_LAYOUT, NO_WORKSPACE  # noqa: E402

CPU = torch.device("cpu")
STATISTICS_BYTES = 1024
"""Means and deviations of the few channels here, which no layout counts."""
PAGE_BYTES = 1 << 12
PICTURE, CLIP, STREAM, ENCODER = Kl(), Clips(), Clips(normed=False), Encoder()
MIDDLE = Kl(widths=(16, 8), blocks=1)
CASES = {
    "picture": (MIDDLE, Kl.program, (1, 4, 12, 20)),
    "encoder": (ENCODER, Encoder.program, (1, 3, 96, 128)),
    "clip in chunks": (CLIP, lambda net: net.program(chunks_of(1, 2)), (1, 4, 9, 40, 32)),
    "clip at once": (CLIP, Clips.program, (1, 4, 3, 40, 32)),
    "stream": (STREAM, lambda net: net.streamed(chunks_of(1, 2)), (1, 4, 9, 48, 32)),
    "stream at once": (STREAM, Clips.streamed, (1, 4, 9, 48, 32)),
}


def surveyed(name):
    network, build, shape = CASES[name]
    edges = (32, 48) if name == "encoder" else (16, 24)
    return survey(network, build, shape, torch.float32, NO_WORKSPACE, edges=edges)


@pytest.fixture(autouse=True)
def copies_leave_at_once(monkeypatch):
    """As they do on a CPU; what is on its way from a GPU is more than all that is laid out here."""
    monkeypatch.setattr(layout_bands, "LEAVING_BYTES", 0)


@pytest.fixture(scope="module", params=sorted(CASES))
def case(request):
    return request.param, surveyed(request.param)


class Laid:
    """A sizer that follows a layout."""

    def __init__(self, layout):
        self._layout = layout

    def part(self, phase, stage, height, width):
        return self._layout.parts.get((phase, stage), (height, width))

    def resident_bytes(self):
        return self._layout.resident_bytes

    def carried_bytes(self):
        return self._layout.carried_bytes


class Nowhere:
    """An Output that keeps nothing."""

    def has(self, rect):
        return False

    def write(self, first_frame, rect, made):
        pass

    def commit(self, first_frame, frames, rect):
        pass


def measured(name, layout):
    """Peak bytes of live tensors of a run on the CPU, host pages not counted."""
    network, build, shape = CASES[name]
    pages = HostPages(PAGE_BYTES, locks=False)
    # Made before anything is counted.
    pages.give([pages.take() for _ in range(3 * layout.host_bytes // PAGE_BYTES + 400)])
    ready_bytes = pages.held_bytes
    engine = Engine(build(network), Laid(layout), CPU, pages=pages)
    with LiveBytes() as counter:
        source = torch.zeros(shape)
        engine.run(source, Nowhere())
        del source
    assert pages.held_bytes == ready_bytes
    return counter.peak_bytes


@pytest.mark.parametrize("budget", [1.1, 2, 5])
def test_no_run_takes_more_than_its_layout_said_nor_much_less(case, budget):
    name, found = case
    budget_bytes = int(least_bytes(found) * budget)
    layout = lay_out(found, budget_bytes)
    assert layout.peak_bytes <= budget_bytes
    took = measured(name, layout)
    assert took <= layout.peak_bytes + STATISTICS_BYTES
    assert took >= 0.8 * layout.peak_bytes


def test_uncut_it_foresees_the_very_peak():
    for name in ("picture", "encoder"):
        layout = lay_out(surveyed(name), 1 << 40)
        assert abs(measured(name, layout) - layout.peak_bytes) <= STATISTICS_BYTES


def test_nothing_is_allocated_by_it():
    network, build, _ = CASES["picture"]
    found = survey(network, build, (1, 4, 1 << 12, 1 << 12), torch.float32, NO_WORKSPACE)
    assert lay_out(found, 1 << 60).peak_bytes > 1 << 40


# One stage after another.


def stages_of(name):
    return [stage for phase in surveyed(name).phases for stage in phase.stages]


def test_scales_follow_from_stage_to_stage():
    stages = stages_of("encoder")
    assert [float(stage.scale_in) for stage in stages] == [1, 1, 1, 0.5, 0.5]
    assert [float(stage.scale) for stage in stages] == [1, 1, 0.5, 1, 0.5]


def test_inputs_and_results_are_counted_by_pixels_of_the_input():
    stages = stages_of("encoder")
    assert [stage.in_bytes_per_area for stage in stages] == [12, 32, 32, 32, 32]
    assert [stage.out_bytes_per_area for stage in stages] == [32, 32, 8, 32, 8]


@pytest.mark.parametrize(
    ("name", "stage", "passes"),
    [
        ("picture", "middle", 2),
        ("picture", "level 1 block 0", 1),
        ("picture", "level 1 upsampling", 0),
        ("picture", "pixels", 0),
        ("clip in chunks", "one", 0),
    ],
)
def test_passes_that_observe_are_counted(name, stage, passes):
    """The first norm of a stage is seen while its input is made."""
    found = {each.name: each.norms for each in stages_of(name)}
    if stage != "middle":
        assert found[stage] == passes
    else:
        assert found[stage] >= passes


def test_what_is_carried_on_is_counted():
    carried = {stage.name: stage.carry_bytes_per_area for stage in stages_of("clip in chunks")}
    # Two frames of eight channels of float32.
    assert carried == {"enter": 0, "one": 64, "larger": 0, "two": 64, "out": 0}


def test_time_in_chunks_needs_no_more_for_more_frames():
    network, build, _ = CASES["clip in chunks"]
    short, long = (
        survey(network, build, (1, 4, frames, 40, 32), torch.float32, NO_WORKSPACE)
        for frames in (9, 41)
    )
    works = [
        [stage.work_bytes(1000) for phase in each.phases for stage in phase.stages]
        for each in (short, long)
    ]
    assert works[0] == works[1]
    assert long.phases[0].chunks == 21
    assert long.phases[0].in_bytes_per_area == 41 * 16


def test_a_part_stage_in_a_phase_of_all_time_grows_with_it():
    """Even where another phase is cut, so that few frames are rehearsed."""
    network = Clips(normed=False)

    def build(net):
        first = chain(simple("first", net.enter), simple("and", lambda x: x * 2)).phases
        return type(net.program())((*first, *chain_of_chunks().phases))

    def chain_of_chunks():
        return chain(
            simple("a", lambda x: x + 1), simple("b", lambda x: x + 1), chunks=chunks_of(1)
        )

    found = survey(network, build, (1, 4, 24, 16, 16), torch.float32, NO_WORKSPACE)
    first = found.phases[0].stages[0]
    assert first.in_bytes_per_area == pytest.approx(24 * 4 * 4)
    assert first.out_bytes_per_area == pytest.approx(24 * 8 * 4)
    assert first.work_bytes(100) >= 100 * 24 * (4 + 8) * 4


def test_workspace_counts_where_kernels_take_it():
    network, build, shape = CASES["picture"]
    dry, wet = (
        survey(network, build, shape, torch.float32, workspace)
        for workspace in (NO_WORKSPACE, CUDNN_LAYOUT)
    )
    needs = [[s.work_bytes(10_000) for s in each.phases[0].stages] for each in (dry, wet)]
    # The middle's peak is its attention, of which no kernel wants a copy.
    assert all(two > one for one, two in list(zip(*needs, strict=True))[1:])


def test_an_interrupt_passes_through():
    def interrupt():
        raise KeyboardInterrupt

    network, build, shape = CASES["picture"]
    with pytest.raises(KeyboardInterrupt):
        survey(network, build, shape, torch.float32, NO_WORKSPACE, check=interrupt)


def test_the_network_is_left_as_it_was():
    before = {name: each.clone() for name, each in MIDDLE.state_dict().items()}
    surveyed("picture")
    assert all(torch.equal(before[name], each) for name, each in MIDDLE.state_dict().items())
    latent = noise(1, 4, 4, 4)
    assert torch.isfinite(run_whole(MIDDLE.program(), latent)).all()


# As text.


def test_text_and_back(case):
    _, found = case
    assert survey_from_json(found.to_json()) == found


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: "null",
        lambda text: "[]",
        lambda text: text[:-20],
        lambda text: text.replace('"halo"', '"hola"'),
        lambda text: text.replace('"scale": "2"', '"scale": "none"'),
        lambda text: json.dumps({**json.loads(text), "phases": []}),
        lambda text: text.replace('"bytes_per_area": ', '"bytes_per_area": -'),
        lambda text: text.replace('"fixed_bytes": 0.0', '"fixed_bytes": NaN'),
        lambda text: text.replace('"align": 1', '"align": 0'),
    ],
)
def test_damaged_text_is_no_survey(damage):
    text = surveyed("picture").to_json()
    damaged = damage(text)
    assert damaged != text
    assert survey_from_json(damaged) is None
