"""Frames on disk after a crash, after another job, among others' files, and on a full disk."""

import errno
import os
import shutil
import threading

import pytest
import torch
from support.frames_on_disk import (
    BANDS,
    FRAMES,
    TILES,
    WHOLE,
    bytes_of,
    crash_after,
    decoded,
    frame_names,
    frames_on_disk,
    give,
    give_all,
    give_uncommitted,
    job_in,
    mtimes,
    names,
    scratches,
    sink_for,
    video_frames,
    visible,
)

from vram_supervisor.supervisor.decode.frames.disk import Disk
from vram_supervisor.supervisor.decode.frames.settings import SinkSettings
from vram_supervisor.supervisor.decode.frames.sink import FrameSink
from vram_supervisor.supervisor.decode.tiles import Rect
from vram_supervisor.supervisor.errors import (
    DiskFullError,
    FramesNotWrittenError,
    FrameTakenError,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frames"


def test_a_crash_after_some_frames_loses_none_and_the_rest_follows_later(folder):
    pixels, job = bytes_of(), job_in(folder)
    crash_after(job, (pixels, 0, 4))
    assert visible(folder) == frame_names(frames=4)
    before = mtimes(folder, frame_names(frames=4))
    disk = Recording()
    with sink_for(job, disk) as sink:
        assert sink.finished_before() is None
        assert sink.session.found == 4
        assert sink.has(0, 4, WHOLE)
        assert not sink.has(0, 5, WHOLE)
        give_all(sink, bytes_of())
    assert sorted(disk.placed) == frame_names(start=4, frames=6)
    assert mtimes(folder, frame_names(frames=4)) == before
    assert (frames_on_disk(folder) == pixels).all()


class Recording(Disk):
    """Remembers which names were given."""

    def __init__(self):
        self.placed = []

    def replace(self, source, target):
        super().replace(source, target)
        if not target.name.endswith(".jsonl"):
            self.placed.append(target.name)


def test_committed_parts_survive_a_crash_and_may_be_joined_by_parts_of_another_size(folder):
    pixels, job = bytes_of(), job_in(folder)
    done = [(pixels, 0, FRAMES, tile) for tile in TILES[:2]]
    crash_after(job, *done, and_then=lambda sink: give_uncommitted(sink, bytes_of(5), TILES[2]))
    with sink_for(job) as sink:
        assert sink.has(0, FRAMES, Rect(0, 4, 0, 9))
        assert not sink.has(0, FRAMES, TILES[2])
        give(sink, pixels, 0, FRAMES, Rect(3, 6, 0, 9))
    assert (frames_on_disk(folder) == pixels).all()
    assert visible(folder) == frame_names()


def test_after_a_crash_frames_that_were_complete_in_parts_are_written_without_a_decode(folder):
    pixels, job = bytes_of(), job_in(folder)

    class Stubborn(Disk):
        def replace(self, source, target):
            if target.suffix == ".png":
                raise OSError(errno.EIO, "Input/output error")
            super().replace(source, target)

    with pytest.raises(FramesNotWrittenError, match="Input/output"):
        decoded(job, TILES, pixels, Stubborn())
    assert visible(folder) == scratches(folder) != []
    with sink_for(job) as sink:
        assert sink.has(0, FRAMES, WHOLE)
    assert (frames_on_disk(folder) == pixels).all()


def test_a_scratch_file_that_was_lost_or_cut_is_not_believed(folder):
    job = job_in(folder)
    crash_after(job, *[(bytes_of(), 0, FRAMES, tile) for tile in TILES[:2]])
    scratch = folder / scratches(folder)[0]
    os.truncate(scratch, scratch.stat().st_size - 1)
    with sink_for(job, finish=False) as sink:
        assert sink.has(0, FRAMES, TILES[0])
        assert not sink.has(0, FRAMES, TILES[1])


def test_a_finished_job_has_nothing_left_to_do_until_one_of_its_frames_is_gone(folder):
    pixels, job = bytes_of(), job_in(folder)
    with sink_for(job) as sink:
        assert sink.finished_before() is None
        give_all(sink, pixels)
    assert FrameSink(job).finished_before() == FRAMES
    assert FrameSink(job, SinkSettings(resume=False)).finished_before() is None
    (folder / "frame_00003.png").unlink()
    assert FrameSink(job).finished_before() is None
    disk = Recording()
    with sink_for(job, disk) as sink:
        assert sink.session.found == FRAMES - 1
        give_all(sink, pixels)
    assert disk.placed == ["frame_00003.png"]
    assert (frames_on_disk(folder) == pixels).all()


def test_without_resume_the_same_job_starts_over(folder):
    job = job_in(folder)
    with sink_for(job) as sink:
        give_all(sink, bytes_of(1))
    with sink_for(job, resume=False, clear_existing=False) as sink:
        assert sink.session.found == 0
        give_all(sink, bytes_of(2))
    assert (frames_on_disk(folder) == bytes_of(2)).all()


def test_another_size_of_the_same_job_starts_over(folder):
    job = job_in(folder)
    crash_after(job, (bytes_of(), 0, 4))
    with FrameSink(job) as sink:
        sink.begin(2, 3, 4, 3)
        assert sink.session.found == 0
        sink.write(0, Rect(0, 3, 0, 4), torch.zeros(2, 3, 4, 3))
        sink.finish()
    assert visible(folder) == frame_names(frames=2)


def test_another_jobs_frames_go_and_files_of_others_stay(folder):
    old = job_in(folder, identity="old", start=100)
    crash_after(old, (bytes_of(), 0, 6), (bytes_of(), 6, 4, TILES[0]))
    with sink_for(job_in(folder, identity="neighbour", prefix="left")) as sink:
        give_all(sink, bytes_of())
    foreign = {"frame_09999.png": b"mine", "notes.txt": b"mine too", "frame.jpg": b"x"}
    for name, content in foreign.items():
        (folder / name).write_bytes(content)
    (folder / "frame_00102.png").write_bytes(b"retouched")
    with sink_for(job_in(folder, identity="new")) as sink:
        assert sink.session.cleared == 5
        give_all(sink, bytes_of(2))
    stays = [*foreign, "frame_00102.png", *frame_names(prefix="left")]
    assert visible(folder) == sorted([*stays, *frame_names()])
    assert {name: (folder / name).read_bytes() for name in foreign} == foreign
    assert (folder / "frame_00102.png").read_bytes() == b"retouched"


def test_nothing_of_another_job_goes_before_this_one_has_anything_to_write(folder):
    with sink_for(job_in(folder, identity="old")) as sink:
        give_all(sink, bytes_of())
    before = names(folder)
    with FrameSink(job_in(folder, identity="new")) as sink:
        sink.check(FRAMES)
    assert names(folder) == before


@pytest.mark.parametrize(
    ("settings", "owner"),
    [
        ({"clear_existing": False}, "another job"),
        ({"clear_existing": True}, None),
    ],
    ids=["another job's frames are in the way", "they are cleared"],
)
def test_with_clear_existing_off_nothing_is_cleared_or_written_over(folder, settings, owner):
    with sink_for(job_in(folder, identity="old")) as sink:
        give_all(sink, bytes_of())
    new = FrameSink(job_in(folder, identity="new"), SinkSettings(**settings))
    if owner is None:
        new.check(FRAMES)
    else:
        with pytest.raises(FrameTakenError, match=owner):
            new.check(FRAMES)
    assert (frames_on_disk(folder) == bytes_of()).all()


def test_with_clear_existing_off_a_job_with_later_numbers_joins_the_frames_there(folder):
    for number, identity in enumerate(["first", "second"]):
        job = job_in(folder, identity=identity, start=number * FRAMES)
        with sink_for(job, clear_existing=False) as sink:
            give_all(sink, bytes_of(number))
    assert visible(folder) == frame_names(frames=2 * FRAMES)
    assert (frames_on_disk(folder, start=FRAMES) == bytes_of(1)).all()


@pytest.mark.parametrize("how", ["file", "folder", "broken link"])
def test_a_name_that_somebody_elses_file_has_is_an_error_before_anything_is_decoded(folder, how):
    folder.mkdir()
    taken = folder / "frame_00007.png"
    if how == "file":
        taken.write_bytes(b"mine")
    elif how == "folder":
        taken.mkdir()
    else:
        taken.symlink_to(folder / "nowhere")
    with pytest.raises(FrameTakenError, match="frame_00007"):
        FrameSink(job_in(folder)).check(FRAMES)
    FrameSink(job_in(folder, start=8)).check(FRAMES)


def test_a_file_that_appears_meanwhile_is_not_written_over(folder):
    def others_come_first(sink):
        (folder / "frame_00002.png").write_bytes(b"mine")
        give_all(sink, bytes_of())
        sink.finish()

    with sink_for(job_in(folder), finish=False) as sink, pytest.raises(FrameTakenError):
        others_come_first(sink)
    assert (folder / "frame_00002.png").read_bytes() == b"mine"


class Full(Disk):
    """A disk with room for so many bytes."""

    def __init__(self, room_bytes):
        self.room_bytes = room_bytes

    def open(self, path, mode):
        return _Limited(super().open(path, mode), self)


class _Limited:
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *problem):
        self._file.close()

    def write(self, content):
        self._disk.room_bytes -= len(content)
        if self._disk.room_bytes < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(content)


