"""Frames to write, sinks to write them with, and what is on disk afterwards."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from vram_supervisor.supervisor.decode.frames.job import FrameJob
from vram_supervisor.supervisor.decode.frames.settings import SinkSettings
from vram_supervisor.supervisor.decode.frames.sink import FrameSink
from vram_supervisor.supervisor.decode.tiles import Rect

FRAMES, HEIGHT, WIDTH = 10, 6, 9
WHOLE = Rect(0, HEIGHT, 0, WIDTH)
TILES = [Rect(0, 4, 0, 5), Rect(0, 4, 5, 9), Rect(4, 6, 0, 5), Rect(4, 6, 5, 9)]
BANDS = [Rect(0, 3, 0, 9), Rect(3, 6, 0, 9)]


def bytes_of(seed=1, channels=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (FRAMES, HEIGHT, WIDTH, channels), np.uint8)


class Crash(BaseException):
    """The process ends here."""


def job_in(folder, *, identity="a latent", prefix="frame", kind="png", start=0, quality=95):
    return FrameJob(folder, prefix, kind, start, quality, identity)


@contextmanager
def sink_for(job, disk=None, *, finish=True, **settings):
    """A sink that was begun; finished after the body unless that failed."""
    with FrameSink(job, SinkSettings(**settings), disk) as sink:
        sink.begin(FRAMES, HEIGHT, WIDTH, bytes_of().shape[-1])
        yield sink
        if finish:
            sink.finish()


def give(sink, pixels, first, frames, rect=WHOLE, *, chunk=None):
    """As a decode does: pieces of time, then the commit."""
    chunk = chunk or frames
    for at in range(first, first + frames, chunk):
        part = pixels[at : min(at + chunk, first + frames), rect.top : rect.bottom]
        values = torch.from_numpy(part[:, :, rect.left : rect.right].copy()).float() / 255
        sink.write(at, rect, values)
        values.fill_(float("nan"))  # the buffer is used again
    sink.commit(first, frames, rect)


def give_uncommitted(sink, pixels, rect):
    part = pixels[:, rect.top : rect.bottom, rect.left : rect.right]
    sink.write(0, rect, torch.from_numpy(part.copy()).float() / 255)


def decoded(job, parts=(WHOLE,), pixels=None, disk=None, **settings):
    """A decode from beginning to end, part after part, of what is not there yet."""
    pixels = bytes_of() if pixels is None else pixels
    with sink_for(job, disk, **settings) as sink:
        for part in parts:
            if not sink.has(0, FRAMES, part):
                give(sink, pixels, 0, FRAMES, part, chunk=3)
    return sink


def crash_after(job, *steps, and_then=None):
    """Committed pieces (pixels, first frame, frames, rectangle); then the process ends."""

    def run():
        with sink_for(job) as sink:
            for step in steps:
                give(sink, *step)
            if and_then is not None:
                and_then(sink)
            raise Crash

    with pytest.raises(Crash):
        run()


def give_all(sink, pixels):
    give(sink, pixels, 0, FRAMES, chunk=4)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def visible(folder):
    return [name for name in names(folder) if not name.endswith(".manifest.jsonl")]


def scratches(folder):
    return [name for name in names(folder) if name.endswith(".scratch")]


def frame_names(start=0, frames=FRAMES, prefix="frame", kind="png"):
    return [f"{prefix}_{start + index:05d}.{kind}" for index in range(frames)]


def frames_on_disk(folder, **which):
    return np.stack([picture_at(folder / name) for name in frame_names(**which)])


def picture_at(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def video_frames(path):
    av = pytest.importorskip("av")
    with av.open(path) as video:
        assert video.streams.video[0].codec_context.name == "ffv1"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def mtimes(folder, some):
    return {name: (folder / name).stat().st_mtime_ns for name in some}
