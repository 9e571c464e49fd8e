"""The decode into files around the sink: what a job is, what is refused, what is kept."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from vram_supervisor.nodes import saving
from vram_supervisor.nodes.host.identity import decode_identity
from vram_supervisor.supervisor.decode.frames.job import FrameJob
from vram_supervisor.supervisor.decode.frames.settings import SinkSettings
from vram_supervisor.supervisor.decode.sink import pour
from vram_supervisor.supervisor.errors import (
    DecodeFailedError,
    DiskFullError,
    FramesNotWrittenError,
    FrameTakenError,
    LatentNotDecodableError,
)
from vram_supervisor.supervisor.planning.types import PlanRequest

FRAMES = 5


class Vae:
    """As far as it tells how many pictures it makes."""

    vae_dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, latent_dim=3, *, audio=False, seed=0):
        self.latent_dim = latent_dim
        self.extra_1d_channel = 1 if audio else None
        torch.manual_seed(seed)
        layers = [torch.nn.Conv2d(3, 3, 3) for _ in range(40)]
        self.first_stage_model = torch.nn.Sequential(*layers)

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return 4 if self.latent_dim == 3 else None


@pytest.mark.parametrize(
    ("shape", "latent_dim", "frames"),
    [
        ((3, 4, 6, 8), 2, 3),
        ((1, 4, 3, 6, 8), 3, 9),
        ((2, 4, 2, 6, 8), 3, 10),
        ((2, 4, 7, 6, 8), 2, 2),
    ],
    ids=["a batch of images", "a video", "two videos", "a video latent for an image VAE"],
)
def test_a_latent_becomes_so_many_frames(shape, latent_dim, frames):
    assert saving.expected_frames(torch.zeros(shape), Vae(latent_dim)) == frames


def test_a_latent_of_sound_becomes_no_frames():
    with pytest.raises(LatentNotDecodableError, match="no pictures"):
        saving.expected_frames(torch.zeros(1, 8, 100), Vae(1, audio=True))


LATENT = torch.arange(24.0).reshape(1, 2, 3, 4)


def nested(*parts):
    return SimpleNamespace(is_nested=True, unbind=lambda: list(parts))


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"samples": LATENT.clone()}, True),
        ({"request": PlanRequest(tile_size=1024, tile=False)}, True),
        ({"samples": LATENT + 1e-6}, False),
        ({"samples": LATENT.reshape(2, 1, 3, 4)}, False),
        ({"samples": LATENT.bfloat16()}, False),
        ({"samples": nested(LATENT, torch.zeros(1, 2))}, False),
        ({"vae": Vae(seed=1)}, False),
        ({"request": PlanRequest(quality="fast")}, False),
        ({"request": PlanRequest(manual=True)}, False),
    ],
    ids=[
        "the same",
        "an equal latent",
        "tile sizes that auto does not use",
        "another value",
        "another shape",
        "another dtype",
        "sound beside it",
        "other weights",
        "another quality",
        "sizes by hand",
    ],
)
def test_a_decode_is_the_same_for_equal_latents_weights_and_settings(changes, same):
    usual = {"samples": LATENT, "vae": Vae(), "request": PlanRequest()}
    assert (decode_identity(**usual) == decode_identity(**{**usual, **changes})) is same


def test_sizes_by_hand_are_part_of_what_a_decode_is():
    by_hand = [PlanRequest(manual=True, tile_size=size) for size in (512, 1024)]
    assert len({decode_identity(LATENT, Vae(), request) for request in by_hand}) == 2


def test_weights_without_values_and_half_precision_can_be_told_apart_too():
    vae, other = Vae(), Vae()
    vae.first_stage_model.to("meta")
    other.first_stage_model.to(torch.bfloat16)
    seen = {decode_identity(LATENT, each, PlanRequest()) for each in (vae, other, Vae())}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([" "], "frame", "png"), None),
        ((["frames", None], None, None), None),
        ((["../elsewhere"], "frame", "png"), "not inside the output folder"),
        ((["frames", "/"], "frame", "png"), "not inside the output folder"),
        ((["frames"], "../frame", "png"), "prefix"),
        ((["frames"], "frame", "gif"), "choose one of png"),
    ],
    ids=["all well", "linked", "a folder outside", "seams outside", "a path as prefix", "gif"],
)
def test_what_cannot_be_written_is_refused_before_anything_runs(tmp_path, given, said):
    problem = saving.problem_with(tmp_path, *given)
    assert (problem is None) if said is None else (said in problem)


def test_the_state_of_a_folder_changes_with_its_frames_and_with_no_other_file(tmp_path):
    states = [
        saving.folder_state(tmp_path / "none", "frame"),
        saving.folder_state(tmp_path, "frame"),
    ]
    (tmp_path / "frame_00000.png").write_bytes(b"1")
    states.append(saving.folder_state(tmp_path, "frame"))
    (tmp_path / "frame_00000.png").write_bytes(b"12")
    states.append(saving.folder_state(tmp_path, "frame"))
    (tmp_path / "other.png").write_bytes(b"1")
    assert saving.folder_state(tmp_path, "frame") == states[-1]
    assert len(set(states)) == 4


@pytest.fixture
def save(tmp_path):
    """``save_frames`` of a small job; what it kept is in ``save.kept``."""
    kept = []

    def keep():
        kept.append(tmp_path / "kept.latent")
        return kept[-1]

    def save_with(decode, **changes):
        job = FrameJob(tmp_path / "frames", "frame", "png", 0, 95, "a latent")
        arguments = {"frames": FRAMES, "decode": decode, "keep_latent": keep, **changes}
        return saving.save_frames(job, SinkSettings(), **arguments)

    save_with.kept = kept
    save_with.folder = tmp_path / "frames"
    return save_with


def decode(sink, frames=FRAMES):
    pour(torch.zeros(frames, 4, 4, 3), sink)
    return SimpleNamespace()


def fail(problem):
    raise problem


def test_a_decode_becomes_frames_and_is_not_decoded_twice(save):
    saved = save(decode)
    assert (saved.frames, saved.found, saved.decoded is None) == (FRAMES, 0, False)
    assert len(list(save.folder.glob("*.png"))) == FRAMES
    again = save(lambda sink: pytest.fail("it was decoded again"))
    assert (again.frames, again.found, again.decoded) == (FRAMES, FRAMES, None)
    assert save.kept == []


def test_a_taken_name_is_found_before_the_decode_and_the_latent_is_kept(save):
    save.folder.mkdir()
    (save.folder / "frame_00002.png").write_bytes(b"mine")
    with pytest.raises(FrameTakenError, match=r"frame_00002.*kept\.latent"):
        save(lambda sink: pytest.fail("it was decoded"))


def test_a_full_disk_inside_the_decode_is_that_error_and_names_the_latent(save, tmp_path):
    """The decode saves the latent itself; it is not saved twice."""

    def decode_on_a_full_disk(sink):
        try:
            fail(DiskFullError(save.folder, "3 of 5 frames are written and kept."))
        except DiskFullError as problem:
            raise DecodeFailedError(["failed"], tmp_path / "by_decode.latent") from problem

    with pytest.raises(DiskFullError, match=r"3 of 5 .*by_decode\.latent"):
        save(decode_on_a_full_disk)
    assert save.kept == []


def test_frames_that_fail_after_the_decode_keep_the_latent_too(save):
    with pytest.raises(FramesNotWrittenError, match=r"before every frame.*kept\.latent"):
        save(lambda sink: sink.begin(FRAMES, 4, 4, 3))
    assert len(save.kept) == 1


def test_a_latent_that_cannot_be_kept_does_not_hide_what_went_wrong(save, caplog):
    def cannot():
        raise OSError(28, "No space left on device")

    with pytest.raises(FramesNotWrittenError, match="before every frame"):
        save(lambda sink: sink.begin(FRAMES, 4, 4, 3), keep_latent=cannot)
    assert "The latent could not be saved" in caplog.text


@pytest.mark.parametrize(
    "problem", [DecodeFailedError(["whole: failed"], None), KeyboardInterrupt()]
)
def test_a_decode_that_fails_or_is_interrupted_leaves_its_frames_for_the_next_try(save, problem):
    def half(sink):
        decode_some(sink, 3)
        raise problem

    with pytest.raises(type(problem)):
        save(half)
    assert len(list(save.folder.glob("*.png"))) == 3
    assert save(decode).found == 3


def decode_some(sink, frames):
    from vram_supervisor.supervisor.decode.tiles import Rect

    sink.begin(FRAMES, 4, 4, 3)
    sink.write(0, Rect(0, 4, 0, 4), torch.zeros(frames, 4, 4, 3))
    sink.commit(0, frames, Rect(0, 4, 0, 4))


# What fails before there is a job.


@pytest.fixture
def kept(tmp_path):
    """Keeps a latent, and says how often it did."""

    def keep():
        keep.calls += 1
        return tmp_path / "kept.latent"

    keep.calls = 0
    return keep


def test_an_early_error_keeps_the_latent_and_says_where(kept):
    problem = ValueError("VAE is invalid: it has no network")
    with (
        pytest.raises(DecodeFailedError, match=r"no network.*kept\.latent") as caught,
        saving.early_failure_kept(kept),
    ):
        raise problem
    assert caught.value.__cause__ is problem
    assert caught.value.began is False
    assert kept.calls == 1


def test_a_latent_without_pictures_is_such_an_error(kept):
    with (
        pytest.raises(DecodeFailedError, match="no pictures") as caught,
        saving.early_failure_kept(kept),
    ):
        saving.expected_frames(torch.zeros(1, 8, 100), Vae(1, audio=True))
    assert isinstance(caught.value.__cause__, LatentNotDecodableError)
    assert kept.calls == 1


def test_a_latent_that_cannot_be_kept_does_not_hide_an_early_error(caplog):
    def cannot():
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(DecodeFailedError, match="no network") as caught,
        saving.early_failure_kept(cannot),
    ):
        raise ValueError("no network")
    assert caught.value.latent_path is None
    assert "The latent could not be saved" in caplog.text


def test_without_an_error_nothing_is_kept(kept):
    with saving.early_failure_kept(kept):
        pass
    assert kept.calls == 0


def test_an_interrupt_is_no_failure(kept):
    with pytest.raises(KeyboardInterrupt), saving.early_failure_kept(kept):
        raise KeyboardInterrupt


def test_caches_are_released_through_the_host():
    calls = []
    saving.releaser(partial(calls.append, 1))()
    assert calls == [1]
