"""Cleaning up: all of it, or the room that comes next needs."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.card_world import GPU, Card, Pages, Patcher  # noqa: E402

from vram_supervisor.nodes.cleaning import (  # noqa: E402
    clean_all,
    clean_for_next,
    clean_gpu_before,
    coming,
    tell,
)
from vram_supervisor.nodes.host.memory import HostMemory  # noqa: E402
from vram_supervisor.nodes.host.model_links import Reached  # noqa: E402
from vram_supervisor.nodes.host.next_use import Uses  # noqa: E402
from vram_supervisor.nodes.report import Report  # noqa: E402
from vram_supervisor.supervisor.units import MiB  # noqa: E402


def needed(*steps):
    """The coming steps, each a patcher or several."""
    groups = [each if isinstance(each, tuple) else (each,) for each in steps]
    by_base = {}
    for place, group in enumerate(groups, 1):
        for patcher in group:
            by_base.setdefault(id(patcher.model), float(place))
    numbered = tuple((float(place), Reached(group)) for place, group in enumerate(groups, 1))
    return Uses(numbered, by_base)


def told(card, *asked):
    """What comes next on a card."""
    return coming(card.memory, card.memory.look_ahead(), *asked)


def latent(*shape):
    return {"samples": torch.zeros(shape)}


def test_room_is_made_for_what_comes_next_and_no_more():
    following = Patcher("Next", 0, missing=200 * MiB)
    soon, late = Patcher("Soon", 500 * MiB), Patcher("Late", 400 * MiB)
    card = Card(1000 * MiB, soon, late, following, uses=needed(following, soon, late))
    done = clean_for_next(card.memory)
    assert done.asked_bytes == 220 * MiB + 50 * MiB, "its weights, a margin, the host's minimum"
    assert ([each.name for each in done.left], soon.loaded) == (["Late"], 500 * MiB)
    assert done.freed_bytes == 170 * MiB


def test_what_comes_next_does_not_leave_for_its_own_sake():
    following = Patcher("Next", 700 * MiB, missing=600 * MiB)
    card = Card(1000 * MiB, following, uses=needed(following))
    done = clean_for_next(card.memory)
    assert (done.reached, following.loaded) == (False, 700 * MiB)


def test_the_work_on_a_latent_counts_by_the_hosts_own_estimate():
    following = Patcher("Next", 100 * MiB)
    following.model.memory_required = "the host's models have it"
    following.memory_required = lambda shape: shape[0] * shape[2] * MiB
    card = Card(1000 * MiB, following, uses=needed(following))
    assert told(card, (), latent(1, 4, 60, 60)).room_bytes == (120 + 20) * MiB
    assert told(card, (), latent(1, 4, 8, 8)).room_bytes == 50 * MiB
    assert told(card, (), "no latent").room_bytes == 50 * MiB


@pytest.mark.parametrize(
    ("sentence", "dimensions", "shape", "work"),
    [
        ("a picture", 2, (1, 4, 60, 60), 60),
        ("of a video the first frame", 2, (1, 4, 9, 60, 60), 60),
        ("a video", 3, (1, 4, 9, 60, 60), 9),
        ("sound, which it will not decode", 3, (1, 4), 30),
    ],
)
def test_decoding_counts_by_the_vaes_own_estimate(sentence, dimensions, shape, work):
    """Else the host makes that room itself when it decodes, in its own order."""
    following = Patcher("Vae", 100 * MiB)
    vae = SimpleNamespace(
        patcher=following,
        latent_dim=dimensions,
        vae_dtype=torch.float16,
        memory_used_decode=lambda shape, dtype: shape[2] * dtype.itemsize / 2 * MiB,
    )
    card = Card(1000 * MiB, following, uses=needed(following))
    assert told(card, (), latent(*shape), vae).room_bytes == max(50, work + 20) * MiB
    other = Card(1000 * MiB, following, uses=needed(Patcher("Model", 0)))
    assert told(other, (), latent(*shape), vae).room_bytes == 50 * MiB, "comes later"


def test_models_that_work_where_they_lie_need_no_room():
    on_cpu, following = Patcher("Text", 300 * MiB, offload=GPU), Patcher("Next", 0, missing=MiB)
    card = Card(1000 * MiB, on_cpu, following, uses=needed(on_cpu, following))
    assert told(card, (), None).patchers == (following,)


def test_several_models_of_one_step_are_loaded_together():
    model, control = Patcher("Model", 0, missing=100 * MiB), Patcher("Control", 0, missing=10 * MiB)
    card = Card(1000 * MiB, model, control, uses=needed((model, control)))
    assert told(card, (), None).room_bytes == (121 + 50) * MiB


@pytest.mark.parametrize(
    ("sentence", "control_is_dynamic", "seen", "room"),
    [
        ("pages leave for pages and for tensors", True, True, 0),
        ("pages leave for pages: what the work takes is asked for", True, False, 80),
        ("weights that come as a whole need room in advance", False, True, 121 + 80 + 20),
    ],
)
def test_streamed_weights_make_their_own_room(
    monkeypatch, sentence, control_is_dynamic, seen, room
):
    monkeypatch.setattr(HostMemory, "pages_leave_for_tensors", lambda memory, device: seen)
    model = Patcher("Model", 0, missing=100 * MiB, dynamic=True)
    model.model.memory_required = "the host's models have it"
    model.memory_required = lambda shape: shape[0] * shape[2] * MiB
    control = Patcher("Control", 0, missing=10 * MiB, dynamic=control_is_dynamic)
    card = Card(1000 * MiB, model, control, uses=needed((model, control)))
    assert told(card, (), latent(1, 4, 40, 40)).room_bytes == room * MiB, sentence


def test_room_to_decode_is_made_in_advance_also_for_a_streamed_vae(monkeypatch):
    """Other packs' decoders choose their tiles by what is free."""
    monkeypatch.setattr(HostMemory, "pages_leave_for_tensors", lambda memory, device: True)
    following = Patcher("Vae", 0, missing=100 * MiB, dynamic=True)
    vae = SimpleNamespace(
        patcher=following,
        vae_dtype=torch.float16,
        memory_used_decode=lambda shape, dtype: shape[2] * MiB,
    )
    card = Card(1000 * MiB, following, uses=needed(following))
    assert told(card, (), latent(1, 4, 60, 60), vae).room_bytes == 60 * MiB
    assert told(card, (), latent(1, 4, 60, 60)).room_bytes == 0


