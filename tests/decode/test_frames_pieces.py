"""The parts that frames on disk are made of: names, coverage, manifest, scratch file."""

import json
import threading
from functools import partial

import numpy as np
import pytest

from vram_supervisor.supervisor.decode.frames import manifest as manifests
from vram_supervisor.supervisor.decode.frames import pool as pools
from vram_supervisor.supervisor.decode.frames.coverage import Coverage
from vram_supervisor.supervisor.decode.frames.disk import Disk, Written
from vram_supervisor.supervisor.decode.frames.manifest import Block, Header, Manifest
from vram_supervisor.supervisor.decode.frames.names import (
    FrameNames,
    check_prefix,
    folder_inside,
)
from vram_supervisor.supervisor.decode.frames.scratch import Scratch
from vram_supervisor.supervisor.decode.tiles import Rect
from vram_supervisor.supervisor.errors import (
    FolderRefusedError,
    FrameTakenError,
    PrefixRefusedError,
)

HEADER = Header("0123456789ab", "frame", "png", 0, None, 4, 6, 8, 3)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "output" / "inside").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "output2").mkdir()
    (tmp_path / "output" / "way_out").symlink_to(tmp_path / "outside")
    (tmp_path / "output" / "way_in").symlink_to(tmp_path / "output" / "inside")
    return tmp_path / "output"


@pytest.mark.parametrize(
    ("wanted", "is_at"),
    [
        ("frames", "frames"),
        ("", ""),
        ("a/b/../c", "a/c"),
        ("way_in/new", "inside/new"),
        ("{root}/deep/er", "deep/er"),
        ("{root}", ""),
    ],
)
def test_folders_inside_the_output_folder_are_taken(root, wanted, is_at):
    assert folder_inside(root, wanted.format(root=root)) == (root / is_at).resolve()


@pytest.mark.parametrize(
    "wanted",
    [
        "..",
        "../outside",
        "a/../../outside",
        "{root}/../outside",
        "{root}2",
        "/",
        "way_out",
        "way_out/deeper",
        "a\0b",
    ],
    ids=[
        "the folder above",
        "a sibling",
        "a sibling by a detour",
        "an absolute path that climbs out",
        "an absolute path that only begins alike",
        "the root",
        "a link that leads out",
        "a folder behind a link that leads out",
        "a NUL",
    ],
)
def test_folders_outside_it_are_refused(root, wanted):
    with pytest.raises(FolderRefusedError, match="Nothing was written"):
        folder_inside(root, wanted.format(root=root))


def test_a_link_to_the_output_folder_is_no_way_out(tmp_path, root):
    (tmp_path / "link").symlink_to(root)
    assert folder_inside(tmp_path / "link", "x") == root / "x"


@pytest.mark.parametrize("prefix", ["frame", "a b", "scène-1.take", ".hidden", ".."])
def test_prefixes_that_stay_in_the_folder_are_taken(prefix):
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["", "  ", "../frame", "a/b", "a\\b", "c:frame", "a\nb", "a\0b", "*", "x" * 151]
)
def test_prefixes_that_could_name_something_else_are_refused(prefix):
    with pytest.raises(PrefixRefusedError):
        check_prefix(prefix)


def test_a_name_is_the_prefix_and_a_padded_number_that_may_outgrow_its_padding():
    names = FrameNames("shot", 99_999, "jpg")
    assert [names.frame(0), names.frame(1)] == ["shot_99999.jpg", "shot_100000.jpg"]
    assert FrameNames("shot", 7, "lossless video").all(3) == ["shot_00007.mkv"]


def test_coverage_grows_by_overlapping_rectangles_until_frames_are_complete():
    covered = Coverage(5, 10, 10)
    covered.add(0, 5, Rect(0, 6, 0, 10))
    assert covered.is_begun()
    assert covered.has(1, 4, Rect(2, 6, 3, 9))
    assert not covered.has(1, 4, Rect(2, 7, 3, 9))
    covered.add(2, 2, Rect(4, 10, 0, 7))
    covered.add(3, 2, Rect(3, 10, 5, 10))
    assert [covered.is_complete(frame) for frame in range(5)] == [False, False, False, True, False]
    covered.add(0, 5, Rect(0, 10, 0, 10))
    assert covered.has(0, 5, Rect(0, 10, 0, 10))
    assert not covered.is_begun()


def test_coverage_agrees_with_a_table_of_pixels():
    random = np.random.default_rng(3)
    covered, table = Coverage(6, 8, 9), np.zeros((6, 8, 9), bool)

    def stretch(extent):
        first, end = sorted(random.choice(extent + 1, 2, replace=False))
        return int(first), int(end)

    for _ in range(200):
        (first, end), (top, bottom), (left, right) = stretch(6), stretch(8), stretch(9)
        place = (slice(first, end), slice(top, bottom), slice(left, right))
        rect = Rect(top, bottom, left, right)
        assert covered.has(first, end - first, rect) == table[place].all()
        if random.random() < 0.2:
            covered.add(first, end - first, rect)
            table[place] = True


def manifest_at(folder):
    path = manifests.manifest_path(folder, HEADER.prefix, HEADER.job)
    return path, partial(manifests.read, path)


