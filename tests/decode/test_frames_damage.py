"""Manifests that say what no run of a job wrote, and links where its files should be."""

import pytest
from support.frames_on_disk import (
    BANDS,
    FRAMES,
    HEIGHT,
    TILES,
    WHOLE,
    WIDTH,
    bytes_of,
    crash_after,
    frame_names,
    frames_on_disk,
    give,
    give_all,
    job_in,
    sink_for,
)

from vram_supervisor.supervisor.decode.frames.sink import FrameSink
from vram_supervisor.supervisor.errors import FrameTakenError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "frames"


@pytest.mark.parametrize(
    "line",
    [
        b'{"file":{"name":"frame_00009.png"}}',
        b'{"file":"frame_00009.png"}',
        b'{"file":{"name":"frame_00009.png","more":1}}',
        b'{"blocks":[{"offset":0}]}',
        b'{"blocks":[{"offset":0,"first_frame":0,"frames":10,"rect":{"top":0}}]}',
        b'{"blocks":7}',
        b'{"blocks":[7]}',
    ],
)
def test_a_line_with_fields_missing_ends_what_is_believed_of_a_manifest(folder, line):
    """It counts as not written, and so does what comes after it."""
    pixels, job = bytes_of(), job_in(folder)
    crash_after(job, (pixels, 0, 4))
    manifest = job.manifest_path
    manifest.write_bytes(manifest.read_bytes() + line + b'\n{"finished":true}\n')
    assert not job.earlier().finished
    assert set(job.earlier().files) == set(frame_names(frames=4))
    neighbour = FrameSink(job_in(folder, identity="neighbour", start=100))
    neighbour.check(FRAMES)
    with sink_for(job) as sink:
        assert sink.session.found == 4
        assert not sink.has(4, 1, WHOLE)
        give_all(sink, pixels)
    assert (frames_on_disk(folder) == pixels).all()
    assert line not in manifest.read_bytes(), "the next record came in its place"
    assert FrameSink(job).finished_before() == FRAMES


def test_nothing_of_a_line_is_believed_that_is_wrong_further_on(folder):
    job = job_in(folder)
    crash_after(job, (bytes_of(), 0, 4), (bytes_of(), 4, 6, TILES[0]))
    blocks = len(job.earlier().blocks)
    good = b'{"offset":0,"first_frame":4,"frames":6,"rect":{"top":0,"bottom":6,"left":0,"right":9}}'
    manifest = job.manifest_path
    manifest.write_bytes(manifest.read_bytes() + b'{"blocks":[' + good + b',{"offset":0}]}\n')
    assert len(job.earlier().blocks) == blocks


# Links where a file of ours should be.


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nowhere"])
def test_a_link_in_place_of_the_scratch_file_is_not_followed(folder, tmp_path, there):
    victim, job = tmp_path / "victim", job_in(folder)
    if there:
        victim.write_bytes(b"precious" * 100)
    folder.mkdir()
    job.scratch_path.symlink_to(victim)

    def one_tile():
        with FrameSink(job) as sink:
            sink.begin(FRAMES, HEIGHT, WIDTH, 3)
            give(sink, bytes_of(), 0, FRAMES, TILES[0])

    with pytest.raises(FrameTakenError, match="a link"):
        one_tile()
    assert victim.exists() is there
    assert not there or victim.read_bytes() == b"precious" * 100


def test_a_link_that_took_the_place_of_the_scratch_file_is_not_read_either(folder, tmp_path):
    job, victim = job_in(folder), tmp_path / "victim"
    crash_after(job, (bytes_of(), 0, FRAMES, BANDS[0]))
    job.scratch_path.rename(victim)
    job.scratch_path.symlink_to(victim)
    before = victim.read_bytes()

    def the_rest():
        with sink_for(job) as sink:
            give(sink, bytes_of(), 0, FRAMES, BANDS[1])

    with pytest.raises(FrameTakenError, match="a link"):
        the_rest()
    assert victim.read_bytes() == before
