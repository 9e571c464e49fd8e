"""Video decoded whole: with its pictures held once where that is what ComfyUI would have made, by
ComfyUI itself where it would not."""

import gc
import sys
import weakref
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.exact_decode import (  # noqa: E402
    TOO_MUCH,
    Told,
    VideoVae,
    clips,
    decode_safe,
    whole_plan,
)
from support.exact_world import Network, least  # noqa: E402
from support.toy_decoders import noise, relative  # noqa: E402

from vram_supervisor.nodes.host.vae import is_plain  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402

HALF = 0.5


@pytest.fixture
def host(monkeypatch):
    """ComfyUI, as far as it has a VAE class."""
    module = SimpleNamespace(VAE=VideoVae)
    monkeypatch.setitem(sys.modules, "comfy.sd", module)
    return module


class OwnDecode(VideoVae):
    """Another pack's class, which does more than run the network."""

    def decode(self, latent):
        return super().decode(latent) * HALF


class OwnSomethingElse(VideoVae):
    """Another pack's class that decodes as ComfyUI does."""

    def encode(self, pixels):
        raise AssertionError


def a_vae(kind=VideoVae):
    return kind(Network(normed=False), frames=lambda frames: 2 * frames)


def with_decode_put_on_it():
    vae = a_vae()
    vae.decode = lambda latent: latent
    return vae


@pytest.mark.parametrize(
    ("sentence", "vae", "plain"),
    [
        ("ComfyUI's own class", a_vae, True),
        ("a class of its own with a decode of its own", lambda: a_vae(OwnDecode), False),
        ("a class of its own with ComfyUI's decode", lambda: a_vae(OwnSomethingElse), True),
        ("a decode that was put on the object", with_decode_put_on_it, False),
        ("an object that only looks like one", SimpleNamespace, False),
    ],
)
def test_whose_decode_it_is(host, sentence, vae, plain):
    assert is_plain(vae(), "decode") is plain, sentence


def test_without_comfyui_there_is_no_other_decode():
    assert "comfy.sd" not in sys.modules
    assert is_plain(a_vae(OwnDecode), "decode")


# Whole.


def whole(monkeypatch, vae, **how):
    world = clips(monkeypatch, vae.first_stage_model)
    return decode_safe(world, vae, **how), world


def test_comfyuis_own_class_is_streamed(host, monkeypatch):
    """Or the tests below would see nothing."""
    vae = a_vae()
    got, world = whole(monkeypatch, vae)
    assert got.record.tried == ["whole: done"]
    assert vae.calls == []
    assert torch.equal(got.images, world.wanted())


def test_a_class_with_a_decode_of_its_own_decodes_whole_itself(host, monkeypatch):
    vae = a_vae(OwnDecode)
    got, world = whole(monkeypatch, vae)
    assert got.record.tried == ["whole: done"]
    assert vae.calls == ["whole"]
    assert torch.equal(got.images, world.wanted() * HALF)


def test_where_it_does_not_fit_such_a_class_tiles_itself(host, monkeypatch):
    vae = a_vae(OwnDecode)
    world = clips(monkeypatch, vae.first_stage_model, noise(1, 4, 2, 40, 40))
    told = Told(world, lambda batch, frames, height, width: 100 * height * width)
    got = decode_safe(world, vae, told=told, free=100 * 36 * 36)
    assert vae.calls == ["tiled"]
    assert any("in a way of its own" in note for note in got.notes)


def test_a_decode_of_its_own_is_not_cut_in_parts(host, monkeypatch):
    world = clips(monkeypatch)
    world.vae = a_vae(OwnDecode)
    way = world.way()
    assert not way.is_known
    assert whole_plan(way) is None
    assert any("in a way of its own" in note for note in way.notes)
    assert world.memory.loaded == [], "nothing is proven either"


def test_nor_is_a_black_box_made_of_it(host, monkeypatch):
    world = clips(monkeypatch, program=None)
    world.program = None
    world.vae = a_vae(OwnDecode)
    assert whole_plan(world.way()) is None


def test_comfyuis_own_class_is_cut_in_parts(host, monkeypatch):
    world = clips(monkeypatch)
    world.vae = a_vae()
    assert "exact" in whole_plan(world.way()).reason


