"""The safe encode around a stand-in for ComfyUI's VAE object, with real tensors."""

import pytest
from support.clock import StillClock

torch = pytest.importorskip("torch")

from support.encoding_vae import EncodingVae, OutOfMemory  # noqa: E402

from vram_supervisor.nodes.encoding import EncodeWish, encode_safely  # noqa: E402
from vram_supervisor.nodes.host.evicting import Eviction  # noqa: E402
from vram_supervisor.nodes.host.forecast import Prediction  # noqa: E402
from vram_supervisor.nodes.host.meter import PeakMeter  # noqa: E402
from vram_supervisor.nodes.host.vae import WholeDecodeRanOut  # noqa: E402
from vram_supervisor.nodes.host.vae_encoding import (  # noqa: E402
    encode_whole,
    prepared,
)
from vram_supervisor.supervisor.errors import (  # noqa: E402
    EncodeFailedError,
    PartDoesNotFitError,
    PicturesNotEncodableError,
)
from vram_supervisor.supervisor.planning.calibration import Bound  # noqa: E402
from vram_supervisor.supervisor.telemetry.peaks import PeakBook  # noqa: E402
from vram_supervisor.supervisor.types import Plan  # noqa: E402

GiB = 1 << 30


class Interrupted(BaseException):
    """As newer hosts raise it."""


class OldInterrupt(Exception):
    """As older hosts raise it."""


class Pictures:
    """The mean of 8 by 8 pixels; of video in every fourth frame."""

    def __init__(self, problem=None, fails_at=None):
        self.encoded, self.problem, self.fails_at = [], problem, fails_at

    def encode(self, pixels):
        self.encoded.append(tuple(pixels.shape))
        if self.problem is not None and len(self.encoded) == self.fails_at:
            raise self.problem
        if pixels.ndim == 5:
            pooled = torch.nn.functional.avg_pool3d(pixels, (1, 8, 8))[:, :, ::4]
        else:
            pooled = torch.nn.functional.avg_pool2d(pixels, 8)
        return pooled[:, [0, 1, 2, 0]]


class Counter:
    def allocated_bytes(self, device):
        return None

    peak_allocated_bytes = allocated_bytes


class Memory:
    def __init__(self, free=1 << 40, evictable=0):
        self.free, self.evictable = free, evictable
        self.asks_until_interrupt = None

    def free_bytes(self, device):
        return self.free

    def next_use_bytes(self, device, keep):
        return 0

    def evictable_bytes(self, device, keep):
        return self.evictable

    def make_room(self, needed_bytes, device, *keep):
        freed = self.evict(needed_bytes, device, *keep)
        return Eviction(str(device), 0, 0, freed)

    def evict(self, needed, device, keep):
        freed, self.evictable = self.evictable, 0
        self.free += freed
        return freed

    def empty_cache(self):
        """There is none."""

    def raise_if_interrupted(self):
        if self.asks_until_interrupt is not None:
            self.asks_until_interrupt -= 1
            if self.asks_until_interrupt < 0:
                raise Interrupted

    def is_interrupt(self, problem):
        return isinstance(problem, Interrupted | OldInterrupt)

    def is_oom(self, problem):
        return isinstance(problem, OutOfMemory)

    def settle(self, device):
        """No GPU."""

    def host_free_bytes(self):
        return 64 * GiB

    def progress_bar(self, steps):
        self.steps = steps
        return lambda: None


class Parts:
    """A way in parts that fails as often as it was told."""

    notes = ("how parts are made",)
    is_known = True

    def __init__(self, need=1000, failures=0):
        self.need, self.failures, self.plans = need, failures, []

    def plan(self, room, request, times):
        if room.most_bytes < self.need:
            return None
        return self._plan(self.need)

    def shrunk(self, plan, room, request):
        smaller = plan.predicted_peak_bytes // 2
        return self._plan(smaller) if smaller > 100 else None

    def _plan(self, need):
        self.plans.append(need)
        sizes = {"tile_size": 64, "tile_height": 64, "tile_width": 64}
        return Plan("tiled", 6, "parts", need, fits=True, quality="exact", **sizes)

    def knows(self, plan):
        return plan.reason.startswith("parts")

    def room_bytes(self, plan):
        return plan.predicted_peak_bytes

    def base_bytes(self, plan):
        return plan.predicted_peak_bytes

    def bound(self, plan):
        return Bound(plan.predicted_peak_bytes, "prior", 1.0, "as told")

    def encode(self, plan, hooks, live):
        if self.failures > 0:
            self.failures -= 1
            hooks.ran_out("the first part")
            raise PartDoesNotFitError("the first part")
        return torch.full((1, 4, 8, 6), 7.0)


