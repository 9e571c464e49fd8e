"""What waits is the same afterwards, wherever it waited, and nothing is left behind."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import noise  # noqa: E402

from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402

CPU = torch.device("cpu")


def parking(limit_bytes, page_bytes=64):
    pages = HostPages(page_bytes, locks=False)
    return Parking(CPU, limit_bytes, pages), pages


@pytest.mark.parametrize(
    ("sentence", "limit_bytes", "resident"),
    [
        ("there is room for everything", 1000, [True, True, True]),
        ("the first two fill it to the byte", 200, [True, True, False]),
        ("there is room for one and a half", 150, [True, False, False]),
        ("a later one still fits where a larger one did not", 120, [True, False, False]),
        ("there is no room at all", 0, [False, False, False]),
    ],
)
def test_what_fits_stays(sentence, limit_bytes, resident):
    place, pages = parking(limit_bytes)
    tensors = [noise(25, seed=seed) for seed in range(3)]
    held = [place.keep(each) for each in tensors]
    assert [each.resident is not None for each in held] == resident
    assert place.resident_bytes == 100 * sum(resident)
    assert pages.taken == 2 * resident.count(False)
    for tensor, each in zip(tensors, held, strict=True):
        assert torch.equal(place.get(each), tensor)
        assert torch.equal(place.take(each), tensor)
    assert (place.resident_bytes, pages.taken) == (0, 0)


@pytest.mark.parametrize("page_bytes", [1, 3, 4, 64, 400, 401, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_pages_of_any_size_hold_any_type(page_bytes, dtype):
    place, pages = parking(0, page_bytes)
    tensor = (noise(2, 5, 10) * 3).to(dtype)
    held = place.keep(tensor)
    assert pages.taken == -(-tensor.numel() * tensor.element_size() // page_bytes)
    tensor_again = place.take(held)
    assert tensor_again.dtype == dtype
    assert torch.equal(tensor_again, tensor)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_scalars_and_empty_tensors_wait_too(shape):
    place, pages = parking(1000)
    tensor = torch.ones(shape)
    held = place.keep(tensor)
    place.park_everything()
    assert torch.equal(place.take(held), tensor)
    assert (place.resident_bytes, pages.taken) == (0, 0)


def test_pages_that_were_freed_serve_again():
    place, pages = parking(0)
    first = place.keep(noise(64))
    place.drop(first)
    assert pages.held_bytes == 256
    place.keep(noise(32, seed=2))
    place.keep(noise(32, seed=3))
    assert pages.held_bytes == 256


def test_a_page_that_serves_again_keeps_nothing_of_before():
    place, _ = parking(0)
    place.drop(place.keep(noise(16)))
    other = noise(16, seed=5)
    assert torch.equal(place.take(place.keep(other)), other)


def test_trimming_gives_back_what_nobody_uses():
    place, pages = parking(0)
    held = [place.keep(noise(16, seed=seed)) for seed in range(3)]
    place.drop(held[0])
    assert pages.trim() == 64
    assert pages.held_bytes == 128
    assert torch.equal(place.take(held[2]), noise(16, seed=2))
    assert pages.trim(keep_bytes=100) == 0 or pages.held_bytes <= 100


def test_containers_come_back_as_they_were():
    place, pages = parking(20)
    state = {"a": [noise(4), (noise(2, seed=2), "text", None)], "b": 7}
    kept = place.keep_all(state)
    assert pages.taken == 1
    again = place.take_all(kept)
    assert (again["b"], again["a"][1][1:]) == (7, ("text", None))
    assert torch.equal(again["a"][0], state["a"][0])
    assert torch.equal(again["a"][1][0], state["a"][1][0])
    assert (place.resident_bytes, pages.taken) == (0, 0)


def test_scattered_tensors_in_containers_come_back():
    place, _ = parking(0)
    scattered = noise(4, 6).T[1:, ::2]
    assert torch.equal(place.take_all(place.keep_all([scattered]))[0], scattered)


def test_everything_parks_when_memory_ran_out():
    place, pages = parking(1 << 20)
    tensors = [noise(40, seed=seed) for seed in range(3)]
    held = [place.keep(each) for each in tensors]
    place.park_everything()
    assert place.resident_bytes == 0
    assert pages.taken == 9
    place.park_everything()
    assert pages.taken == 9
    for tensor, each in zip(tensors, held, strict=True):
        assert torch.equal(place.get(each), tensor)


def test_a_parked_tensor_is_not_kept_alive():
    place, _ = parking(0)
    tensor = noise(16)
    gone = weakref.ref(tensor.untyped_storage())
    held = place.keep(tensor)
    del tensor
    gc.collect()
    assert gone() is None
    assert held.resident is None


@pytest.mark.parametrize("limit_bytes", [0, 1000])
def test_closing_forgets_everything(limit_bytes):
    place, pages = parking(limit_bytes)
    tensor = noise(40)
    gone = weakref.ref(tensor.untyped_storage())
    held = place.keep(tensor)
    place.keep_all([noise(3), noise(5)])
    del tensor
    place.close()
    place.drop(held)
    gc.collect()
    assert gone() is None
    assert (place.resident_bytes, pages.taken) == (0, 0)


def test_dropping_twice_counts_once():
    place, pages = parking(100)
    held = place.keep(noise(10))
    place.drop(held)
    place.drop(held)
    assert (place.resident_bytes, pages.taken) == (0, 0)


def test_what_moved_is_counted_both_ways():
    place, _ = parking(0)
    held = place.keep(noise(10))
    place.get(held)
    place.get(held)
    assert place.moved_bytes == 3 * 40


# Host memory that runs out.


class ScarcePages(HostPages):
    """Fails at the ``at``-th page that must be made, once."""

    def __init__(self, at, page_bytes=64):
        super().__init__(page_bytes, locks=False)
        self.at, self.made = at, 0

    def _new(self):
        self.made += 1
        if self.made == self.at:
            raise MemoryError
        return super()._new()


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_tensor_that_cannot_be_parked_leaves_nothing_behind(at):
    pages = ScarcePages(at)
    place = Parking(CPU, 0, pages)
    tensor = noise(64)
    gone = weakref.ref(tensor.untyped_storage())
    with pytest.raises(MemoryError):
        place.keep(tensor)
    assert (place.resident_bytes, pages.taken) == (0, 0)
    assert torch.equal(place.take(place.keep(tensor)), tensor)
    assert pages.taken == 0
    del tensor
    gc.collect()
    assert gone() is None


def test_parking_everything_that_fails_half_way_can_be_done_again():
    pages = ScarcePages(4)
    place = Parking(CPU, 1 << 20, pages)
    tensors = [noise(32, seed=seed) for seed in range(3)]
    held = [place.keep(each) for each in tensors]
    with pytest.raises(MemoryError):
        place.park_everything()
    assert pages.taken == 2
    assert place.resident_bytes == 2 * 128
    place.park_everything()
    assert [torch.equal(place.take(h), t) for h, t in zip(held, tensors, strict=True)] == [True] * 3
    assert (place.resident_bytes, pages.taken) == (0, 0)
