import gc

import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402

KIB = 1024


def kib(count):
    return torch.empty(count * KIB, dtype=torch.uint8)


def test_the_peak_is_what_was_alive_at_once():
    with LiveBytes() as counter:
        first = kib(3)
        second = kib(5)
        del first
        third = kib(2)
    assert counter.peak_bytes == 8 * KIB
    assert counter.live_bytes == 7 * KIB
    del second, third
    assert counter.live_bytes == 0


def test_a_view_keeps_its_storage_alive_and_counts_once():
    with LiveBytes() as counter:
        base = kib(4)
        view = base[KIB:].view(3, KIB)
        del base
        assert counter.live_bytes == 4 * KIB
        del view
    assert (counter.live_bytes, counter.peak_bytes) == (0, 4 * KIB)


def test_what_was_there_before_never_counts():
    before = kib(4)
    with LiveBytes() as counter:
        before.add_(1)
        view = before[:KIB]
        copy = before.clone()
    assert counter.peak_bytes == 4 * KIB
    assert view.numel() + copy.numel() == 5 * KIB


def test_ignored_storages_do_not_count_through_their_views():
    held = kib(4)
    with LiveBytes(ignore=[held]) as counter:
        detached = held.detach().view(-1)
    assert counter.peak_bytes == 0
    assert detached.numel() == 4 * KIB


def test_only_the_device_asked_for_counts():
    with LiveBytes("cuda") as counter:
        kept = kib(4)
    assert counter.peak_bytes == 0
    assert kept.numel() == 4 * KIB


def test_the_counter_itself_can_be_forgotten_before_the_tensors():
    with LiveBytes() as counter:
        kept = kib(1)
    del counter
    gc.collect()
    del kept  # its finalizer finds no counter


def test_what_an_operation_made_of_others_holds_in_between_counts():
    values = torch.randn(1024)
    with LiveBytes() as counter:
        result = torch.nn.functional.rms_norm(values, (1024,))
    assert counter.operations > 1
    assert counter.peak_bytes > 4 * result.numel()
    assert counter.live_bytes == 4 * result.numel()


def test_a_storage_that_grows_in_place_counts_as_large_as_it_became():
    with LiveBytes() as counter:
        room = torch.empty(0)
        parts = torch.cat([torch.ones(KIB), torch.ones(KIB)], out=room)
        room.resize_(3 * KIB)
    assert counter.live_bytes == 3 * 4 * KIB
    assert parts is room
