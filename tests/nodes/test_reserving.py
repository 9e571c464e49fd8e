"""What the nodes report of their reserve, and that it is followed from then on."""

from types import SimpleNamespace

import pytest
from support.reserve_world import AUTO, HOSTS, World

from vram_supervisor.nodes.host.headroom import HEADROOM
from vram_supervisor.nodes.host.torch_settings import RESERVE
from vram_supervisor.nodes.report import Report
from vram_supervisor.nodes.reserving import hold_for_job, hold_reserve
from vram_supervisor.supervisor.units import GiB


def run(world, *, dynamic=False, no_headroom=None, spilled=(), **changes):
    """A node's part: its report."""
    widgets = {**AUTO, **changes}
    world.reserves.no_headroom = no_headroom
    runtime = SimpleNamespace(
        reserves=world.reserves,
        scope=world.scope,
        spill=SimpleNamespace(warnings=lambda: list(spilled)),
        profile_gb=lambda profile: 1.0,
        memory=SimpleNamespace(dynamic=lambda: dynamic, reserve_bytes=lambda: world.reserve),
    )
    report = Report(requested=widgets)
    hold_for_job(runtime, "7", hold_reserve(runtime, widgets, report), report)
    return report


def test_the_report_says_what_holds_and_why():
    world = World()
    report = run(world)
    assert report.applied["reserved_vram_gb"] == report.effective["reserved_vram_gb"] == 1.0
    assert any("a guess" in note for note in report.notes)
    assert report.warnings == []
    assert world.reserve == GiB


def test_it_is_followed_until_the_job_lets_go():
    world = World()
    world.see(120)
    run(world, reserved_vram_mode="auto_used_plus", reserved_vram_auto_headroom_gb=0.5)
    world.see(3, 3 * GiB)
    assert world.reserve == 3.5 * GiB
    world.scope.release_all()
    world.see(3, 4 * GiB)
    assert world.reserve == HOSTS


def test_running_again_with_other_widgets_replaces_what_was_followed():
    world = World()
    run(world, reserved_vram_mode="auto_used_plus")
    run(world, reserved_vram_mode="manual")
    world.see(5, 6 * GiB)
    assert world.reserve == 1.25 * GiB


def test_no_reserve_is_asked_for():
    world = World()
    report = run(world, apply_reserved_vram=False)
    assert report.applied["reserved_vram_gb"] is None
    assert report.effective["reserved_vram_gb"] == 0.39
    world.see(5, 6 * GiB)
    assert world.reserve == HOSTS


def test_of_two_nodes_the_larger_is_in_force():
    world = World()
    world.scope.hold("job:9", {RESERVE: 3 * GiB})
    report = run(world, reserved_vram_mode="manual")
    assert report.applied["reserved_vram_gb"] == 1.25
    assert report.effective["reserved_vram_gb"] == 3.0


def test_dynamic_vrams_headroom_is_reported():
    world = World(dynamic=True)
    world.see(60)
    report = run(world, dynamic=True)
    in_force = world.scope.held()[HEADROOM] / GiB
    assert report.applied["dynamic_vram_headroom_gb"] == pytest.approx(in_force, abs=0.01)
    assert report.effective["dynamic_vram_headroom_gb"] == pytest.approx(in_force, abs=0.01)
    assert report.effective["reserved_vram_gb"] is not None
    assert report.warnings == []


def test_where_dynamic_vram_cannot_be_told_the_report_says_so():
    report = run(World(), dynamic=True, no_headroom="too old")
    assert report.effective["reserved_vram_gb"] is None
    assert "too old" in report.warnings[0]
    assert "--reserve-vram" in report.warnings[0]


def test_a_setting_that_fails_is_a_warning():
    world = World(dynamic=True)

    def refuse(value):
        raise RuntimeError("refused by the test")

    world.scope.settings[HEADROOM].put = refuse
    report = run(world, dynamic=True)
    assert any("refused" in each for each in report.warnings)
    assert report.effective["dynamic_vram_headroom_gb"] is None
    assert world.reserve == GiB


def test_a_spill_lately_is_a_warning_and_the_reserve_has_its_margin():
    world = World()
    world.see(1)
    world.reserves.margin = lambda total_bytes: total_bytes // 24
    report = run(world, spilled=["first", "it crawled"])
    assert report.warnings == ["it crawled"]
    assert world.reserve == 1.5 * GiB


@pytest.mark.parametrize("dynamic", [False, True])
def test_without_dynamic_vram_the_report_says_when_a_change_counts(dynamic):
    notes = run(World(dynamic=dynamic), dynamic=dynamic).notes
    assert any("loads a model next" in note for note in notes) is not dynamic
