import gc

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from vram_supervisor.supervisor.planning.live_bytes import (  # noqa: E402
    LiveBytes,
    TensorSpec,
    dry_run_peak,
)

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


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 256)
        self.outer = nn.Linear(256, 64)
        self.register_buffer("offset", torch.ones(64))

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x))) + self.offset


def measured(net, x):
    with torch.inference_mode(), LiveBytes("cpu") as counter:
        result = net(x)
    assert result.shape == x.shape
    return counter.peak_bytes


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_dry_run_gives_what_the_real_run_measures(rows):
    net = Net()
    assert dry_run_peak(net, Net.forward, TensorSpec((rows, 64))) == measured(
        net, torch.randn(rows, 64)
    )


def test_a_dry_run_allocates_nothing():
    size = 1 << 45  # bytes no machine has
    peak = dry_run_peak(Net(), Net.forward, TensorSpec((size // 256, 64)))
    assert peak > size


def test_a_dry_run_leaves_the_module_alone():
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    dry_run_peak(net, Net.forward, TensorSpec((8, 64)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert type(net.inner.weight) is nn.Parameter
    assert not net.inner.weight.is_meta
