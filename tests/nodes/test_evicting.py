"""Room is made on a scripted card: who leaves, how much, and what is said of it."""

import pytest

torch = pytest.importorskip("torch")

from support.card_world import CPU, GPU, Card, Patcher, uses_of  # noqa: E402

from vram_supervisor.nodes.host import evicting  # noqa: E402
from vram_supervisor.nodes.host.evicting import DeviceUse, next_use_words  # noqa: E402
from vram_supervisor.nodes.host.memory import HostMemory  # noqa: E402
from vram_supervisor.supervisor.jobs.eviction import NEVER  # noqa: E402
from vram_supervisor.supervisor.units import MiB  # noqa: E402


def left(done):
    return {each.name: each.freed_bytes // MiB for each in done.left}


def test_what_is_needed_last_leaves_and_only_as_much_as_is_missing():
    soon, late = Patcher("Soon", 400 * MiB), Patcher("Late", 300 * MiB)
    card = Card(1000 * MiB, soon, late, uses=uses_of(Soon=1, Late=9))
    done = card.memory.make_room(455 * MiB, GPU)
    assert left(done) == {"Late": 160}, "155 MiB are missing, in layers of 10"
    assert (done.reached, done.held, soon.loaded) == (True, (), 400 * MiB)
    assert done.asked_bytes == 455 * MiB
    assert done.freed_bytes == 160 * MiB


def test_what_the_host_frees_for_its_buffers_counts_towards_the_rest():
    model = Patcher("A", 400 * MiB, buffers=3)
    card = Card(1000 * MiB, model, uses=uses_of(A=1))
    assert left(card.memory.make_room(700 * MiB, GPU)) == {"A": 100}
    model = Patcher("A", 400 * MiB, buffers=3)
    card = Card(1000 * MiB, model, uses=uses_of(A=1))
    assert left(card.memory.make_room(615 * MiB, GPU)) == {"A": 40}, "no less can leave"
    assert len(model.asked) == 1


def test_a_patcher_that_says_it_gave_and_did_not_is_not_asked_for_ever():
    model = Patcher("A", 400 * MiB)
    model.partially_unload = lambda device, wanted: model.asked.append(wanted) or wanted
    card = Card(1000 * MiB, model, uses=uses_of(A=1))
    done = card.memory.make_room(700 * MiB, GPU)
    assert (done.reached, left(done)) == (False, {"A": 0})
    assert model.asked == [50 * MiB, 100 * MiB]


def test_a_model_that_gives_no_layer_leaves_as_a_whole():
    model = Patcher("A", 400 * MiB, stiff=True)
    card = Card(1000 * MiB, model, uses=uses_of(A=1))
    assert left(card.memory.make_room(700 * MiB, GPU)) == {"A": 400}
    assert card.loaded() == []


def test_a_model_that_leaves_as_a_whole_is_not_taken_to_pieces_before():
    model = Patcher("A", 400 * MiB)
    card = Card(1000 * MiB, model, uses=uses_of(A=1))
    assert left(card.memory.make_room(1000 * MiB, GPU)) == {"A": 400}
    assert (model.asked, card.loaded()) == ([], [])


def test_nobody_leaves_where_there_is_room():
    card = Card(1000 * MiB, Patcher("A", 400 * MiB))
    done = card.memory.make_room(600 * MiB, GPU)
    assert (done.left, done.freed_bytes, card.emptied) == ((), 0, 0)


def test_what_is_kept_and_its_clones_stay_even_where_that_is_not_enough():
    mine = Patcher("Mine", 400 * MiB)
    clone = Patcher("Mine", 400 * MiB, base=mine.model)
    card = Card(1000 * MiB, clone, Patcher("Other", 200 * MiB), tensors=100 * MiB)
    done = card.memory.make_room(900 * MiB, GPU, mine)
    assert (left(done), done.reached, mine.loaded) == ({"Other": 200}, False, 400 * MiB)
    assert [(each.name, each.why) for each in done.held] == [("Mine", "in use")]
    assert "Still held: Mine 400.0 MiB (in use)" in done.line()


def test_who_asks_for_everything_is_not_told_of_a_device_that_large():
    card = Card(1000 * MiB, Patcher("A", 400 * MiB))
    line = card.memory.make_room(1 << 60, GPU).line()
    assert line == "asked for all that can be free on cuda:0: freed 400.0 MiB (A 400.0 MiB)"


def test_evict_says_how_much_more_is_free():
    card = Card(1000 * MiB, Patcher("A", 400 * MiB))
    assert card.memory.evict(700 * MiB, GPU, None) == 100 * MiB


def test_a_model_that_leaves_whole_leaves_the_hosts_list():
    card = Card(1000 * MiB, Patcher("A", 300 * MiB), Patcher("B", 400 * MiB))
    card.memory.make_room(1000 * MiB, GPU)
    assert card.loaded() == []


def test_a_streamed_model_keeps_its_copies_in_system_memory():
    streamed = Patcher("Streamed", 400 * MiB, dynamic=True)
    card = Card(1000 * MiB, streamed)
    done = card.memory.make_room(1000 * MiB, GPU)
    assert (done.reached, streamed.loaded) == (True, 0)
    assert streamed.copies_in_ram
    assert card.loaded() == ["Streamed"]


def test_what_would_only_move_within_its_device_cannot_be_evicted():
    stays = Patcher("Stays", 400 * MiB, offload=GPU)
    card = Card(1000 * MiB, stays)
    assert card.memory.evictable_bytes(GPU, None) == 0
    done = card.memory.make_room(900 * MiB, GPU)
    assert (done.left, stays.asked) == ((), [])
    assert [(each.name, each.why) for each in done.held] == [("Stays", "kept by the host")]


def test_weights_that_outlived_their_patcher_are_named():
    """The host warns of them in its log and cannot unload them."""
    lost = Patcher("Lost", 400 * MiB)
    lost.model.model_loaded_weight_memory = 400 * MiB
    card = Card(1000 * MiB, lost)
    (entry,) = card.management.current_loaded_models
    entry.model, entry.real_model = None, lambda: lost.model
    done = card.memory.make_room(900 * MiB, GPU)
    assert [each.as_dict() for each in done.held] == [
        {"name": "Lost", "held_bytes": 400 * MiB, "why": "dropped, but still referred to"}
    ]
    entry.real_model = lambda: None
    assert "Still held: nobody known" in card.memory.make_room(900 * MiB, GPU).line()


def test_every_byte_of_the_device_is_somebodys():
    """Streamed weights lie outside torch; of the driver's figure only the rest is others'."""
    mine, streamed = Patcher("Mine", 400 * MiB), Patcher("Streamed", 100 * MiB, dynamic=True)
    lost = Patcher("Lost", 20 * MiB)
    mine.model.model_loaded_weight_memory = 400 * MiB
    streamed.model.model_loaded_weight_memory = 0
    lost.model.model_loaded_weight_memory = 20 * MiB
    card = Card(1000 * MiB, mine, streamed, lost, tensors=180 * MiB)
    entry = card.management.current_loaded_models[-1]
    entry.model, entry.real_model = None, lambda: lost.model

    class OnDevice(HostMemory):
        def device_use(self, device):
            free = card.free()
            allocated = (400 + 20 + 50) * MiB
            return DeviceUse(allocated, allocated + 30 * MiB, free, 1000 * MiB)

    memory = OnDevice(card.management, None, card.memory.recovery)
    held = memory.make_room(900 * MiB, GPU, mine, streamed).held
    assert [(each.name, each.held_bytes // MiB) for each in held] == [
        ("Mine", 400),
        ("Streamed", 100),
        ("others", 100),
        ("tensors of this process", 50),
        ("torch's cache", 30),
        ("Lost", 20),
    ]
    assert sum(each.held_bytes for each in held) + card.free() == 1000 * MiB


def test_clones_of_the_same_weights_count_once():
    one = Patcher("One", 400 * MiB)
    card = Card(1000 * MiB, one, Patcher("One", 400 * MiB, base=one.model), tensors=-400 * MiB)
    assert card.memory.evictable_bytes(GPU, None) == 400 * MiB


def test_only_models_on_the_device_leave():
    elsewhere = Patcher("Elsewhere", 400 * MiB)
    elsewhere.load_device = CPU
    card = Card(1000 * MiB, elsewhere)
    card.memory.make_room(900 * MiB, GPU)
    assert elsewhere.loaded == 400 * MiB


def test_memory_that_comes_back_late_is_waited_for():
    card = Card(1000 * MiB, Patcher("A", 600 * MiB), lag_s=0.5)
    done = card.memory.make_room(600 * MiB, GPU)
    assert (done.reached, left(done)) == (True, {"A": 200})
    assert 0.5 <= done.waited_s < 0.6


def test_waiting_ends_and_no_more_leaves_than_there_is():
    card = Card(1000 * MiB, Patcher("A", 600 * MiB), lag_s=1e9)
    done = card.memory.make_room(900 * MiB, GPU)
    assert not done.reached
    assert done.waited_s >= 2.0
    assert left(done) == {"A": 600}


def test_how_much_of_what_can_leave_is_needed_again():
    patchers = [Patcher("A", 100 * MiB), Patcher("B", 200 * MiB), Patcher("C", 400 * MiB)]
    card = Card(1000 * MiB, *patchers, uses=uses_of(A=3, B=NEVER))
    assert card.memory.next_use_bytes(GPU, None) == 500 * MiB, "of C nobody knows"
    assert card.memory.next_use_bytes(GPU, patchers[0]) == 400 * MiB
    assert Card(1000 * MiB, *patchers).memory.next_use_bytes(GPU, None) == 0


def test_a_report_says_asked_freed_and_who_holds():
    card = Card(1000 * MiB, Patcher("A", 300 * MiB), uses=uses_of(A=4))
    told = card.memory.make_room(2000 * MiB, GPU).as_dict()
    assert told == {
        "device": "cuda:0",
        "asked_bytes": 2000 * MiB,
        "free_before_bytes": 700 * MiB,
        "free_after_bytes": 1000 * MiB,
        "freed_bytes": 300 * MiB,
        "reached": False,
        "left": [{"name": "A", "freed_bytes": 300 * MiB, "next_use": "in 4 node runs"}],
        "leaving_as_needed": [],
        "still_held": [],
        "waited_s": 0.0,
    }


@pytest.mark.parametrize(
    ("next_use", "words"),
    [(None, "unknown"), (NEVER, "not needed again"), (0, "needed now"), (3.0, "in 3 node runs")],
)
def test_next_uses_in_words(next_use, words):
    assert next_use_words(next_use) == words


def within_tensors(card, tensors):
    """The same memory where torch says what it holds."""

    class OnDevice(HostMemory):
        def device_use(self, device):
            held = sum(each.loaded for each in card.patchers) + tensors
            return DeviceUse(held, held, card.free(), card.size)

    return OnDevice(card.management, None, card.memory.recovery)


def test_garbage_is_not_looked_for_where_torch_holds_little_but_weights(monkeypatch):
    collected = []
    monkeypatch.setattr(evicting.gc, "collect", lambda: collected.append(True))
    card = Card(1000 * MiB, Patcher("A", 600 * MiB))
    done = within_tensors(card, 100 * MiB).make_room(700 * MiB, GPU)
    assert (done.reached, collected) == (True, [])


@pytest.mark.parametrize(
    ("tensors", "needed"),
    [(300 * MiB, 700 * MiB), (100 * MiB, 2000 * MiB)],
    ids=["tensors beside the weights", "too little left"],
)
def test_garbage_is_looked_for_where_it_may_help(tensors, needed, monkeypatch):
    collected = []
    monkeypatch.setattr(evicting.gc, "collect", lambda: collected.append(True))
    card = Card(1000 * MiB, Patcher("A", 600 * MiB))
    within_tensors(card, tensors).make_room(needed, GPU)
    assert collected


def test_a_model_in_a_reference_cycle_is_collected_before_anybody_waits(monkeypatch):
    card = Card(1000 * MiB, Patcher("A", 600 * MiB), lag_s=1e9)
    monkeypatch.setattr(evicting.gc, "collect", lambda: setattr(card, "lag_s", 0.0))
    done = within_tensors(card, 0).make_room(700 * MiB, GPU)
    assert (done.reached, done.waited_s) == (True, 0.0)
