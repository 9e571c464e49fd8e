"""What a safe decode measures: its own peak, without weights, evictions or failed attempts."""

import pytest
from support.clock import StillClock
from support.instruments import CUDA, make_sample

from vram_supervisor.nodes.host.meter import Measured, PeakMeter
from vram_supervisor.supervisor.planning.types import PlanRequest
from vram_supervisor.supervisor.telemetry.peaks import PeakBook

torch = pytest.importorskip("torch")
from support.decoding_world import (  # noqa: E402
    MANUAL,
    Allocator,
    Counter,
    GiB,
    Memory,
    OutOfMemory,
    Working,
    decode,
    image,
    meter_of,
)


class Loading(Memory):
    """The host loads 1 GiB of weights; before that it evicts what it is told to."""

    def __init__(self, allocator, evicts=0):
        super().__init__()
        self.allocator, self.evicts, self.loads = allocator, evicts, []

    def load(self, patcher, needed_bytes, *, entirely=False):
        if not self.loads:
            self.allocator.hold(-self.evicts)
            self.allocator.hold(GiB)
        self.loads.append((patcher, needed_bytes, entirely))


def test_the_weights_are_no_part_of_the_measured_peak():
    allocator = Allocator()
    memory = Loading(allocator)
    vae = Working(allocator)
    vae.disable_offload = True
    decoded = decode(image(), vae, memory=memory, meter=meter_of(allocator))
    assert decoded.measured == Measured(2 * GiB, 2 * GiB, 2 * GiB)
    assert memory.loads == [("patcher", 120 * 8 * 6 + 1, True)]


def test_a_model_evicted_for_the_decode_does_not_make_the_peak_nothing():
    allocator = Allocator(18 * GiB)
    memory = Loading(allocator, evicts=18 * GiB)
    decoded = decode(image(), Working(allocator), memory=memory, meter=meter_of(allocator))
    assert decoded.measured == Measured(None, 0, 17 * GiB)


def test_a_failed_attempt_is_no_part_of_the_measured_peak():
    allocator = Allocator()
    vae = Working(allocator, whole=9 * GiB, tiled=GiB, largest=16 * 16)
    memory = Loading(allocator)
    decoded = decode(torch.rand(1, 4, 64, 64), vae, memory=memory, meter=meter_of(allocator))
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.measured == Measured(None, 0, 9 * GiB), "9 GiB is a bound, not the peak"


def test_weights_that_do_not_fit_are_an_attempt_that_ran_out():
    class Tight(Loading):
        def load(self, patcher, needed_bytes, *, entirely=False):
            super().load(patcher, needed_bytes, entirely=entirely)
            if len(self.loads) == 1:
                raise OutOfMemory

    allocator = Allocator()
    decoded = decode(
        torch.rand(1, 4, 64, 64), Working(allocator), memory=Tight(allocator),
        meter=meter_of(allocator),
    )  # fmt: skip
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.record.plan.kind == "tiled"


class Believing(Working):
    """Notes what core would evict for."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.believed = []

    def _pixels(self, latent, *, check=True):
        self.believed.append(self.memory_used_decode(tuple(latent.shape), torch.float32))
        return super()._pixels(latent, check=check)


@pytest.mark.parametrize(
    ("sentence", "batch", "request_", "asked", "believed"),
    [
        ("a tile needs what was predicted for it", 2, MANUAL, 120 * 8 * 8 + 1, 120 * 8 * 8 + 1),
        ("a picture likewise", 1, PlanRequest(), 120 * 64 * 64 + 1, 120 * 64 * 64 + 1),
        ("core counts items by itself", 3, PlanRequest(), 3 * 120 * 64 * 64 + 1, 120 * 64 * 64),
    ],
)
def test_the_host_makes_room_for_what_was_predicted(sentence, batch, request_, asked, believed):
    vae = Believing(Allocator())
    memory = Loading(vae.allocator)
    decode(torch.rand(batch, 4, 64, 64), vae, request=request_, memory=memory)
    assert [needed for _, needed, _ in memory.loads] == [asked]
    assert set(vae.believed) == {believed}
    assert vae.memory_used_decode((1, 4, 8, 8), torch.float32) == 100 * 64


def test_a_meter_forgets_its_last_block():
    allocator = Allocator()
    meter = meter_of(allocator)
    with meter:
        allocator.hold(GiB)
    with meter:
        assert meter.measured == Measured()


@pytest.mark.parametrize(
    ("sentence", "looks", "seen", "measured"),
    [
        ("a mark that rose is the exact peak",
         [(100, 500), (100, 900)], None, Measured(800, 800, 800)),
        ("a mark that stood still bounds what was seen",
         [(100, 500), (300, 500)], 400, Measured(None, 300, 400)),
        ("what reached the mark again is exact",
         [(100, 500), (100, 500)], 500, Measured(400, 400, 400)),
        ("a mark that somebody reset bounds nothing",
         [(100, 500), (100, 200)], 250, Measured(None, 150, None)),
        ("torch does not count here: unknown", [(None, None), (None, None)], 1, Measured()),
    ],
)  # fmt: skip
def test_the_measured_peak(sentence, looks, seen, measured):
    counter = Counter(*looks)
    book = PeakBook(counter, StillClock(), ["cuda:0"])
    with PeakMeter("cuda:0", counter, book) as meter:
        if seen is not None:
            book.observe(make_sample(0.0, CUDA, torch_allocated_bytes=seen))
        counter.look = 1
    assert meter.measured == measured, sentence


def test_a_decode_that_fails_is_not_watched_any_more():
    counter = Counter((100, 500))
    book = PeakBook(counter, StillClock(), ["cuda:0"])
    with pytest.raises(LookupError), PeakMeter("cuda:0", counter, book):
        raise LookupError
    assert book.open_watches == 0
