import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.embedded.measure import PeakMeter  # noqa: E402


class Counter:
    def __init__(self, allocated=None, peak=None):
        self.allocated, self.peak = allocated, peak

    def allocated_bytes(self, device):
        return self.allocated

    def peak_allocated_bytes(self, device):
        return self.peak


def test_without_a_counter_the_live_tensors_are_measured():
    with PeakMeter("cpu", Counter()) as meter:
        work = torch.zeros(1000)
        del work
        torch.zeros(500)
    assert (meter.peak_bytes, meter.exact) == (4000, False)


def test_a_raised_counter_is_exact_beyond_what_was_held_before():
    counter = Counter(allocated=300, peak=1000)
    with PeakMeter("cuda:0", counter) as meter:
        counter.peak = 1500
    assert (meter.peak_bytes, meter.exact) == (1200, True)


def test_a_counter_that_was_higher_before_is_not_believed():
    with PeakMeter("cpu", Counter(allocated=300, peak=9000)) as meter:
        work = torch.zeros(100)
    assert (meter.peak_bytes, meter.exact) == (400, False)
    assert work.numel() == 100


def test_a_failure_comes_through_and_leaves_no_mode_behind():
    meter = PeakMeter("cpu", Counter())
    with pytest.raises(KeyError), meter:
        raise KeyError
    after = torch.zeros(100)
    assert meter.peak_bytes == 0
    assert after.numel() == 100