def test_streamed_models_leave_as_memory_is_needed_and_the_report_says_in_which_order(monkeypatch):
    monkeypatch.setattr(HostMemory, "pages_leave_for_tensors", lambda memory, device: True)
    names = ("Next", "Soon", "Late")
    models, order = [Patcher(name, 300 * MiB, dynamic=True) for name in names], []
    for each in models:
        each.model.dynamic_vbars = {GPU: Pages(type(each.model).__name__, order)}
    card, report = Card(1000 * MiB, *models, uses=needed(*models)), Report()
    tell(report, clean_for_next(card.memory))
    assert order == ["Late", "Soon", "Next"]
    assert [each.loaded for each in models] == [300 * MiB] * 3
    assert report.effective["eviction"]["leaving_as_needed"] == ["Late", "Soon"]
    assert report.notes[0].endswith("in this order: Late then Soon.")
    assert report.warnings == []


def test_the_order_is_set_also_where_the_next_model_is_still_to_be_made():
    names, order = ("Soon", "Late"), []
    models = [Patcher(name, 300 * MiB, dynamic=True) for name in names]
    for each in models:
        each.model.dynamic_vbars = {GPU: Pages(type(each.model).__name__, order)}
    soon, late = ((step, Reached((each,))) for step, each in zip((2.0, 5.0), models, strict=True))
    card = Card(1000 * MiB, *models, uses=Uses(((1.0, Reached(unmade=True)), soon, late)))
    assert clean_for_next(card.memory) is None
    assert order == ["Late", "Soon"]


def test_a_streamed_model_needs_room_in_advance_beside_one_that_is_not(monkeypatch):
    """The host has that one leave for it, in an order of its own."""
    monkeypatch.setattr(HostMemory, "pages_leave_for_tensors", lambda memory, device: True)
    following = Patcher("Next", 0, missing=200 * MiB, dynamic=True)
    soon, late = Patcher("Soon", 500 * MiB), Patcher("Late", 400 * MiB, dynamic=True)
    card = Card(1000 * MiB, soon, late, following, uses=needed(following, soon, late))
    done = clean_for_next(card.memory)
    assert done.asked_bytes == (220 + 50) * MiB
    assert [each.name for each in done.left] == ["Late"]


