"""What the panel and the history hear of a decode while it runs."""

import pytest
from support.clock import StillClock

from vram_supervisor.nodes.host.vae import VIDEO_DIMS
from vram_supervisor.supervisor.errors import DecodeFailedError
from vram_supervisor.supervisor.jobs.decodes import DecodeBoard
from vram_supervisor.supervisor.types import JobPosition

torch = pytest.importorskip("torch")
from support.decoding_world import (  # noqa: E402
    MANUAL,
    Interrupted,
    Memory,
    Vae,
    decode,
    image,
    video,
)
from support.exact_decode import VideoVae, clips, decode_safe, least  # noqa: E402
from support.exact_world import Network  # noqa: E402


class Ticking(StillClock):
    """A second passes with every look."""

    def monotonic_s(self):
        self.now_s += 1.0
        return self.now_s


class Watched:
    """A board of which every change is heard."""

    def __init__(self):
        self.told = []
        self.board = DecodeBoard(Ticking(), self, lambda _device: 7, self.told.append)

    def position(self):
        return JobPosition("job", "8", "IAMCCS_VAEDecodeTiledSafe")

    @property
    def ended(self):
        (summary,) = self.board.of_job("job")
        return summary


@pytest.fixture
def watched():
    return Watched()


@pytest.mark.parametrize(
    ("latent", "size"), [(image(2), (48, 64, 2)), (video(3), (48, 64, 9))], ids=["image", "video"]
)
def test_a_whole_decode_is_told_with_its_size_and_prediction(watched, latent, size):
    vae = Vae(video=latent.ndim == VIDEO_DIMS)
    decode(latent, vae, board=watched.board)
    ended = watched.ended
    assert (ended.outcome, ended.kind, ended.what) == ("done", "whole", "decode")
    assert (ended.width, ended.height, ended.frames) == size
    assert ended.predicted_bytes == 120 * 6 * 8 * (2 if latent.ndim < VIDEO_DIMS else 1)
    assert (ended.held_bytes, ended.node_id, ended.device) == (7, "8", "cpu")
    assert ended.seconds is not None
    assert ended.retries == ("whole: done",)


def test_exact_parts_are_told_until_every_pixel_is_final(watched, monkeypatch):
    vae = VideoVae(Network(normed=False), frames=lambda frames: 2 * frames)
    world = clips(monkeypatch, vae.first_stage_model)
    free = int(1.5 * least(world.way(), world))
    got = decode_safe(world, vae, need_bytes=1 << 50, free=free, board=watched.board)
    frames, height, width, _ = got.images.shape
    covered = torch.zeros(frames, height, width, dtype=torch.int)
    for each in watched.told:
        for first, count, left, top, right, bottom in each.finished:
            covered[first : first + count, top:bottom, left:right] += 1
    assert bool((covered == 1).all())
    *_, before, last = watched.told
    assert last.steps == last.done == got.record.plan.tiles
    assert before.done > 1
    assert watched.ended.plan == got.record.plan.reason


def test_tiles_of_the_hosts_own_are_counted(watched):
    latent = torch.rand(1, 4, 24, 24)
    decode(latent, Vae(), request=MANUAL, board=watched.board)
    planned, *between, last = watched.told
    assert planned.summary.kind == "tiled"
    assert planned.steps > 1
    assert [each.done for each in between] == [1, 2], "as pieces begin after another"
    assert last.done == last.steps


def test_what_ran_out_of_memory_is_told(watched):
    decode(torch.rand(1, 4, 24, 24), Vae(largest=16 * 16), board=watched.board)
    assert watched.ended.retries[0] == "whole: ran out of memory"
    assert (watched.ended.outcome, watched.ended.kind) == ("done", "tiled")


@pytest.mark.parametrize(
    ("sentence", "vae", "raised", "outcome"),
    [
        ("a failure", Vae(largest=0), DecodeFailedError, "failed"),
        ("the user's interrupt", Vae(largest=0, problem=Interrupted()), Interrupted, "interrupted"),
    ],
)
def test_how_it_ends(watched, sentence, vae, raised, outcome):
    with pytest.raises(raised):
        decode(image(), vae, board=watched.board, keep_latent=False)
    assert watched.ended.outcome == outcome, sentence
    assert watched.ended.measured_bytes is None
    assert watched.board.current() is None


def test_what_is_no_picture_is_told_without_a_size(watched):
    vae = Vae()
    vae.latent_dim = 1
    decode(torch.rand(1, 8, 16), vae, board=watched.board, memory=Memory())
    assert watched.ended.width is None
    assert watched.ended.outcome == "done"
