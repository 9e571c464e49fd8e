"""Whether a clip is cut in time, and how: tables of sentences."""

import pytest

from vram_supervisor.nodes.windowing import (
    LEAST_LATENT_FRAMES,
    Clip,
    Windows,
    Wish,
    by_hand,
    to_fit,
)

WAN = Clip(21, 4)
"""81 frames of video."""


def per_frame(latent_frames):
    """Ten bytes for each frame at once."""
    return 10 * latent_frames


@pytest.mark.parametrize(
    ("sentence", "clip", "video", "latent"),
    [
        ("one frame is one latent frame", WAN, 1, 1),
        ("so are a few, for the first holds one only", WAN, 4, 1),
        ("five fill two", WAN, 5, 2),
        ("81 fill 21", WAN, 81, 21),
        ("where time is not compressed each is its own", Clip(9, 1), 7, 7),
    ],
)
def test_frames_of_the_video_and_the_latent(sentence, clip, video, latent):
    assert clip.latent_of(video) == latent, sentence
    assert clip.latent_of(clip.video_of(latent)) == latent


@pytest.mark.parametrize(
    ("sentence", "wish", "windows"),
    [
        ("17 frames are five latent ones, a quarter shared", Wish("manual", 17), (5, 1)),
        ("an overlap of its own", Wish("manual", 33, 16), (9, 4)),
        ("less than a latent frame is one", Wish("manual", 33, 2), (9, 1)),
        ("some of each window is new", Wish("manual", 17, 400), (5, 4)),
        ("one latent frame shares nothing", Wish("manual", 1), (1, 0)),
    ],
)
def test_by_hand(sentence, wish, windows):
    found = by_hand(wish, WAN)
    assert (found.length, found.overlap) == windows, sentence
    assert "as asked for" in found.why


@pytest.mark.parametrize("frames", [0, 81, 200])
def test_by_hand_a_window_as_long_as_the_clip_is_none(frames):
    assert by_hand(Wish("manual", frames), WAN) is None


@pytest.mark.parametrize(
    ("sentence", "wish", "room", "below", "windows"),
    [
        ("as long as fits", Wish(), 100, 21, (10, 2)),
        ("to the byte", Wish(), 109, 21, (10, 2)),
        ("all but one frame", Wish(), 10_000, 21, (20, 5)),
        ("shorter than what ran out", Wish(), 10_000, 12, (11, 2)),
        ("no longer than asked for", Wish("auto", 29), 10_000, 21, (8, 2)),
        ("an overlap of its own", Wish("auto", 0, 16), 100, 21, (10, 4)),
    ],
)
def test_to_fit(sentence, wish, room, below, windows):
    found = to_fit(wish, WAN, per_frame, room, below=below)
    assert (found.length, found.overlap, found.fits) == (*windows, True), sentence
    assert found.predicted_bytes == 10 * found.length


@pytest.mark.parametrize(
    ("sentence", "below", "length"),
    [
        ("the shortest that still sees motion", 21, LEAST_LATENT_FRAMES),
        ("shorter where that ran out of memory", LEAST_LATENT_FRAMES, LEAST_LATENT_FRAMES - 1),
        ("down to a frame at a time", 2, 1),
        ("and no further", 1, 1),
    ],
)
def test_where_nothing_fits_the_shortest_is_tried(sentence, below, length):
    found = to_fit(Wish(), WAN, per_frame, 3, below=below)
    assert (found.length, found.fits) == (length, False), sentence
    assert "is the shortest" in found.why


@pytest.mark.parametrize(
    ("length", "overlap", "count"), [(21, 5, 1), (20, 5, 2), (10, 2, 3), (5, 4, 17), (1, 0, 21)]
)
def test_windows_cover_the_clip(length, overlap, count):
    windows = Windows(length, overlap, "")
    assert windows.count(WAN) == count
    step = length - overlap
    assert (count - 1) * step + length >= WAN.latent_frames
    assert count == 1 or (count - 2) * step + length < WAN.latent_frames
