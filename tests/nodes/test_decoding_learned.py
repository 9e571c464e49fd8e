"""What a safe decode teaches the forecast, and what it tells of it."""

import pytest

torch = pytest.importorskip("torch")
from support.decoding_world import (  # noqa: E402
    Allocator,
    Card,
    GiB,
    Told,
    Vae,
    Working,
    decode,
    image,
    meter_of,
    on_a_gpu,
    told_need,
)


def gpu_decode(samples, allocator, told, *, memory=None, **options):
    vae = on_a_gpu(Working(allocator, **options))
    decoded = decode(
        samples, vae, memory=memory or Card(), meter=meter_of(allocator), told=told
    )  # fmt: skip
    return vae, decoded


def test_a_measured_decode_is_learned_with_its_time_pixels_and_pieces():
    told = Told()
    _, decoded = gpu_decode(image(3), Allocator(), told)
    ((piece, outcome),) = told.learned
    assert piece == (3, None, 8, 6)
    assert (outcome.measured_bytes, outcome.exact, outcome.failed) == (2 * GiB, True, False)
    assert outcome.seconds == decoded.seconds > 0
    assert (outcome.pixels, outcome.tiles) == (3 * 64 * 48, 1)
    assert decoded.prediction.peak_bytes == 120 * 3 * 8 * 6


def test_where_core_takes_a_batch_apart_the_part_is_what_was_measured():
    allocator, told = Allocator(), Told()
    vae = on_a_gpu(Working(allocator))
    vae.at_once = 1
    decode(image(3), vae, memory=Card(), meter=meter_of(allocator), told=told)
    assert [piece for piece, _ in told.learned] == [(1, None, 8, 6)]
    assert told.learned[0][1].tiles == 3


def test_a_peak_that_is_only_bounded_is_learned_as_a_lower_bound():
    told, allocator = Told(), Allocator(18 * GiB)
    allocator.hold(-18 * GiB)  # the mark stays, so it is no peak of what follows

    class Sampled(Working):
        def _pixels(self, latent, *, check=True):
            self.allocator.hold(GiB)
            return super()._pixels(latent, check=check)

    vae = on_a_gpu(Sampled(allocator))
    decode(image(), vae, memory=Card(), meter=meter_of(allocator), told=told)
    ((_, outcome),) = told.learned
    assert not outcome.exact
    assert outcome.measured_bytes == GiB, "what is still held at the end is known"


def test_a_decode_whose_peak_stays_unknown_still_teaches_its_time():
    told, allocator = Told(), Allocator(18 * GiB)
    allocator.hold(-18 * GiB)
    vae = on_a_gpu(Working(allocator))
    decode(image(), vae, memory=Card(), meter=meter_of(allocator), told=told)
    ((_, outcome),) = told.learned
    assert (outcome.measured_bytes, outcome.exact) == (0, False)
    assert outcome.seconds > 0


def test_a_decode_that_ran_out_teaches_that_it_needs_more_than_was_free():
    told = told_need(2.5)
    latent = torch.rand(1, 4, 64, 64)
    _, decoded = gpu_decode(latent, Allocator(), told, memory=Card(free=3 * GiB), largest=16 * 16)
    assert decoded.record.tried[0] == "whole: ran out of memory"
    piece, outcome = told.learned[0]
    assert piece == (1, None, 64, 64)
    assert (outcome.measured_bytes, outcome.failed, outcome.exact) == (3 * GiB, True, False)


def test_memory_that_another_process_took_meanwhile_does_not_count_as_needed():
    class Shrinking(Card):
        def empty_cache(self):
            self.free = GiB

    told = told_need(2.5)
    latent = torch.rand(1, 4, 64, 64)
    memory = Shrinking(free=3 * GiB)
    gpu_decode(latent, Allocator(), told, memory=memory, largest=16 * 16, whole=1000)
    assert told.learned[0][1].measured_bytes == GiB


def test_running_out_with_far_more_free_than_needed_is_not_believed_in_full():
    told = told_need(0.5)
    latent = torch.rand(1, 4, 64, 64)
    gpu_decode(latent, Allocator(), told, memory=Card(free=3 * GiB), largest=16 * 16, whole=1000)
    assert told.learned[0][1].measured_bytes == 0.75 * GiB


def test_pictures_that_stay_on_the_device_are_room_held_back_and_teach_nothing():
    vae = on_a_gpu(Working(Allocator()))
    vae.output_device = vae.device
    told = told_need(1)
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=Card(free=3 * GiB),
        meter=meter_of(vae.allocator), told=told,
    )  # fmt: skip
    assert decoded.record.budget_bytes == 3 * GiB - 2 * 512 * 512 * 3 * 4
    assert told.learned == []


def test_on_the_cpu_nothing_is_learned():
    told = Told()
    decode(torch.rand(1, 4, 64, 64), Vae(largest=16 * 16), told=told)
    assert told.learned == []


def test_what_the_native_allocator_cannot_fill_is_no_budget():
    told = Told(allocator="native")
    _, decoded = gpu_decode(image(), Allocator(), told, memory=Card(free=12 * GiB))
    assert decoded.record.budget_bytes == 10 * GiB
    assert decoded.record.free_bytes == 12 * GiB


def test_before_an_unknown_decoders_first_plan_a_corner_is_decoded_to_measure():
    told = Told(wants_probe=True)
    vae, decoded = gpu_decode(torch.rand(2, 4, 64, 64), Allocator(), told)
    assert vae.calls == [("whole", (1, 4, 8, 8)), ("whole", (2, 4, 64, 64))]
    assert told.learned[0][0] == (1, None, 8, 8)
    assert decoded.record.tried[0] == "a small corner, to measure: done"
    assert tuple(decoded.images.shape) == (2, 512, 512, 3)


def test_a_corner_that_the_decoder_refuses_does_not_fail_the_decode():
    class NotSmall(Working):
        def _pixels(self, latent, *, check=True):
            if latent.shape[-1] < 16:
                raise ValueError("too small")
            return super()._pixels(latent, check=check)

    allocator = Allocator()
    vae = on_a_gpu(NotSmall(allocator))
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=Card(), meter=meter_of(allocator),
        told=Told(wants_probe=True),
    )  # fmt: skip
    assert decoded.record.tried == ["a small corner, to measure: ValueError", "whole: done"]


def test_the_report_tells_predicted_measured_free_and_why():
    from vram_supervisor.nodes.report import decode_facts

    _, decoded = gpu_decode(image(), Allocator(), Told(), memory=Card(free=12 * GiB))
    facts = decode_facts(decoded)
    need = 120 * 8 * 6
    assert facts["prediction"] == {
        "predicted_peak_bytes": need, "base_bytes": need, "source": "prior",
        "reason": "as told", "dry_run": "formula", "seconds": None,
    }  # fmt: skip
    assert facts["measured_peak_bytes"] == 2 * GiB
    assert facts["measured_seconds"] is not None
    assert facts["free_bytes"] == facts["budget_bytes"] == 12 * GiB
    assert facts["plans"][facts["chosen"]]["kind"] == facts["plan"]["kind"] == "whole"
    assert facts["why"].startswith("whole: needs ")
    assert facts["why"].endswith("(as told)")
