"""The ladder on a scripted device: what it tries, in which order, and what it says."""

from dataclasses import dataclass, field

import pytest

from vram_supervisor.nodes.ladder import Ladder, LadderExhausted, Question, RanOut, Record
from vram_supervisor.supervisor.planning.types import DecodeShape, PlanRequest

MiB = 1 << 20
SHAPE = DecodeShape(1, 4, None, 128, 128, 8, 1)


class PerPixel:
    """64 bytes per decoded pixel: 64 MiB for the 1024 px picture."""

    def need_bytes(self, batch, frames, height, width):
        return batch * (frames or 1) * height * width * 64 * 64


@dataclass
class Device:
    """``free`` bytes are told; an attempt that needs more than ``truth`` runs out."""

    free: int
    evictable: int = 0
    truth: int = 1 << 60
    """What really fits, whatever is told."""
    evicted: list = field(default_factory=list)
    attempts: list = field(default_factory=list)
    emptied: int = 0
    interrupt_at: int | None = None

    def budget_bytes(self):
        return self.free

    def evictable_bytes(self):
        return self.evictable

    def next_use_bytes(self):
        return 0

    def host_free_bytes(self):
        return 1 << 40

    def evict(self, needed_bytes):
        freed = min(self.evictable, max(0, needed_bytes - self.free))
        self.evicted.append(needed_bytes)
        self.free += freed
        self.truth += freed
        self.evictable -= freed
        return freed

    def ran_out(self):
        self.emptied += 1

    def exact_plan(self, room, request, times):
        """This decoder cannot be taken apart."""

    def exact_smaller(self, plan, room, request):
        raise AssertionError("there is no plan in exact parts")

    def on_cpu(self, plan):
        raise AssertionError("there is no plan in exact parts")

    def is_exact(self, plan):
        return False

    def check_interrupt(self):
        if self.interrupt_at == len(self.attempts):
            raise KeyboardInterrupt

    def run(self, plan):
        self.attempts.append((plan.kind, plan.tile_size))
        edge = plan.tile_size or 1024
        if edge * edge * 64 > self.truth:
            raise RanOut
        return "pixels"


def climb(device, **request):
    record = Record()
    question = Question(SHAPE, PerPixel(), PlanRequest(**request), temporal_tiling=True)
    return Ladder(device, question, record).climb(), record


def test_a_decode_that_fits_is_whole_and_evicts_nothing():
    device = Device(free=100 * MiB, evictable=100 * MiB)
    _, record = climb(device)
    assert device.attempts == [("whole", None)]
    assert device.evicted == []
    assert record.tried == ["whole: done"]
    assert record.budget_bytes == 100 * MiB


def test_where_eviction_makes_the_whole_decode_fit_it_evicts_first():
    device = Device(free=40 * MiB, evictable=40 * MiB)
    _, record = climb(device)
    assert device.attempts == [("evict", None)]
    assert record.plan.kind == "evict"
    assert record.tried == [
        "evicted other models: 24.0 MiB freed",
        "whole, after evicting: done",
    ]


def test_where_nothing_can_be_evicted_it_tiles_at_once():
    device = Device(free=20 * MiB)
    _, record = climb(device)
    assert device.attempts[0][0] == "tiled"
    assert record.plan.predicted_peak_bytes <= 20 * MiB


def test_a_prediction_that_was_too_low_evicts_and_retries_whole_before_it_tiles():
    device = Device(free=70 * MiB, evictable=30 * MiB, truth=50 * MiB)
    _, record = climb(device)
    assert device.attempts == [("whole", None), ("evict", None)]
    assert record.tried == [
        "whole: ran out of memory",
        "evicted other models: 30.0 MiB freed",
        "whole, after evicting: done",
    ]


def test_manual_tiles_that_run_out_evict_and_are_retried_before_they_shrink():
    device = Device(free=70 * MiB, evictable=400 * MiB, truth=MiB)
    _, record = climb(device, manual=True, tile_size=256)
    assert device.attempts == [("tiled", 256), ("tiled", 256)]
    assert device.evicted == [470 * MiB]
    assert record.plan.kind == "tiled"
    assert record.tried == [
        "tiles of 256 px: ran out of memory",
        "evicted other models: 400.0 MiB freed",
        "tiles of 256 px: done",
    ]


