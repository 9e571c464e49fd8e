"""Safe decodes that fail or are interrupted: the latent is kept, the error stays what it is."""

import pytest

from vram_supervisor.nodes import decoding
from vram_supervisor.supervisor.errors import DecodeFailedError

torch = pytest.importorskip("torch")
from support.decoding_world import (  # noqa: E402
    MANUAL,
    Allocator,
    Card,
    Interrupted,
    Memory,
    OldInterrupt,
    Told,
    Vae,
    Working,
    decode,
    image,
    meter_of,
    on_a_gpu,
    video,
)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Saving goes to a list here; the real file is written in the host's tests."""
    saved = []

    def save(samples):
        saved.append(samples)
        return tmp_path / "kept.latent"

    monkeypatch.setattr(decoding, "save_latent", save)
    return saved


def test_a_decode_nothing_helps_names_what_was_tried_and_the_kept_latent(kept):
    with pytest.raises(DecodeFailedError) as caught:
        decode(image(), Vae(largest=0))
    assert caught.value.tried[0] == "whole: ran out of memory"
    assert caught.value.latent_path.name == "kept.latent"
    assert len(kept) == 1


def test_an_error_of_the_decoder_keeps_the_latent_too(kept):
    with pytest.raises(DecodeFailedError, match="failed: ValueError: odd"):
        decode(image(), Vae(largest=0, problem=ValueError("odd")))
    assert len(kept) == 1


@pytest.mark.parametrize("interrupt", [Interrupted, OldInterrupt])
def test_an_interrupt_stays_one_and_keeps_the_latent(kept, caplog, interrupt):
    with pytest.raises(interrupt):
        decode(image(), Vae(largest=0, problem=interrupt()))
    assert len(kept) == 1
    assert "kept.latent" in caplog.text


def test_without_the_wish_no_latent_is_kept(kept):
    with pytest.raises(DecodeFailedError) as caught:
        decode(image(), Vae(largest=0), keep_latent=False)
    assert caught.value.latent_path is None
    assert kept == []


class SafetensorError(Exception):
    """As safetensors': neither an OSError nor a RuntimeError."""


REFUSALS = [OSError("disk full"), ValueError("disk full"), SafetensorError("disk full")]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_a_latent_that_cannot_be_saved_does_not_hide_the_error(monkeypatch, caplog, refusal):
    monkeypatch.setattr(decoding, "save_latent", raising(refusal))
    with pytest.raises(DecodeFailedError, match="disk full") as caught:
        decode(image(), Vae(largest=0))
    assert caught.value.tried[0] == "whole: ran out of memory"
    assert "could not be saved" in caplog.text


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: type(refusal).__name__)
def test_a_latent_that_cannot_be_saved_leaves_an_interrupt_one(monkeypatch, refusal):
    monkeypatch.setattr(decoding, "save_latent", raising(refusal))
    with pytest.raises(Interrupted):
        decode(image(), Vae(largest=0, problem=Interrupted()))


def raising(problem):
    def fail(*_args, **_kwargs):
        raise problem

    return fail


@pytest.mark.parametrize("step", ["picture_latent", "repeat_last_frame", "as_images"])
def test_the_latent_is_kept_when_the_host_runs_out_beside_the_decode(kept, monkeypatch, step):
    monkeypatch.setattr(decoding, step, raising(MemoryError("host")))
    with pytest.raises(DecodeFailedError, match="MemoryError: host"):
        decode(video(), Vae(video=True), last_frame_fix=True)
    assert len(kept) == 1


def test_the_latent_is_kept_when_the_vae_is_invalid(kept):
    vae = Vae()
    vae.throw_exception_if_invalid = raising(RuntimeError("VAE is invalid"))
    with pytest.raises(DecodeFailedError, match="VAE is invalid"):
        decode(image(), vae)
    assert len(kept) == 1


class InterruptedAt(Memory):
    """The user's interrupt comes when it is asked for the n-th time."""

    def __init__(self, ask):
        super().__init__()
        self.left = ask

    def raise_if_interrupted(self):
        self.left -= 1
        if self.left == 0:
            raise Interrupted


def test_a_tiled_decode_ends_at_the_tile_before_which_the_user_interrupts(kept):
    vae = Vae(video=True)
    with pytest.raises(Interrupted):
        decode(torch.rand(1, 16, 3, 8, 64), vae, request=MANUAL, memory=InterruptedAt(4))
    assert len(vae.first_stage_model.decoded) == 2, "once before the attempt, then before tiles"
    assert len(kept) == 1


def test_an_interrupt_during_the_corner_stays_one(kept):
    vae = on_a_gpu(Working(Allocator(), largest=0, problem=OldInterrupt()))
    with pytest.raises(OldInterrupt):
        decode(image(), vae, memory=Card(), meter=meter_of(vae.allocator),
               told=Told(wants_probe=True))  # fmt: skip
    assert len(kept) == 1
