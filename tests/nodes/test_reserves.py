"""Reserves are decided from telemetry, follow it while they are held, and end with the job."""

import pytest
from support.reserve_world import AUTO, HOSTS, World

from vram_supervisor.nodes.host.reserves import Reserves, ask_of
from vram_supervisor.nodes.host.settings import SettingsScope
from vram_supervisor.supervisor.planning.reserve import Ask
from vram_supervisor.supervisor.units import GiB, MiB


def test_what_was_seen_is_reserved_from_the_start_and_put_back():
    world = World()
    world.see(100)
    world.see(100, 3 * GiB)
    world.start()
    assert world.reserve == 2 * GiB
    world.scope.release_all()
    assert world.reserve == HOSTS


def test_before_anything_was_seen_the_guess_holds_and_gives_way():
    world = World()
    world.start()
    assert world.reserve == GiB
    world.see(120)
    assert world.reserve < GiB


def test_it_grows_while_the_job_runs_and_shrinks_slowly():
    world = World()
    world.see(200)
    world.start()
    assert world.reserve == HOSTS
    world.see(30, 2 * GiB)
    world.see(80, GiB)
    grown = world.reserve
    assert grown == GiB
    world.see(900, GiB)
    assert HOSTS <= world.reserve < grown


def test_after_the_job_nothing_is_set_any_more():
    world = World()
    world.see(200)
    world.start()
    world.scope.release_all()
    world.see(60, 3 * GiB)
    world.see(60, GiB)
    assert world.reserve == HOSTS


def test_a_node_removed_before_the_next_job_leaves_nothing():
    world = World()
    world.start("job:1")
    world.scope.release_all()
    world.start("job:2")
    world.scope.release("job:2")
    world.see(5, 3 * GiB)
    assert world.reserve == HOSTS


def test_a_plain_figure_is_not_followed():
    world = World()
    world.see(60)
    world.start(reserved_vram_mode="manual")
    world.see(60, 5 * GiB)
    assert world.reserve == int(1.25 * GiB)


def test_of_two_nodes_the_larger_reserve_is_followed_with_both():
    world = World()
    world.see(60)
    world.start("job:1")
    world.start("job:2", reserved_vram_mode="auto_used_plus", reserved_vram_auto_headroom_gb=1.0)
    assert world.reserve == 2 * GiB
    world.see(3, 3 * GiB)
    assert world.reserve == 4 * GiB


def test_dynamic_vram_gets_what_others_hold_too_and_at_once():
    world = World(dynamic=True)
    world.see(200, own=GiB, streamed=2 * GiB)
    world.start()
    free_for_others = HOSTS
    assert world.library.bytes == pytest.approx(2 * GiB + free_for_others, abs=64 * MiB)
    world.see(3, 3 * GiB, own=GiB, streamed=2 * GiB)
    assert world.library.bytes >= 4 * GiB + free_for_others
    world.scope.release_all()
    assert (world.reserve, world.library.bytes) == (HOSTS, 256 * MiB)


def test_streamed_weights_are_not_taken_for_growth_of_this_process():
    world = World(dynamic=True)
    world.see(60)
    world.see(60, streamed=5 * GiB)
    assert world.reserves.facts().own is None


def test_growth_outside_torch_is_this_processs_own():
    world = World()
    world.see(60, own=512 * MiB)
    world.see(60, own=GiB)
    assert world.reserves.facts().own.quantile_bytes == 512 * MiB


def test_a_host_without_the_setting_holds_nothing():
    world = World()
    reserves = Reserves(world, SettingsScope({}), lambda device: None, lambda: False, "Linux")
    decision, wishes = reserves.wishes(Ask("adaptive", 0))
    assert decision.reserve_bytes == GiB
    assert wishes == {}


@pytest.mark.parametrize(
    ("sentence", "changes", "expected"),
    [
        ("adaptive", {}, Ask("adaptive", int(1.25 * GiB), GiB)),
        ("a mode fed by a link is not known yet", {"reserved_vram_mode": None},
         Ask("manual", int(1.25 * GiB), GiB)),
        ("0 is the profile's", {"reserved_vram_gb": 0.0}, Ask("adaptive", GiB, GiB)),
        ("limits", {"reserved_vram_auto_headroom_gb": -1.0, "reserved_vram_auto_max_gb": 2},
         Ask("adaptive", int(1.25 * GiB), -GiB, 2 * GiB)),
        ("none is asked for", {"apply_reserved_vram": False}, None),
    ],
)  # fmt: skip
def test_widgets(sentence, changes, expected):
    assert ask_of({**AUTO, **changes}, lambda profile: 1.0) == expected