def test_automatic_tiles_that_run_out_evict_and_are_retried_before_they_shrink():
    device = Device(free=20 * MiB, evictable=20 * MiB, truth=MiB)
    climb(device)
    (first, again) = device.attempts
    assert first == again
    assert first[0] == "tiled"
    assert device.evictable == 0


def test_a_partial_eviction_does_not_stand_in_the_way_of_the_full_one():
    device = Device(free=40 * MiB, evictable=100 * MiB, truth=30 * MiB)
    _, record = climb(device)
    assert device.attempts == [("evict", None), ("evict", None)]
    assert record.tried == [
        "evicted other models: 24.0 MiB freed",
        "whole, after evicting: ran out of memory",
        "evicted other models: 76.0 MiB freed",
        "whole, after evicting: done",
    ]


def test_a_cleanup_beforehand_does_not_stand_in_the_way_of_the_full_eviction():
    device = Device(free=40 * MiB, evictable=100 * MiB, truth=30 * MiB)
    climb(device, cleanup_before_decode=True)
    assert device.attempts == [("whole", None), ("evict", None)]
    assert device.evictable == 0


def test_models_that_do_not_go_are_evicted_once_and_then_the_tiles_shrink():
    class Stubborn(Device):
        def evict(self, needed_bytes):
            self.evicted.append(needed_bytes)
            return 0

    device = Stubborn(free=70 * MiB, evictable=30 * MiB, truth=5 * MiB)
    climb(device)
    assert device.attempts[:2] == [("whole", None), ("evict", None)]
    assert device.attempts[-1][0] == "tiled"
    assert device.evicted == [100 * MiB]


def test_tiles_shrink_until_they_fit_whatever_was_predicted():
    device = Device(free=70 * MiB, truth=5 * MiB)
    _, record = climb(device)
    sizes = [size for _, size in device.attempts]
    assert sizes[0] is None
    assert sizes[1:] == sorted(sizes[1:], reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert record.tried[-1] == f"tiles of {sizes[-1]} px: done"
    assert device.emptied == len(sizes) - 1


def test_when_the_smallest_tiles_run_out_every_attempt_is_told():
    device = Device(free=70 * MiB, truth=0)
    record = Record()
    ladder = Ladder(
        device, Question(SHAPE, PerPixel(), PlanRequest(), temporal_tiling=True), record
    )
    with pytest.raises(LadderExhausted):
        ladder.climb()
    assert record.tried[0] == "whole: ran out of memory"
    assert record.tried[-1] == "tiles of 64 px: ran out of memory"


def test_where_nothing_is_predicted_to_fit_the_smallest_tiles_are_tried():
    device = Device(free=1)
    _, record = climb(device)
    assert device.attempts == [("tiled", 64)]
    assert not record.plan.fits
    assert any("nothing is predicted to fit" in warning for warning in record.plan.warnings)


def test_cleanup_before_the_decode_frees_only_what_the_decode_needs():
    device = Device(free=40 * MiB, evictable=100 * MiB)
    _, record = climb(device, cleanup_before_decode=True)
    assert device.evicted == [64 * MiB]
    assert record.tried[0] == "cleaned up before the decode: 24.0 MiB freed"
    assert record.tried[-1] == "whole: done"


def test_tile_off_is_tiled_all_the_same_where_whole_cannot_fit():
    device = Device(free=20 * MiB)
    _, record = climb(device, tile=False)
    assert record.plan.kind == "tiled"
    assert any("tile is off" in warning for warning in record.plan.warnings)


def test_an_interrupt_between_attempts_ends_the_climb():
    device = Device(free=70 * MiB, truth=0, interrupt_at=1)
    with pytest.raises(KeyboardInterrupt):
        climb(device)
    assert len(device.attempts) == 1


def test_an_error_that_is_no_oom_passes_through():
    class Broken(Device):
        def run(self, plan):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        climb(Broken(free=70 * MiB))


def test_figures_that_change_their_kind_half_way_do_not_end_the_climb():
    class Turning(PerPixel):
        """Exact for the whole picture until a tile is asked for: from then on a hundred times."""

        factor = 1

        def need_bytes(self, batch, frames, height, width):
            if height < 128:
                self.factor = 100
            return self.factor * super().need_bytes(batch, frames, height, width)

    device = Device(free=70 * MiB, truth=5 * MiB)
    record = Record()
    question = Question(SHAPE, Turning(), PlanRequest(), temporal_tiling=True)
    Ladder(device, question, record).climb()
    assert record.plan.kind == "tiled"