@pytest.mark.parametrize("kind", ["png", "jpg", "lossless video"])
@pytest.mark.parametrize("parts", [[WHOLE], TILES, BANDS], ids=["whole", "tiles", "bands"])
def test_a_disk_that_is_full_after_any_number_of_bytes_loses_nothing_written(folder, parts, kind):
    """Whenever it happens, what is there is whole, and more room lets the job go on."""
    if kind == "lossless video":
        pytest.importorskip("av")
    pixels, ends, room_bytes = bytes_of(), set(), 0
    while "finished" not in ends:
        where = folder / str(room_bytes)
        job = job_in(where, kind=kind)
        ends.add(decode_until_full(job, pixels, parts, room_bytes))
        there = [name for name in visible(where) if not name.endswith(".scratch")]
        before = mtimes(where, there)
        sink = decoded(job, parts, pixels)
        assert mtimes(where, there) == before
        assert sink.session.saved == FRAMES
        assert not scratches(where)
        if kind == "png":
            assert (frames_on_disk(where) == pixels).all()
        elif kind == "lossless video":
            assert (video_frames(where / "frame_00000.mkv") == pixels).all()
        room_bytes += 397
    assert ends == {"full", "finished"}


def decode_until_full(job, pixels, parts, room_bytes):
    try:
        decoded(job, parts, pixels, Full(room_bytes))
    except DiskFullError:
        return "full"
    return "finished"