def test_a_node_that_cleans_up_is_through_with_its_own_model():
    mine, soon = Patcher("Mine", 400 * MiB), Patcher("Soon", 500 * MiB)
    following = Patcher("Next", 0, missing=200 * MiB)
    uses = needed(following, soon, mine)
    running = (0.0, Reached((mine,)))
    by_base = {**uses.by_base, id(mine.model): 0.0}
    card = Card(1000 * MiB, mine, soon, following, uses=Uses((running, *uses.steps), by_base))
    assert [each.name for each in clean_for_next(card.memory).left] == ["Mine"]


def test_room_for_a_model_that_is_still_to_be_made_is_not_guessed():
    later = Patcher("Later", 0, missing=900 * MiB)
    steps = ((1.0, Reached(unmade=True)), (2.0, Reached((later,))))
    card = Card(1000 * MiB, Patcher("A", 900 * MiB), later, uses=Uses(steps))
    assert told(card, (), None) is None


def test_given_models_count_instead_of_the_queue():
    given, queued = Patcher("Given", 0, missing=100 * MiB), Patcher("Queued", 300 * MiB)
    card = Card(1000 * MiB, given, queued, uses=needed(queued))
    found = told(card, (SimpleNamespace(patcher=given), None), None)
    assert found.patchers == (given,)


@pytest.mark.parametrize("uses", [None, Uses(), Uses(idle=True)])
def test_where_nothing_is_known_to_come_models_stay(uses):
    card = Card(1000 * MiB, Patcher("A", 900 * MiB), uses=uses)
    assert clean_for_next(card.memory) is None
    assert card.patchers[0].loaded == 900 * MiB
    assert card.emptied == 1


def test_cleaning_all_leaves_nothing_whatever_the_queue_needs():
    model = Patcher("A", 900 * MiB)
    card = Card(1000 * MiB, model, uses=needed(model))
    done = clean_all(card.memory, GPU, empty_cache=True)
    assert (done.reached, done.freed_bytes, card.loaded()) == (True, 900 * MiB, [])


@pytest.mark.parametrize(
    ("sentence", "taken", "reached"),
    [
        ("a desktop that drew a window meanwhile is no failure", 10 * MiB, True),
        ("a program that took much is", 100 * MiB, False),
    ],
)
def test_cleaning_all_is_measured_as_exactly_as_memory_comes_back(sentence, taken, reached):
    card, report = Card(1000 * MiB, Patcher("A", 900 * MiB)), Report()
    unload = card.management.unload_all_models

    def unload_beside_others():
        unload()
        card.tensors += taken

    card.management.unload_all_models = unload_beside_others
    done = clean_all(card.memory, GPU, empty_cache=True)
    tell(report, done)
    assert done.reached is reached, sentence
    assert (report.warnings == []) is reached, sentence


def test_cleaning_all_waits_only_where_the_cache_is_emptied():
    card = Card(1000 * MiB, Patcher("A", 900 * MiB), lag_s=1.0)
    assert clean_all(card.memory, GPU, empty_cache=True).waited_s == pytest.approx(1.0, abs=0.1)
    card = Card(1000 * MiB, Patcher("A", 900 * MiB), lag_s=1.0)
    done = clean_all(card.memory, GPU, empty_cache=False)
    assert (done.waited_s, done.reached) == (0, False)


def test_clean_gpu_before_makes_room_for_the_model_that_goes_through():
    mine, other = Patcher("Mine", 0, missing=500 * MiB), Patcher("Other", 900 * MiB)
    card, report = Card(1000 * MiB, other, mine), Report()
    clean_gpu_before(card.memory, report, asked=True, values=(mine,))
    assert report.applied == {"clean_gpu_before": True}
    assert report.effective["eviction"]["left"][0]["name"] == "Other"
    assert (report.warnings, mine.loaded_size()) == ([], 0)


def test_clean_gpu_before_says_when_not_all_came_free():
    mine, report = Patcher("Mine", 0, missing=5000 * MiB), Report()
    clean_gpu_before(Card(1000 * MiB, mine).memory, report, asked=True, values=(mine,))
    assert "asked for 5.4 GiB free" in report.warnings[0]


def test_clean_gpu_before_does_nothing_unasked_and_says_when_nothing_comes():
    card, report = Card(1000 * MiB, Patcher("A", 900 * MiB)), Report()
    clean_gpu_before(card.memory, report, asked=False)
    assert (report.applied, report.effective, card.emptied) == ({"clean_gpu_before": False}, {}, 0)
    clean_gpu_before(card.memory, report, asked=True)
    assert "What comes next needs no room that is known" in report.notes[0]
