import pytest

from vram_supervisor.supervisor.decode.tiles import Rect, Tile, cover, split, tiles_of
from vram_supervisor.supervisor.types import Plan

SIZES = [(1, 1), (7, 13), (16, 40), (23, 61), (33, 32), (90, 160)]
CUTS = [(None, 0), (12, 5), (13, 5), (16, 0), (17, 6), (64, 6), (200, 8)]


def times_covered(tiles, height, width):
    counts = [[0] * width for _ in range(height)]
    for tile in tiles:
        for row in range(tile.owned.top, tile.owned.bottom):
            for column in range(tile.owned.left, tile.owned.right):
                counts[row][column] += 1
    return {count for row in counts for count in row}


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("edge", "halo"), CUTS)
def test_every_position_is_owned_exactly_once(height, width, edge, halo):
    assert times_covered(cover(height, width, edge, halo), height, width) == {1}


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("edge", "halo"), CUTS)
def test_every_tile_sees_its_halo_but_never_more_than_its_size(height, width, edge, halo):
    for tile in cover(height, width, edge, halo):
        assert tile.context == tile.owned.grown(halo, height, width)
        if edge is not None:
            assert tile.context.height <= edge
            assert tile.context.width <= edge


def test_a_plan_without_a_tile_size_is_one_tile():
    plan = Plan("whole", 1, "", 0, fits=True)
    everything = Rect(0, 20, 0, 30)
    assert tiles_of(plan, 20, 30, 8) == (Tile(everything, everything),)


def test_a_plans_pixels_become_latents():
    plan = Plan("streamed", 2, "", 0, fits=True, tile_size=224, overlap=80)
    tiles = tiles_of(plan, 16, 40, 8)
    assert [tile.owned for tile in tiles] == [Rect(0, 16, 0, 20), Rect(0, 16, 20, 40)]
    assert [tile.context for tile in tiles] == [Rect(0, 16, 0, 25), Rect(0, 16, 15, 40)]


def test_a_rectangular_plan_cuts_each_axis_by_its_own_size():
    plan = Plan(
        "streamed", 3, "", 0, fits=True, tile_size=224, overlap=32, tile_height=128, tile_width=224
    )
    tiles = tiles_of(plan, 16, 68, 8)
    assert [tile.owned for tile in tiles] == [
        Rect(0, 16, 0, 24), Rect(0, 16, 24, 46), Rect(0, 16, 46, 68),
    ]  # fmt: skip
    assert max(tile.context.width for tile in tiles) <= 224 // 8


@pytest.mark.parametrize(
    ("sentence", "owned", "first", "second"),
    [
        ("tall tiles split into top and bottom", (0, 8, 0, 4), (0, 4, 0, 4), (4, 8, 0, 4)),
        ("wide tiles split into left and right", (0, 4, 0, 9), (0, 4, 0, 4), (0, 4, 4, 9)),
        ("two rows of one split into single ones", (2, 4, 3, 4), (2, 3, 3, 4), (3, 4, 3, 4)),
    ],
)
def test_splitting(sentence, owned, first, second):
    parts = split(Tile(Rect(*owned), Rect(*owned)), 20, 20, 2)
    assert [part.owned for part in parts] == [Rect(*first), Rect(*second)]
    assert all(part.context == part.owned.grown(2, 20, 20) for part in parts)


def test_a_single_position_does_not_split():
    one = Rect(3, 4, 5, 6)
    assert split(Tile(one, one), 20, 20, 2) is None


def test_rectangles_scale_and_shift():
    assert Rect(1, 3, 2, 5).scaled(8) == Rect(8, 24, 16, 40)
    assert Rect(5, 7, 6, 9).relative_to(Rect(4, 9, 5, 9)) == Rect(1, 3, 1, 4)
