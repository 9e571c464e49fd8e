import pytest

from vram_supervisor.supervisor.planning.tiling import (
    balanced_tile,
    covered,
    even_tile,
    round_down,
    round_up,
    tile_count,
)


@pytest.mark.parametrize(
    ("sentence", "extent", "tile", "overlap", "count"),
    [
        ("one tile covers what is smaller than it", 100, 128, 32, 1),
        ("one tile covers exactly its own size", 128, 128, 32, 1),
        ("one pixel more takes a second tile", 129, 128, 32, 2),
        ("each further tile adds its size less the overlap", 128 + 96, 128, 32, 2),
        ("and one pixel beyond that takes a third", 128 + 97, 128, 32, 3),
        ("without overlap it is plain division rounded up", 1000, 100, 0, 10),
    ],
)
def test_counting(sentence, extent, tile, overlap, count):
    assert tile_count(extent, tile, overlap) == count


@pytest.mark.parametrize("extent", [130, 512, 720, 1279, 1280, 4096])
@pytest.mark.parametrize("tile", [128, 288, 512])
def test_a_balanced_tile_needs_no_more_tiles_and_is_no_larger(extent, tile):
    balanced = balanced_tile(extent, tile, 32, 32)
    assert balanced <= tile
    assert balanced % 32 == 0
    assert tile_count(extent, balanced, 32) == tile_count(extent, tile, 32)


def test_a_balanced_tile_cannot_be_any_smaller():
    balanced = balanced_tile(1280, 1248, 64, 32)
    assert balanced == 672
    assert tile_count(1280, balanced - 32, 64) > tile_count(1280, balanced, 64)


def test_rounding():
    assert (round_up(65, 32), round_up(64, 32)) == (96, 64)
    assert (round_down(95, 32), round_down(96, 32)) == (64, 96)


@pytest.mark.parametrize("extent", [97, 720, 1280, 4095])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_an_even_tile_is_the_smallest_of_which_so_many_suffice(extent, count):
    tile = even_tile(extent, count, 8)
    assert tile_count(extent, tile, 8) <= count
    assert count == 1 or tile_count(extent, tile - 1, 8) > count


def test_one_even_tile_is_everything():
    assert even_tile(720, 1, 64) == 720


@pytest.mark.parametrize(
    ("sentence", "count", "decoded"),
    [("one tile decodes the extent", 1, 720), ("each shared stretch is decoded twice", 3, 848)],
)
def test_what_tiles_decode_together(sentence, count, decoded):
    assert covered(720, count, 64) == decoded