class Told:
    """A forecast that says 120 bytes for each pixel of a latent."""

    allocator = "cpu"

    def __init__(self, parts=None):
        self.parts, self.notes, self.rooms, self.pixels = parts, ["as told"], [], None

    def __call__(self, vae, facts, pixels):
        self.pixels = pixels
        return self

    def has_room(self, budget_bytes):
        self.rooms.append(budget_bytes)

    def need_bytes(self, batch, frames, height, width):
        return 120 * batch * (frames or 1) * height * width

    def hungriest(self, pieces, *, exact=False):
        piece = max(pieces, key=lambda each: self.need_bytes(*each))
        need = self.need_bytes(*piece)
        return Prediction(piece, need, need, "prior", "as told", "formula")

    def exact_way(self):
        return self.parts

    def learn(self, piece, outcome):
        """Nothing is measured on a CPU."""

    learn_exact = learn


def encode(pixels, vae, *, memory=None, told=None, **wish):
    counter = Counter()
    meter = PeakMeter("cpu", counter, PeakBook(counter, StillClock(), ["cpu"]))
    wish = EncodeWish(**wish)
    return encode_safely(pixels, vae, wish, memory or Memory(), meter, told or Told())


def image(count=1, height=64, width=48, channels=3):
    return torch.rand(count, height, width, channels)


@pytest.mark.parametrize(
    ("sentence", "changes", "pixels", "arranged", "latent"),
    [
        ("an image", {}, image(), (1, 3, 64, 48), (1, 4, 8, 6)),
        ("a batch of images", {}, image(3), (3, 3, 64, 48), (3, 4, 8, 6)),
        ("odd sizes are cropped", {}, image(1, 70, 55), (1, 3, 64, 48), (1, 4, 8, 6)),
        ("transparency is dropped", {}, image(channels=4), (1, 3, 64, 48), (1, 4, 8, 6)),
        ("frames are one video", {"video": True}, image(9), (1, 3, 9, 64, 48), (1, 4, 3, 8, 6)),
        ("one frame is a video", {"video": True}, image(), (1, 3, 1, 64, 48), (1, 4, 1, 8, 6)),
        ("pictures for a VAE that has a time but makes no video",
         {"video": True, "not_video": True}, image(2), (2, 3, 1, 64, 48), (2, 4, 1, 8, 6)),
    ],
)  # fmt: skip
def test_pictures_are_arranged_as_core_does(sentence, changes, pixels, arranged, latent):
    vae = EncodingVae(Pictures(), **changes)
    assert tuple(prepared(vae, pixels).shape) == arranged, sentence
    encoded = encode(pixels, vae)
    assert torch.equal(encoded.samples, EncodingVae(Pictures(), **changes).encode(pixels))
    assert tuple(encoded.samples.shape) == latent
    shape = encoded.shape
    planned = (shape.batch, shape.channels, shape.frames, shape.height, shape.width)
    assert tuple(each for each in planned if each is not None) == latent
    assert encoded.record.tried == ["whole: done"]


def test_hosts_whose_vaes_do_not_see_to_channels_get_three():
    class Older(EncodingVae):
        def vae_encode_crop_pixels(self, pixels):
            assert pixels.shape[-1] == 3
            return pixels

    del EncodingVae.pad_channel_value
    try:
        encoded = encode(image(channels=4), Older(Pictures()))
    finally:
        EncodingVae.pad_channel_value = None
    assert encoded.samples.shape == (1, 4, 8, 6)


def test_cores_silent_retry_is_turned_into_a_signal():
    vae = EncodingVae(Pictures(), largest=1)
    with pytest.raises(WholeDecodeRanOut):
        encode_whole(vae, image(), lambda shape: None)
    assert vae.encode_tiled_.__func__ is EncodingVae.encode_tiled_


def test_a_batch_is_encoded_in_as_many_pieces_as_the_budget_needs():
    vae = EncodingVae(Pictures())
    encoded = encode(image(5), vae, memory=Memory(free=int(2.5 * 120 * 48)))
    assert [shape[0] for _, shape in vae.calls] == [2, 2, 1]
    assert encoded.samples.shape == (5, 4, 8, 6)


def test_the_cap_counts_as_the_room_and_the_forecast_is_told_of_it():
    told = Told()
    encode(image(), EncodingVae(Pictures()), told=told, budget_cap_bytes=12345)
    assert told.rooms == [12345]


