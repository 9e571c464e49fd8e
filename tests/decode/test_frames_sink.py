"""Frames as they reach the disk: whole or in parts, as pictures or as a video."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.frames_on_disk import (
    BANDS,
    FRAMES,
    HEIGHT,
    TILES,
    WHOLE,
    WIDTH,
    bytes_of,
    frame_names,
    frames_on_disk,
    give,
    give_all,
    give_uncommitted,
    job_in,
    names,
    picture_at,
    scratches,
    sink_for,
    video_frames,
    visible,
)

from vram_supervisor.supervisor.decode.frames.sink import FrameSink
from vram_supervisor.supervisor.decode.frames.video import check_video_writer
from vram_supervisor.supervisor.decode.tiles import Rect
from vram_supervisor.supervisor.errors import (
    FramesNotWrittenError,
    VideoWriterMissingError,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frames"


def test_whole_frames_come_out_as_they_went_in_with_only_the_manifest_beside_them(folder):
    pixels = bytes_of()
    with sink_for(job_in(folder)) as sink:
        give_all(sink, pixels)
    assert (frames_on_disk(folder) == pixels).all()
    assert visible(folder) == frame_names()
    assert len(names(folder)) == FRAMES + 1
    assert sink.session.saved == FRAMES


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_grey_and_alpha_are_kept(folder, channels, mode):
    pixels = bytes_of(channels=channels)
    with FrameSink(job_in(folder)) as sink:
        sink.begin(FRAMES, HEIGHT, WIDTH, channels)
        give_all(sink, pixels)
        sink.finish()
    with Image.open(folder / "frame_00003.png") as picture:
        assert picture.mode == mode
    assert (frames_on_disk(folder).reshape(pixels.shape) == pixels).all()


def test_channels_without_a_file_format_are_an_error_before_anything_is_written(folder):
    with FrameSink(job_in(folder)) as sink:
        with pytest.raises(FramesNotWrittenError, match="2 channels"):
            sink.begin(FRAMES, HEIGHT, WIDTH, 2)
        assert not folder.exists()


def test_values_outside_the_range_are_clipped_and_nan_is_black(folder):
    with FrameSink(job_in(folder)) as sink:
        sink.begin(1, 1, 4, 3)
        values = torch.tensor([-1.0, 2.0, float("nan"), 0.5]).reshape(1, 1, 4, 1)
        sink.write(0, Rect(0, 1, 0, 4), values.expand(1, 1, 4, 3))
        sink.commit(0, 1, Rect(0, 1, 0, 4))
        sink.finish()
    picture = picture_at(folder / "frame_00000.png")
    assert picture[0, :, 0].tolist() == [0, 255, 0, 128]


def test_jpeg_has_the_quality_it_was_given(folder):
    sizes = {}
    for quality in (10, 95):
        with sink_for(job_in(folder, kind="jpg", quality=quality)) as sink:
            give_all(sink, bytes_of())
        assert visible(folder) == frame_names(kind="jpg")
        sizes[quality] = (folder / "frame_00000.jpg").stat().st_size
    assert sizes[10] < sizes[95]


@pytest.mark.parametrize("tiles", [TILES, BANDS], ids=["tiles", "bands"])
def test_tiles_through_all_frames_become_whole_frames(folder, tiles):
    pixels = bytes_of()
    with sink_for(job_in(folder)) as sink:
        for tile in tiles:
            assert visible(folder) in ([], [next(iter(scratches(folder)), "")])
            give(sink, pixels, 0, FRAMES, tile, chunk=3)
    assert (frames_on_disk(folder) == pixels).all()
    assert visible(folder) == frame_names(), "the scratch file is gone"


def test_bands_of_a_chunk_of_time_become_frames_before_the_next_chunk(folder):
    pixels = bytes_of()
    with sink_for(job_in(folder), scratch_kept_bytes=1) as sink:
        for first in (0, 5):
            for band in BANDS:
                give(sink, pixels, first, 5, band)
            assert [sink.has(0, first + 5, WHOLE), sink.session.saved] == [True, first + 5]
            assert (folder / scratches(folder)[0]).stat().st_size == 0, "it was emptied"
    assert (frames_on_disk(folder) == pixels).all()


def test_a_part_written_twice_before_its_commit_counts_once_and_the_later_wins(folder):
    pixels = bytes_of()
    with sink_for(job_in(folder)) as sink:
        give_uncommitted(sink, bytes_of(2), TILES[0])
        give(sink, pixels, 0, FRAMES, TILES[0])
        for tile in TILES[1:]:
            give(sink, pixels, 0, FRAMES, tile)
        kept = sink.session._scratch.size_bytes
        assert kept == pixels.size
    assert (frames_on_disk(folder) == pixels).all()


def test_pixels_count_only_once_they_are_committed(folder):
    with sink_for(job_in(folder), finish=False) as sink:
        give_uncommitted(sink, bytes_of(), TILES[0])
        assert not sink.has(0, FRAMES, TILES[0])
        sink.begin(FRAMES, HEIGHT, WIDTH, 3)
        sink.commit(0, FRAMES, TILES[0])
        assert not sink.has(0, FRAMES, TILES[0]), "it began again: that was thrown away"
        give(sink, bytes_of(), 0, FRAMES, TILES[0])
        assert sink.has(3, 2, TILES[0])
        assert not sink.has(3, 2, TILES[1])


def test_memory_holds_a_bounded_number_of_frames_whatever_comes_first(folder):
    for name, parts in {"whole": [WHOLE], "tiles": TILES}.items():
        with sink_for(job_in(folder / name), held_frames=2) as sink:
            for part in parts:
                give(sink, bytes_of(), 0, FRAMES, part)
        assert 1 <= sink.session.most_held <= 2


def test_a_decode_that_leaves_frames_out_is_an_error(folder):
    with sink_for(job_in(folder), finish=False) as sink:
        give(sink, bytes_of(), 0, 6)
        with pytest.raises(FramesNotWrittenError, match="before every frame"):
            sink.finish()
    assert visible(folder) == frame_names(frames=6)


def test_caches_are_released_between_parts_after_enough_pixels(folder):
    calls = []
    per_frame = HEIGHT * WIDTH * 3 * 4
    released = {"between": lambda: calls.append(1), "release_every_bytes": 3 * per_frame}
    with sink_for(job_in(folder), **released) as sink:
        for first in range(FRAMES):
            give(sink, bytes_of(), first, 1)
    assert len(calls) == FRAMES // 3


@pytest.mark.parametrize("parts", [TILES, BANDS], ids=["tiles", "bands"])
def test_the_seam_picture_shows_the_owned_rectangles_over_the_first_frame(folder, parts):
    job, pixels = job_in(folder), np.full((FRAMES, HEIGHT, WIDTH, 3), 100, np.uint8)
    with sink_for(job, seams_folder=folder / "seams") as sink:
        for part in parts:
            give(sink, pixels, 0, FRAMES, part)
    (drawn,) = names(folder / "seams")
    assert drawn == f"frame_seams_{job.key}.png"
    picture = picture_at(folder / "seams" / drawn).astype(int)
    inside = (picture == 60).all(-1)
    for part in parts:
        outline = picture[part.top : part.bottom, part.left : part.right]
        assert (outline[0] == outline[0, 0]).all()
        assert not inside[part.top, part.left]
        assert not inside[part.bottom - 1, part.right - 1]
    assert (frames_on_disk(folder) == pixels).all(), "the frames have no lines"


@pytest.mark.parametrize("parts", [[WHOLE], TILES], ids=["whole frames", "tiles"])
def test_a_video_gives_back_every_bit_in_order(folder, parts):
    pytest.importorskip("av")
    pixels = bytes_of()
    with sink_for(job_in(folder, kind="lossless video", start=3)) as sink:
        for part in parts:
            give(sink, pixels, 0, FRAMES, part, chunk=3)
    assert visible(folder) == ["frame_00003.mkv"]
    assert (video_frames(folder / "frame_00003.mkv") == pixels).all()
    assert sink.session.saved == FRAMES


def test_a_video_without_pyav_is_an_error_before_anything_is_decoded(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VideoWriterMissingError, match="PyAV"):
        check_video_writer()
    with pytest.raises(VideoWriterMissingError):
        FrameSink(job_in(folder, kind="lossless video")).check(FRAMES)
    assert not folder.exists()
