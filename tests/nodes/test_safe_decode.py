"""What a protected core node decodes with: the safe decode, or core's where none can be planned."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes import decoding
from vram_supervisor.nodes.ladder import LadderExhausted
from vram_supervisor.nodes.safe_decode import protected_decode
from vram_supervisor.supervisor.errors import (
    DecodedOtherwiseError,
    DecodeFailedError,
    LatentNotDecodableError,
    PartDoesNotFitError,
)
from vram_supervisor.supervisor.planning.types import PlanRequest


class Core:
    def __init__(self, problem=None):
        self.calls, self.problem = 0, problem

    def __call__(self):
        self.calls += 1
        if self.problem is not None:
            raise self.problem
        return "core's"


def protected(core, outcome):
    """With a safe decode that returns or raises ``outcome``."""

    def decode(samples, wish, *, sink=None):
        if isinstance(outcome, BaseException):
            raise outcome
        return SimpleNamespace(images=outcome, record=SimpleNamespace(tried=["whole: done"]))

    return protected_decode(
        "latent",
        "vae",
        PlanRequest(),
        core,
        decoder_of=lambda vae: decode,
        is_interrupt=lambda problem: isinstance(problem, Interrupted),
        quality=lambda: "exact",
    )


class Interrupted(Exception):
    """The user's, as older hosts have it."""


def failure(path=None, *, began, cause=None):
    problem = DecodeFailedError(["failed"], path, began=began)
    problem.__cause__ = cause
    return problem


def test_it_gives_the_safe_decodes_images_and_says_so(caplog):
    caplog.set_level("INFO")
    core = Core()
    assert protected(core, "ours") == "ours"
    assert core.calls == 0
    assert "Protected decode: whole: done" in caplog.text


@pytest.mark.parametrize(
    ("request_", "wanted"),
    [
        (PlanRequest(manual=True, tile_size=64), PlanRequest(manual=True, tile_size=64)),
        (PlanRequest(), PlanRequest(quality="balanced")),
    ],
    ids=["sizes of the node's own", "no sizes"],
)
def test_the_wish_is_the_safe_nodes_with_the_request_and_the_latent_kept(request_, wanted):
    """Core's nodes tell no quality: the user's standard one holds where sizes are chosen."""
    wishes = []

    def decode(samples, wish, *, sink=None):
        wishes.append((samples, wish))
        return SimpleNamespace(images=1, record=SimpleNamespace(tried=[]))

    protected_decode(
        "latent",
        "vae",
        request_,
        Core(),
        decoder_of=lambda vae: decode,
        quality=lambda: "balanced",
    )
    ((samples, wish),) = wishes
    assert samples == "latent"
    assert wish.request == wanted
    assert (wish.keep_latent, wish.budget_cap_bytes, wish.last_frame_fix) == (True, 0, False)


@pytest.mark.parametrize("began", [False, True])
def test_a_mistake_of_ours_costs_nothing_but_time(tmp_path, caplog, began):
    kept = tmp_path / "kept.latent"
    kept.touch()
    core = Core()
    assert protected(core, failure(kept, began=began, cause=TypeError("ours"))) == "core's"
    assert core.calls == 1
    assert not kept.exists(), "the decode worked after all"
    assert "core decodes as ever" in caplog.text
    assert "TypeError: ours" in caplog.text


@pytest.mark.parametrize(
    ("sentence", "cause"),
    [
        ("memory that ran out where no smaller plan is tried", MemoryError("host memory")),
        ("pictures of another size than was said", DecodedOtherwiseError("9 frames", "12")),
        ("a part that did not fit, outside the ladder", PartDoesNotFitError("a part")),
        ("an error of the driver", RuntimeError("CUDA error: an illegal memory access")),
        ("a failure whose reason nobody knows", None),
    ],
)
@pytest.mark.parametrize("began", [False, True])
def test_whatever_fails_core_decodes_as_ever(tmp_path, sentence, cause, began):
    kept, core = tmp_path / "kept.latent", Core()
    kept.touch()
    assert protected(core, failure(kept, began=began, cause=cause)) == "core's", sentence
    assert core.calls == 1
    assert not kept.exists()


@pytest.mark.parametrize("cause", [LadderExhausted(), LatentNotDecodableError("0 x 4", "no items")])
@pytest.mark.parametrize("began", [False, True])
def test_what_core_cannot_do_better_keeps_the_latent(tmp_path, cause, began):
    kept, core = tmp_path / "kept.latent", Core()
    kept.touch()
    with pytest.raises(DecodeFailedError, match=r"kept\.latent"):
        protected(core, failure(kept, began=began, cause=cause))
    assert core.calls == 0
    assert kept.exists()


def test_the_kept_latent_stays_where_core_fails_too(tmp_path, caplog):
    kept = tmp_path / "kept.latent"
    kept.touch()
    core = Core(MemoryError("core's"))
    with pytest.raises(DecodeFailedError, match="core's") as caught:
        protected(core, failure(kept, began=False))
    assert kept.exists()
    assert str(kept) in str(caught.value)
    assert isinstance(caught.value.__cause__, MemoryError)


def test_an_interrupt_while_core_decodes_instead_stays_one():
    core = Core(Interrupted())
    with pytest.raises(Interrupted):
        protected(core, failure(began=False))


def test_parts_of_ours_that_are_not_there_cost_nothing(caplog):
    def broken(vae):
        raise RuntimeError("no runtime")

    core = Core()
    assert protected_decode("latent", "vae", PlanRequest(), core, decoder_of=broken) == "core's"
    assert "no runtime" in caplog.text


@pytest.mark.parametrize(
    ("sentence", "problem"),
    [
        ("memory that ran out everywhere", failure(began=True, cause=LadderExhausted())),
        ("a latent nobody can decode",
         failure(began=False, cause=LatentNotDecodableError("0 x 4 x 8 x 8", "no items"))),
        ("the user's interrupt", KeyboardInterrupt()),
    ],
)  # fmt: skip
def test_what_the_user_is_told(sentence, problem):
    core = Core()
    with pytest.raises(type(problem)) as caught:
        protected(core, problem)
    assert caught.value is problem, sentence
    assert core.calls == 0


def test_a_safe_decode_that_fails_before_any_plan_says_that_it_did_not_begin(monkeypatch):
    def unreadable(vae):
        raise TypeError("ours")

    monkeypatch.setattr(decoding, "read_facts", unreadable)
    monkeypatch.setattr(decoding, "save_latent", lambda samples: Path("kept.latent"))
    memory = SimpleNamespace(is_interrupt=lambda problem: False)
    wish = decoding.DecodeWish(
        PlanRequest(), last_frame_fix=False, budget_cap_bytes=0, keep_latent=True
    )
    with pytest.raises(DecodeFailedError, match="TypeError: ours") as caught:
        decoding.decode_safely(None, SimpleNamespace(), wish, memory, None, None)
    assert caught.value.began is False
