"""What was put in bands or in stretches of time is read back as it was, in any rectangle."""

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import noise  # noqa: E402

from vram_supervisor.supervisor.decode.parking import HostPages, Parking  # noqa: E402
from vram_supervisor.supervisor.decode.store import Bands, Clip, frames_of  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402

CPU = torch.device("cpu")
HEIGHT, WIDTH = 9, 7
RECTS = [
    Rect(0, 9, 0, 7),
    Rect(0, 1, 0, 1),
    Rect(8, 9, 6, 7),
    Rect(2, 5, 1, 6),
    Rect(3, 4, 0, 7),
    Rect(0, 9, 3, 4),
]


@pytest.fixture(params=[0, 200, 1 << 40], ids=["parked", "mixed", "resident"])
def parking(request):
    return Parking(CPU, request.param, HostPages(96, locks=False))


def cut_of(x, rect):
    return x[..., rect.top : rect.bottom, rect.left : rect.right]


def banded(parking, axis, cuts, *shape):
    x = noise(*shape, HEIGHT, WIDTH)
    bands = Bands(parking, axis, HEIGHT, WIDTH)
    for start, stop in cuts:
        whole = Rect(start, stop, 0, WIDTH) if axis == "rows" else Rect(0, HEIGHT, start, stop)
        bands.put(start, cut_of(x, whole))
    return x, bands


ROWS = [[(0, 9)], [(0, 4), (4, 9)], [(0, 1), (1, 2), (2, 8), (8, 9)]]
COLUMNS = [[(0, 7)], [(0, 3), (3, 7)], [(0, 1), (1, 6), (6, 7)]]
CUTS = [("rows", cuts) for cuts in ROWS] + [("columns", cuts) for cuts in COLUMNS]


@pytest.mark.parametrize(("axis", "cuts"), CUTS)
@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 3)], ids=["picture", "clip"])
@pytest.mark.parametrize("prefetched", [False, True])
def test_any_rectangle_of_bands(parking, axis, cuts, shape, prefetched):
    x, bands = banded(parking, axis, cuts, *shape)
    for rect in RECTS:
        if prefetched:
            bands.prefetch(rect)
        read = bands.read(rect)
        assert read.is_contiguous()
        assert torch.equal(read, cut_of(x, rect))
    bands.close()
    assert (parking.resident_bytes, parking._pages.taken) == (0, 0)


def test_what_was_put_wrongly_is_forgotten(parking):
    x, bands = banded(parking, "rows", [(0, 4)], 1, 2)
    bands.put(4, torch.zeros(1, 2, 5, WIDTH))
    bands.truncate(4)
    bands.put(4, x[..., 4:6, :])
    bands.put(6, x[..., 6:, :])
    assert torch.equal(bands.read(RECTS[0]), x)
    bands.close()
    assert (parking.resident_bytes, parking._pages.taken) == (0, 0)


def test_bands_behind_are_let_go_one_by_one(parking):
    x, bands = banded(parking, "rows", [(0, 3), (3, 6), (6, 9)], 1, 2)
    size = 3 * WIDTH * 2 * 4

    def kept():
        return parking.resident_bytes + sum(each.size_bytes for each in parking._held if each.pages)

    bands.move_on(2, release=True)
    assert kept() == 3 * size
    bands.move_on(3, release=True)
    assert kept() == 2 * size
    bands.move_on(8, release=False)
    assert torch.equal(bands.read(Rect(3, 9, 0, WIDTH)), x[..., 3:, :])
    bands.move_on(9, release=True)
    assert kept() == 0


def test_passes_may_follow_each_other(parking):
    x, bands = banded(parking, "rows", [(0, 3), (3, 6), (6, 9)], 1, 2)
    for _ in range(3):
        for top in (0, 3, 6):
            rect = Rect(max(0, top - 1), min(9, top + 4), 0, WIDTH)
            assert torch.equal(bands.read(rect), cut_of(x, rect))
            bands.move_on(top + 2, release=False)
        bands.rewind()


def test_parked_bands_come_back_once_a_pass():
    parking = Parking(CPU, 0, HostPages(96, locks=False))
    _, bands = banded(parking, "rows", [(0, 3), (3, 6), (6, 9)], 1, 2)
    parked = parking.moved_bytes
    for top in range(9):
        bands.prefetch(Rect(min(8, top + 1), min(9, top + 2), 0, WIDTH))
        bands.read(Rect(top, top + 1, 0, WIDTH))
        bands.move_on(top + 1, release=False)
    assert parking.moved_bytes == 2 * parked


# Clips.


@pytest.mark.parametrize("lengths", [(6,), (1, 5), (2, 1, 3), (1, 1, 1, 1, 1, 1)])
def test_any_frames_of_any_rectangle_of_a_clip(parking, lengths):
    x = noise(1, 2, 6, HEIGHT, WIDTH)
    clip = Clip(parking)
    for piece in x.split(lengths, dim=2):
        clip.put(piece)
    assert (clip.frames, clip.height, clip.width) == (6, HEIGHT, WIDTH)
    for rect in RECTS:
        for first in range(6):
            for frames in range(1, 7 - first):
                read = clip.read(first, frames, rect)
                assert read.is_contiguous()
                assert torch.equal(read, cut_of(x, rect)[:, :, first : first + frames])
    assert torch.equal(clip.whole(), x)
    clip.close()
    assert (parking.resident_bytes, parking._pages.taken) == (0, 0)


def test_a_picture_is_a_clip_of_one_frame(parking):
    x = noise(1, 2, HEIGHT, WIDTH)
    clip = Clip(parking)
    clip.put(x)
    assert clip.frames == frames_of(x) == 1
    for rect in RECTS:
        assert torch.equal(clip.read(0, 1, rect), cut_of(x, rect))
    assert torch.equal(clip.whole(), x)


def test_scattered_tensors_are_kept_rightly(parking):
    x = noise(1, WIDTH, HEIGHT, 2).transpose(1, 3)
    clip = Clip(parking)
    clip.put(x)
    assert torch.equal(clip.whole(), x)
