import pytest

from vram_supervisor.supervisor.decode.tiles import Rect


def test_rectangles_scale_and_shift():
    assert Rect(1, 3, 2, 5).scaled(8) == Rect(8, 24, 16, 40)
    assert Rect(5, 7, 6, 9).relative_to(Rect(4, 9, 5, 9)) == Rect(1, 3, 1, 4)


@pytest.mark.parametrize(
    ("sentence", "halo", "grown"),
    [
        ("by its halo on all sides", 1, (4, 8, 5, 10)),
        ("but not beyond the picture", 6, (0, 9, 0, 12)),
    ],
)
def test_a_rectangle_grows(sentence, halo, grown):
    assert Rect(5, 7, 6, 9).grown(halo, 9, 12) == Rect(*grown)