def test_a_manifest_tells_what_was_added(tmp_path):
    path, read = manifest_at(tmp_path)
    block = Block(10, 1, 2, Rect(0, 3, 0, 8))
    manifest = Manifest.create(path, HEADER, Disk())
    manifest.add_file(Written("frame_00000.png", 5, 77))
    manifest.add_blocks([block])
    manifest.close()
    contents = read()
    assert contents.header == HEADER
    assert contents.files == {"frame_00000.png": Written("frame_00000.png", 5, 77)}
    assert contents.blocks == [block]
    assert not contents.finished
    again = Manifest(path, contents, Disk())
    again.drop_blocks()
    again.finish()
    again.close()
    assert read().blocks == []
    assert read().finished
    assert list(manifests.manifests(tmp_path, "frame")) == [(path, read())]


def test_a_line_cut_short_by_a_crash_counts_as_not_written_and_is_written_over(tmp_path):
    path, read = manifest_at(tmp_path)
    manifest = Manifest.create(path, HEADER, Disk())
    manifest.add_file(Written("frame_00000.png", 5, 77))
    manifest.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"file":{"name":"frame_0')
    contents = read()
    assert list(contents.files) == ["frame_00000.png"]
    again = Manifest(path, contents, Disk())
    again.add_file(Written("frame_00001.png", 5, 78))
    again.close()
    assert list(read().files) == ["frame_00000.png", "frame_00001.png"]


@pytest.mark.parametrize(
    "content",
    [b"", b"mine\n", b"[1]\n", b'{"frames_manifest":1,"format":"png"}\n', b'{"a":1}\n', b"\xff\n"],
)
def test_a_file_that_is_no_manifest_is_nobodys_and_is_not_written_over(tmp_path, content):
    path, read = manifest_at(tmp_path)
    path.write_bytes(content)
    assert read() is None
    assert list(manifests.manifests(tmp_path, "frame")) == []
    with pytest.raises(FrameTakenError):
        Manifest.create(path, HEADER, Disk())
    assert path.read_bytes() == content


def test_a_manifest_cannot_name_files_elsewhere(tmp_path):
    path, read = manifest_at(tmp_path)
    Manifest.create(path, HEADER, Disk()).close()
    with path.open("a") as file:
        for name in ("../outside.png", "/etc/passwd", "frame_00001.png"):
            record = {"file": {"name": name, "size_bytes": 1, "crc32": 1}}
            file.write(json.dumps(record) + "\n")
    assert list(read().files) == ["frame_00001.png"]


def test_a_line_that_a_full_disk_cut_short_does_not_spoil_the_next(tmp_path):
    path, read = manifest_at(tmp_path)

    class Once(Disk):
        full = True

        def sync(self, file):
            file.flush()
            if self.full:
                file.truncate(file.tell() - 4)
                self.full = False
                raise OSError(28, "No space left on device")
            super().sync(file)

    disk = Once()
    disk.full = False
    manifest = Manifest.create(path, HEADER, disk)
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        manifest.add_file(Written("frame_00000.png", 5, 77))
    assert manifest.files == {}
    manifest.add_file(Written("frame_00001.png", 5, 78))
    manifest.close()
    assert list(read().files) == ["frame_00001.png"]


def test_the_scratch_file_gives_frames_back_with_later_blocks_on_top(tmp_path):
    scratch = Scratch(tmp_path / "s", HEADER, Disk(), [])

    def pictures(value, count, height, width):
        return [partial(np.full, (height, width, 3), value + at, np.uint8) for at in range(count)]

    low = scratch.put(0, Rect(0, 6, 0, 4), pictures(10, 3, 6, 4))
    high = scratch.put(1, Rect(0, 6, 2, 8), pictures(50, 2, 6, 6))
    picture = scratch.frame(2, [low, high])
    assert (picture[:, :2] == 12).all()
    assert (picture[:, 2:] == 51).all()
    again = scratch.put(0, Rect(0, 6, 0, 4), pictures(20, 3, 6, 4), low)
    assert again == low
    assert (scratch.frame(0, [again])[:, :4] == 20).all()
    assert scratch.size_bytes == 3 * 6 * 4 * 3 + 2 * 6 * 6 * 3
    scratch.close(delete=False)
    later = Scratch(tmp_path / "s", HEADER, Disk(), [low, high])
    assert (later.frame(2, [low])[:, :4] == 22).all()
    assert later.put(0, Rect(0, 1, 0, 1), pictures(1, 1, 1, 1)).offset == scratch.size_bytes
    later.close(delete=True)
    assert not (tmp_path / "s").exists()


def test_the_pool_holds_no_more_frames_than_it_may():
    gate, taken, when_full = threading.Event(), [], []

    class Telling(threading.Semaphore):
        """Opens the gate when somebody has to wait for a slot."""

        def acquire(self):
            if super().acquire(blocking=False):
                return True
            when_full.append(len(taken))
            gate.set()
            return super().acquire()

    def take(number):
        taken.append(number)
        return np.zeros((1, 1, 3), np.uint8)

    pool = pools.Pool(3)
    pool._slots = Telling(3)
    for number in range(10):
        pool.put(partial(take, number), lambda _picture: gate.wait(), now=True)
    gate.set()
    pool.drain()
    pool.close()
    assert when_full[0] == 3
    assert pool.most_held == 3
    assert taken == list(range(10))