def test_what_does_not_fit_whole_is_encoded_in_parts():
    told, memory = Told(Parts()), Memory(free=3000)
    encoded = encode(image(), EncodingVae(Pictures()), told=told, memory=memory)
    assert encoded.samples.flatten()[0] == 7
    assert encoded.record.tried == ["tiles of 64 px: done"]
    assert "whole" in {plan.kind for plan in encoded.record.table.plans}
    assert encoded.record.plan.reason == "parts"
    assert memory.steps == 6
    assert encoded.notes == ["as told", "how parts are made"]
    assert encoded.prediction.peak_bytes == 1000


def test_other_models_are_evicted_first_where_whole_then_fits():
    memory = Memory(free=3000, evictable=1 << 30)
    encoded = encode(image(), EncodingVae(Pictures()), told=Told(Parts()), memory=memory)
    assert encoded.record.plan.kind == "evict"
    assert encoded.record.tried[-1] == "whole, after evicting: done"


def test_a_whole_encode_that_runs_out_is_told_and_done_in_parts():
    vae = EncodingVae(Pictures(), largest=1)
    encoded = encode(image(), vae, told=Told(Parts()))
    assert encoded.record.tried == ["whole: ran out of memory", "tiles of 64 px: done"]


def test_parts_that_run_out_are_told_and_made_smaller():
    vae, parts = EncodingVae(Pictures(), largest=1), Parts(failures=2)
    encoded = encode(image(), vae, told=Told(parts))
    assert parts.plans == [1000, 500, 250]
    assert encoded.record.tried == [
        "whole: ran out of memory",
        "the first part: ran out of memory",
        "tiles of 64 px: ran out of memory",
        "the first part: ran out of memory",
        "tiles of 64 px: ran out of memory",
        "tiles of 64 px: done",
    ]


def test_without_parts_core_tiles_with_sizes_in_pixels():
    vae = EncodingVae(Pictures(), largest=1)
    encoded = encode(image(1, 512, 512), vae)
    kind, sizes = vae.calls[-1]
    assert kind == "tiled"
    assert sizes["tile_x"] == sizes["tile_y"] == encoded.record.plan.tile_size < 512
    assert sizes["tile_t"] is None
    assert encoded.record.tried[0] == "whole: ran out of memory"


def test_an_encode_nothing_helps_names_what_was_tried():
    class Hungry(Pictures):
        def encode(self, pixels):
            raise OutOfMemory

    with pytest.raises(EncodeFailedError) as caught:
        encode(image(), EncodingVae(Hungry()))
    assert caught.value.tried[0] == "whole: ran out of memory"
    assert "kept" in str(caught.value)


def test_any_other_error_is_named_and_not_retried():
    network = Pictures(problem=ValueError("broken"), fails_at=1)
    with pytest.raises(EncodeFailedError, match="ValueError: broken") as caught:
        encode(image(), EncodingVae(network))
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(network.encoded) == 1


@pytest.mark.parametrize("interrupt", [Interrupted, OldInterrupt])
def test_an_interrupt_passes_through(interrupt):
    network = Pictures(problem=interrupt(), fails_at=1)
    with pytest.raises(interrupt):
        encode(image(), EncodingVae(network))


def test_an_interrupt_is_answered_before_the_next_tile():
    vae, memory = EncodingVae(Pictures(), largest=1), Memory()
    memory.asks_until_interrupt = 4
    with pytest.raises(Interrupted):
        encode(image(1, 512, 2048), vae, memory=memory)
    assert len(vae.first_stage_model.encoded) < 4


@pytest.mark.parametrize(
    ("sentence", "pixels", "said"),
    [
        ("an empty batch", image(0), "there are none"),
        ("no rows", image(1, 0, 8), "there are none"),
        ("less than a latent pixel", image(1, 7, 64), "8 x 8 pixels at least"),
    ],
)
def test_nothing_to_encode_is_refused(sentence, pixels, said):
    vae = EncodingVae(Pictures())
    with pytest.raises(PicturesNotEncodableError, match=said):
        encode(pixels, vae)
    assert vae.calls == [], sentence


def test_a_vae_that_makes_no_pictures_is_left_to_core():
    vae = EncodingVae(Pictures(), latent_dim=1)
    encoded = encode(image(), vae)
    assert encoded.record.tried == ["no pictures: core's encode, unplanned"]
    assert encoded.shape is None
    assert encoded.samples.shape == (1, 4, 8, 6)


def test_an_object_without_a_network_says_so():
    class Invalid(EncodingVae):
        def throw_exception_if_invalid(self):
            message = "VAE is invalid"
            raise RuntimeError(message)

    with pytest.raises(EncodeFailedError, match="VAE is invalid"):
        encode(image(), Invalid(Pictures()))