def test_the_error_of_a_full_disk_says_what_is_kept_and_where_the_latent_is(folder):
    with pytest.raises(DiskFullError) as caught:
        decoded(job_in(folder), TILES, disk=Full(4500))
    written = sum(name.endswith(".png") for name in visible(folder))
    assert "is full" in str(caught.value)
    assert f"{written} of {FRAMES} frames are written and kept" in str(caught.value)
    assert scratches(folder)[0] in str(caught.value)
    caught.value.latent_path = folder / "kept.latent"
    assert "kept.latent" in str(caught.value)


@pytest.mark.parametrize("parts", [[WHOLE], TILES], ids=["whole frames", "tiles"])
def test_a_video_is_made_anew_from_what_was_decoded_before_a_crash(folder, parts):
    pytest.importorskip("av")
    pixels, job = bytes_of(), job_in(folder, kind="lossless video")
    crash_after(job, *[(pixels, 0, 6, part) for part in parts])
    assert visible(folder) == scratches(folder), "a video that was not finished has no name"
    with sink_for(job) as sink:
        assert sink.has(0, 6, WHOLE)
        for part in parts:
            give(sink, pixels, 6, 4, part)
    assert visible(folder) == ["frame_00000.mkv"]
    assert (video_frames(folder / "frame_00000.mkv") == pixels).all()
    assert FrameSink(job).finished_before() == FRAMES


class Snapshots(Disk):
    """Copies the folder before everything that is done: what a crash there would leave."""

    def __init__(self, folder, target):
        self._folder, self._target = folder, target
        self._lock, self.taken = threading.Lock(), []

    def _done(self, what):
        with self._lock:
            self.taken.append(self._target / str(len(self.taken)))
            shutil.copytree(self._folder, self.taken[-1])
            return what()

    def open(self, path, mode):
        return self._done(lambda: super(Snapshots, self).open(path, mode))

    def sync(self, file):
        self._done(lambda: super(Snapshots, self).sync(file))

    def replace(self, source, target):
        self._done(lambda: super(Snapshots, self).replace(source, target))

    def sync_folder(self, folder):
        self._done(lambda: super(Snapshots, self).sync_folder(folder))


@pytest.mark.parametrize("kind", ["png", "lossless video"])
@pytest.mark.parametrize("parts", [[WHOLE], TILES], ids=["whole", "tiles"])
def test_wherever_the_process_dies_the_next_one_goes_on_from_there(folder, tmp_path, parts, kind):
    if kind == "lossless video":
        pytest.importorskip("av")
    pixels, job = bytes_of(), job_in(folder, kind=kind)
    disk = Snapshots(folder, tmp_path / "crashed")
    decoded(job, parts, pixels, disk)
    assert len(disk.taken) > (4 * FRAMES if kind == "png" else 8)
    found = []
    for crashed in disk.taken:
        there = mtimes(crashed, [path.name for path in crashed.glob("frame_*")])
        sink = decoded(job_in(crashed, kind=kind), parts, pixels)
        found.append(sink.session.found)
        assert found[-1] == (len(there) if kind == "png" else FRAMES * len(there))
        assert mtimes(crashed, there) == there
        assert names(crashed) == names(folder), "nothing else is left"
        if kind == "png":
            assert (frames_on_disk(crashed) == pixels).all()
        else:
            assert (video_frames(crashed / "frame_00000.mkv") == pixels).all()
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, FRAMES)