# ``--fp16-intermediates``.


class HalfPictures(VideoVae):
    """As ComfyUI's class finishes pictures of a smaller type: in that type."""

    def vae_output_dtype(self):
        return torch.float16

    def decode(self, latent):
        self.calls.append("whole")
        made = self.first_stage_model.decode(latent).to(torch.float16)
        return self.process_output(made).movedim(1, -1)


def test_pictures_of_a_smaller_type_are_finished_by_comfyui(monkeypatch):
    vae = a_vae(HalfPictures)
    got, _ = whole(monkeypatch, vae)
    assert vae.calls == ["whole"]
    assert got.images.dtype == torch.float16
    assert torch.equal(got.images, vae.decode(noise(1, 4, 5, 12, 9))[0])


def test_parts_are_collected_in_the_type_that_comfyui_gives(monkeypatch):
    vae = a_vae(HalfPictures)
    got, world = whole(monkeypatch, vae, need_bytes=TOO_MUCH)
    assert vae.calls == []
    assert got.images.dtype == torch.float16
    assert relative(got.images, world.wanted()) < 1e-3


# Item by item.


def test_an_item_is_let_go_of_before_the_next_is_decoded(monkeypatch):
    class Watched(Network):
        def __init__(self):
            super().__init__(normed=False)
            self.made, self.alive = [], []

        def decode(self, z):
            gc.collect()
            self.alive.append([each() is not None for each in self.made])
            made = super().decode(z)
            self.made.append(weakref.ref(made.untyped_storage()))
            return made

    model = Watched()
    world = clips(monkeypatch, model, noise(3, 4, 5, 12, 9))
    sink = TensorSink()
    world.way().decode_whole(sink, lambda shape: None)
    assert model.alive == [[], [False], [False, False]]
    assert sink.pixels.shape[0] == 30


def test_an_interrupt_between_items_passes_through(monkeypatch):
    world = clips(monkeypatch, latent=noise(2, 4, 5, 12, 9))
    begun = []

    def begins(shape):
        begun.append(shape)
        if len(begun) > 1:
            raise KeyboardInterrupt

    sink = TensorSink()
    with pytest.raises(KeyboardInterrupt):
        world.way().decode_whole(sink, begins)
    assert torch.equal(sink.pixels[:10], world.wanted()[:10])


# To disk.


class Log(TensorSink):
    """Remembers how large the parts were that it was told to be final."""

    def __init__(self):
        super().__init__()
        self.committed = []

    def commit(self, first_frame, frames, rect):
        self.committed.append((rect.height, rect.width))
        super().commit(first_frame, frames, rect)


def to_disk(monkeypatch, *, known):
    """A clip that fits whole, though the budget is such that parts are smaller."""
    vae = a_vae()
    world = clips(monkeypatch, vae.first_stage_model)
    free = int(1.5 * least(world.way(), world))
    if not known:
        world.program = None
    sink = Log()
    got = decode_safe(world, vae, sink=sink, free=free)
    assert got.images is None
    assert relative(sink.pixels, world.wanted()) < 1e-6
    return got, sink, vae


def test_a_clip_whose_family_nobody_knows_goes_to_disk_whole_where_it_fits(monkeypatch):
    got, sink, vae = to_disk(monkeypatch, known=False)
    assert got.record.tried == ["whole: done"]
    assert vae.calls == ["whole"]
    assert set(sink.committed) == {(24, 18)}


def test_a_clip_of_a_known_family_goes_to_disk_in_parts_though_it_fits(monkeypatch):
    got, sink, vae = to_disk(monkeypatch, known=True)
    assert "exact" in got.record.plan.reason
    assert vae.calls == []
    assert max(sink.committed) < (24, 18)


def test_one_that_does_not_fit_goes_to_disk_in_tiles_with_context(monkeypatch):
    vae, sink = a_vae(), Log()
    world = clips(monkeypatch, vae.first_stage_model)
    world.program = None
    got = decode_safe(world, vae, sink=sink, need_bytes=TOO_MUCH)
    assert "black box" in got.record.plan.reason
    assert relative(sink.pixels, world.wanted()) < 1e-6
