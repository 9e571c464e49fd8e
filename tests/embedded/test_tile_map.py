import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402
from vram_supervisor.supervisor.embedded.tile_map import MappedOutput, TileMap  # noqa: E402

LEFT, RIGHT = Rect(0, 8, 0, 8), Rect(0, 8, 8, 12)


class Page:
    """Sees all tiles after every change."""

    def __init__(self, tiles=(LEFT, RIGHT), frames=5):
        self.seen = []
        self.map = TileMap(tiles, frames, self.seen.append)

    @property
    def shares(self):
        return {(t.x, t.y, t.w, t.h): t.share_done for t in self.seen[-1]}


def times_covered(tiles, height, width):
    counts = torch.zeros(height, width, dtype=torch.int)
    for tile in tiles:
        counts[tile.y : tile.y + tile.h, tile.x : tile.x + tile.w] += 1
    return set(counts.flatten().tolist())


def test_tiles_are_shown_empty_and_fill():
    page = Page()
    assert page.shares == {(0, 0, 8, 8): 0.0, (8, 0, 4, 8): 0.0}
    assert {(tile.t0, tile.t1) for tile in page.seen[-1]} == {(0, 5)}
    page.map.fill(LEFT, 1)
    assert page.shares == {(0, 0, 8, 8): 0.2, (8, 0, 4, 8): 0.0}
    page.map.fill(LEFT, 5, done=True)
    assert [tile.done for tile in page.seen[-1]] == [True, False]


@pytest.mark.parametrize(
    ("sentence", "parts", "tiles"),
    [
        ("the first half leaves the other one", [(0, 4, 0, 8)], 3),
        ("a half of a half leaves two", [(0, 4, 0, 4)], 4),
        ("quarters, one by one", [(0, 4, 0, 4), (0, 4, 4, 8), (4, 8, 0, 4), (4, 8, 4, 8)], 5),
        ("halves of what was cut otherwise", [(0, 4, 0, 4), (4, 8, 0, 4), (0, 8, 4, 8)], 4),
        ("the middle leaves all around", [(2, 6, 2, 6)], 6),
    ],
)
def test_what_is_decoded_instead_of_a_tile_takes_its_place(sentence, parts, tiles):
    page = Page()
    page.map.fill(RIGHT, 5, done=True)
    for part in parts:
        page.map.fill(Rect(*part), 5, done=True)
        assert times_covered(page.seen[-1], 8, 12) == {1}
        assert page.shares[8, 0, 4, 8] == 1.0, "what is done stays"
    assert len(page.seen[-1]) == tiles


def test_an_output_fills_the_map_and_the_sink():
    page, sink = Page(frames=3), TensorSink()
    sink.begin(3, 8, 12, 3)
    output = MappedOutput(sink, 3, page.map)
    pixels = torch.randn(1, 3, 3, 8, 8)
    output.write(0, LEFT, pixels[:, :, :2])
    assert page.shares[0, 0, 8, 8] == pytest.approx(2 / 3, abs=1e-4)
    output.forget(LEFT)
    assert page.shares[0, 0, 8, 8] == 0
    output.write(0, LEFT, pixels)
    assert not page.seen[-1][0].done
    output.commit(0, 3, LEFT)
    output.flush()
    assert page.seen[-1][0].done
    assert torch.equal(sink.pixels[:, :, :8], pixels[0].permute(1, 2, 3, 0))
    assert sink.has(0, 3, LEFT)
    assert not sink.has(0, 3, RIGHT)
