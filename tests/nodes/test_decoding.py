"""The safe decode around a small stand-in for ComfyUI's VAE object, with real tensors."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from support.clock import StillClock
from support.instruments import CUDA, make_sample

from vram_supervisor.nodes import decoding
from vram_supervisor.nodes.decoding import DecodeWish, decode_safely
from vram_supervisor.nodes.host.forecast import Prediction
from vram_supervisor.nodes.host.meter import Measured, PeakMeter
from vram_supervisor.nodes.host.vae import WholeDecodeRanOut, decode_whole, read_facts
from vram_supervisor.supervisor.errors import DecodeFailedError
from vram_supervisor.supervisor.planning.types import PlanRequest
from vram_supervisor.supervisor.telemetry.peaks import PeakBook

torch = pytest.importorskip("torch")


class OutOfMemory(Exception):
    pass


class Interrupted(BaseException):
    """As newer hosts raise it."""


class OldInterrupt(Exception):
    """As older hosts raise it."""


class Model:
    """What ``first_stage_model`` stands for; counts the pieces it is given."""

    scale = 0.5

    def __init__(self):
        self.decoded = []

    def decode(self, piece):
        self.decoded.append(tuple(piece.shape))
        return piece


class Vae:
    """Repeats each latent pixel, 8 by 8 and 4 frames per latent frame after the first."""

    at_once = 100
    """Items that it decodes together."""

    def __init__(self, *, video=False, largest=1 << 30, handles_tiling=False, problem=OutOfMemory):
        self.device = torch.device("cpu")
        self.vae_dtype = torch.float32
        self.patcher = None
        self.first_stage_model = Model()
        self.latent_dim = 3 if video else 2
        self.handles_tiling = handles_tiling
        self.video, self.largest, self.problem = video, largest, problem
        self.calls = []

    def memory_used_decode(self, shape, dtype):
        return 100 * shape[0] * shape[-1] * shape[-2]

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return 4 if self.video else None

    def decode(self, latent):
        """As core's: an OOM is swallowed and tiled, quietly."""
        self.calls.append(("whole", tuple(latent.shape)))
        for items in latent.split(self.at_once):
            self.first_stage_model.decode(items)
        try:
            return self._pixels(latent)
        except OutOfMemory:
            pass
        return self.decode_tiled_(latent)

    def decode_tiled_(self, latent):
        raise AssertionError("core's silent retry must not run")

    def decode_tiled(self, latent, **sizes):
        self.calls.append(("tiled", sizes))
        if sizes["tile_x"] ** 2 > self.largest:
            raise self.problem
        for piece in latent.split(sizes["tile_x"], -1):
            self.first_stage_model.decode(piece)
        return self._pixels(latent, check=False)

    def _pixels(self, latent, *, check=True):
        if check and latent.shape[-1] * latent.shape[-2] > self.largest:
            raise self.problem
        pixels = latent[:, :3].repeat_interleave(8, -1).repeat_interleave(8, -2)
        if latent.ndim == 5:
            pixels = pixels.repeat_interleave(4, 2)[:, :, 3:]
        return pixels.movedim(1, -1)


class Memory:
    def __init__(self, free=1 << 40):
        self.free = free

    def free_bytes(self, device):
        return self.free

    def evictable_bytes(self, device, keep):
        return 0

    def evict(self, needed, device, keep):
        return 0

    def empty_cache(self):
        pass

    def raise_if_interrupted(self):
        pass

    def is_interrupt(self, problem):
        return isinstance(problem, Interrupted | OldInterrupt)

    def is_oom(self, problem, device):
        return isinstance(problem, OutOfMemory)

    def load(self, patcher, needed_bytes, *, entirely=False):
        raise AssertionError("there is no patcher to load")

    def settle(self, device):
        self.settled = device

    def host_free_bytes(self):
        return 64 * GiB

    def progress_bar(self, steps):
        raise AssertionError("only decodes in exact parts show progress here")


class Counter:
    """Before the work, and after it: (live bytes, high-water mark) of torch's allocator."""

    def __init__(self, *looks):
        self.looks, self.look = looks, 0

    def allocated_bytes(self, device):
        return self.looks[self.look][0]

    def peak_allocated_bytes(self, device):
        return self.looks[self.look][1]


class Told:
    """A forecast that says 120 bytes for each latent pixel, and keeps what it is taught."""

    def __init__(self, need=None, *, wants_probe=False, allocator="cpu"):
        self.need = need or (lambda batch, frames, height, width: 120 * batch * height * width)
        self.probe, self.allocator = wants_probe, allocator
        self.notes = []
        self.learned = []

    def __call__(self, vae, latent_shape):
        return self

    def need_bytes(self, *piece):
        return self.need(*piece)

    def hungriest(self, pieces, *, exact=False):
        piece = max(pieces, key=lambda each: self.need(*each))
        need = self.need(*piece)
        return Prediction(piece, need, need, "prior", "as told", "formula")

    def time_model(self):
        return None

    def wants_probe(self):
        return self.probe

    def learn(self, piece, outcome):
        self.learned.append((piece, outcome))

    def exact_way(self, latent, facts, memory):
        """These decoders cannot be taken apart."""


def meter_of(counter, device="cuda:0"):
    return PeakMeter(device, counter, PeakBook(counter, StillClock(), [device]))


def decode(samples, vae, *, memory=None, **wish):
    options = {"last_frame_fix": False, "budget_cap_bytes": 0, "keep_latent": True, **wish}
    request = options.pop("request", PlanRequest())
    meter = options.pop("meter", None) or meter_of(Counter((None, None)), "cpu")
    told = options.pop("told", None) or Told()
    wish = DecodeWish(request, **options)
    return decode_safely(samples, vae, wish, memory or Memory(), meter, told)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Saving goes to a list here; the real file is written in the host's tests."""
    saved = []

    def save(samples):
        saved.append(samples)
        return tmp_path / "kept.latent"

    monkeypatch.setattr(decoding, "save_latent", save)
    return saved


def image(batch=1):
    return torch.rand(batch, 4, 8, 6)


def video(frames=3):
    return torch.rand(1, 16, frames, 8, 6)


@pytest.mark.parametrize(
    ("sentence", "vae", "latent", "shape"),
    [
        ("an image", Vae(), image(), (1, 64, 48, 3)),
        ("a batch", Vae(), image(3), (3, 64, 48, 3)),
        ("a video becomes a row of frames", Vae(video=True), video(), (9, 64, 48, 3)),
        ("a video latent for an image VAE gives its first frame", Vae(), video(2), (1, 64, 48, 3)),
        ("of a nested latent the first part", Vae(video=True),
         SimpleNamespace(is_nested=True, unbind=lambda: [video(), torch.zeros(1, 8, 4)]),
         (9, 64, 48, 3)),
    ],
)  # fmt: skip
def test_the_shape_of(sentence, vae, latent, shape):
    assert tuple(decode(latent, vae).images.shape) == shape, sentence


def test_a_batch_is_decoded_in_as_many_pieces_as_the_budget_needs():
    vae = Vae()
    one = 100 * 48 * 1.2
    decoded = decode(image(5), vae, memory=Memory(free=int(2.5 * one)))
    assert [shape[0] for _, shape in vae.calls] == [2, 2, 1]
    assert tuple(decoded.images.shape) == (5, 64, 48, 3)


def test_last_frame_fix_decodes_one_more_and_gives_as_many_frames():
    vae = Vae(video=True)
    decoded = decode(video(3), vae, last_frame_fix=True)
    assert vae.calls[0][1][2] == 4
    assert tuple(decoded.images.shape) == (9, 64, 48, 3)
    assert decoded.warnings == []


@pytest.mark.parametrize(
    ("sentence", "vae", "latent"),
    [
        ("images have no last frame", Vae(), image()),
        ("a VAE that tiles itself is left alone", Vae(video=True, handles_tiling=True), video()),
    ],
)
def test_last_frame_fix_is_ignored_with_a_word(sentence, vae, latent):
    decoded = decode(latent, vae, last_frame_fix=True)
    assert len(decoded.warnings) == 1, sentence


def test_cores_silent_retry_is_turned_into_a_signal():
    vae = Vae(largest=1)
    with pytest.raises(WholeDecodeRanOut):
        decode_whole(vae, image())
    assert vae.decode_tiled_.__func__ is Vae.decode_tiled_, "the caller's object is untouched"


def test_an_oom_is_climbed_down_from_and_told():
    vae = Vae(largest=16 * 16)
    latent = torch.rand(1, 4, 64, 64)
    decoded = decode(latent, vae)
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.record.plan.kind == "tiled"
    assert vae.calls[-1][1]["tile_x"] <= 16


def test_the_failed_attempts_tensors_are_let_go_before_the_next_attempt():
    import gc
    import weakref

    alive = []

    class Hoarding(Vae):
        def _pixels(self, latent, *, check=True):
            if check:
                big = torch.ones(10)
                alive.append(weakref.ref(big))
                raise OutOfMemory
            assert alive[-1]() is None, "the first attempt's tensors are still held"
            return super()._pixels(latent, check=False)

    gc.disable()
    try:
        decode(torch.rand(1, 4, 64, 64), Hoarding())
    finally:
        gc.enable()
    assert len(alive) == 1


def test_a_temporal_chunk_is_given_in_latent_frames():
    vae = Vae(video=True)
    told = Told(lambda batch, frames, height, width: 100 * height * width * frames)
    request = PlanRequest(
        manual=True, tile_size=64, overlap=16, temporal_size=16, temporal_overlap=8
    )
    decode(torch.rand(1, 16, 12, 16, 16), vae, request=request, told=told)
    assert vae.calls == [
        ("tiled", {"tile_x": 8, "tile_y": 8, "overlap": 2, "tile_t": 4, "overlap_t": 2})
    ]


def test_all_frames_go_in_one_chunk_where_time_is_not_cut():
    vae = Vae(video=True)
    latent = torch.rand(1, 16, 5, 64, 64)
    decode(latent, vae, budget_cap_bytes=200_000)
    assert vae.calls[-1][1]["tile_t"] == 5


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


MANUAL = PlanRequest(manual=True, tile_size=64, overlap=16)


def test_a_tiled_decode_ends_at_the_tile_before_which_the_user_interrupts(kept):
    vae = Vae(video=True)
    with pytest.raises(Interrupted):
        decode(torch.rand(1, 16, 3, 8, 64), vae, request=MANUAL, memory=InterruptedAt(4))
    assert len(vae.first_stage_model.decoded) == 2, "once before the attempt, then before tiles"
    assert len(kept) == 1


def test_a_vae_that_tiles_itself_is_given_its_own_decoder():
    seen = []

    class Own(Vae):
        def decode_tiled(self, latent, **sizes):
            seen.append(self)
            return super().decode_tiled(latent, **sizes)

    vae = Own(video=True, handles_tiling=True)
    decode(torch.rand(1, 16, 3, 8, 64), vae, request=MANUAL)
    assert [each.first_stage_model for each in seen] == [vae.first_stage_model]


def test_the_watched_decoder_is_in_all_else_the_decoder_and_the_object_stays_untouched():
    seen = []

    class Looking(Vae):
        def decode_tiled(self, latent, **sizes):
            seen.append((self.first_stage_model.scale, self.first_stage_model.decoded))
            return super().decode_tiled(latent, **sizes)

    vae = Looking()
    model = vae.first_stage_model
    decode(torch.rand(1, 4, 8, 64), vae, request=MANUAL)
    assert seen == [(0.5, model.decoded)]
    assert vae.first_stage_model is model
    assert model.decoded


class Allocator:
    """Torch's counter for one device: live bytes and their high-water mark."""

    def __init__(self, live=0):
        self.live = self.mark = live

    def hold(self, change):
        self.live += change
        self.mark = max(self.mark, self.live)

    def allocated_bytes(self, device):
        return self.live

    def peak_allocated_bytes(self, device):
        return self.mark


GiB = 1 << 30


class Loading(Memory):
    """The host loads 1 GiB of weights; before that it evicts what it is told to."""

    def __init__(self, allocator, evicts=0):
        super().__init__()
        self.allocator, self.evicts, self.loads = allocator, evicts, []

    def load(self, patcher, needed_bytes, *, entirely=False):
        if not self.loads:
            self.allocator.hold(-self.evicts)
            self.allocator.hold(GiB)
        self.loads.append((patcher, needed_bytes, entirely))


class Working(Vae):
    """A decode adds memory while it runs: so much whole, so much tiled."""

    def __init__(self, allocator, *, whole=2 * GiB, tiled=GiB, **options):
        super().__init__(**options)
        self.patcher = "patcher"
        self.allocator, self.whole, self.tiled = allocator, whole, tiled

    def _pixels(self, latent, *, check=True):
        adds = self.whole if check else self.tiled
        self.allocator.hold(adds)
        self.allocator.hold(-adds)
        return super()._pixels(latent, check=check)


def test_the_weights_are_no_part_of_the_measured_peak():
    allocator = Allocator()
    memory = Loading(allocator)
    vae = Working(allocator)
    vae.disable_offload = True
    decoded = decode(image(), vae, memory=memory, meter=meter_of(allocator))
    assert decoded.measured == Measured(2 * GiB, 2 * GiB, 2 * GiB)
    assert memory.loads == [("patcher", 120 * 8 * 6 + 1, True)]


def test_a_model_evicted_for_the_decode_does_not_make_the_peak_nothing():
    allocator = Allocator(18 * GiB)
    memory = Loading(allocator, evicts=18 * GiB)
    decoded = decode(image(), Working(allocator), memory=memory, meter=meter_of(allocator))
    assert decoded.measured == Measured(None, 0, 17 * GiB)


def test_a_failed_attempt_is_no_part_of_the_measured_peak():
    allocator = Allocator()
    vae = Working(allocator, whole=9 * GiB, tiled=GiB, largest=16 * 16)
    memory = Loading(allocator)
    decoded = decode(torch.rand(1, 4, 64, 64), vae, memory=memory, meter=meter_of(allocator))
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.measured == Measured(None, 0, 9 * GiB), "9 GiB is a bound, not the peak"


def test_weights_that_do_not_fit_are_an_attempt_that_ran_out():
    class Tight(Loading):
        def load(self, patcher, needed_bytes, *, entirely=False):
            super().load(patcher, needed_bytes, entirely=entirely)
            if len(self.loads) == 1:
                raise OutOfMemory

    allocator = Allocator()
    decoded = decode(
        torch.rand(1, 4, 64, 64), Working(allocator), memory=Tight(allocator),
        meter=meter_of(allocator),
    )  # fmt: skip
    assert decoded.record.tried[0] == "whole: ran out of memory"
    assert decoded.record.plan.kind == "tiled"


class Believing(Working):
    """Notes what core would evict for."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.believed = []

    def _pixels(self, latent, *, check=True):
        self.believed.append(self.memory_used_decode(tuple(latent.shape), torch.float32))
        return super()._pixels(latent, check=check)


@pytest.mark.parametrize(
    ("sentence", "batch", "request_", "asked", "believed"),
    [
        ("a tile needs what was predicted for it", 2, MANUAL, 120 * 8 * 8 + 1, 120 * 8 * 8 + 1),
        ("a picture likewise", 1, PlanRequest(), 120 * 64 * 64 + 1, 120 * 64 * 64 + 1),
        ("core counts items by itself", 3, PlanRequest(), 3 * 120 * 64 * 64 + 1, 120 * 64 * 64),
    ],
)
def test_the_host_makes_room_for_what_was_predicted(sentence, batch, request_, asked, believed):
    vae = Believing(Allocator())
    memory = Loading(vae.allocator)
    decode(torch.rand(batch, 4, 64, 64), vae, request=request_, memory=memory)
    assert [needed for _, needed, _ in memory.loads] == [asked]
    assert set(vae.believed) == {believed}
    assert vae.memory_used_decode((1, 4, 8, 8), torch.float32) == 100 * 64


def test_a_meter_forgets_its_last_block():
    allocator = Allocator()
    meter = meter_of(allocator)
    with meter:
        allocator.hold(GiB)
    with meter:
        assert meter.measured == Measured()


def test_wan_is_never_cut_through_time_unless_by_hand():
    facts = read_facts(Vae(video=True))
    wan = replace(facts, family_module="comfy.ldm.wan.vae")
    assert facts.cuts_time(manual=False)
    assert not wan.cuts_time(manual=False)
    assert wan.cuts_time(manual=True)
    assert not replace(wan, tiles_itself=True).cuts_time(manual=True)


@pytest.mark.parametrize(
    ("sentence", "looks", "seen", "measured"),
    [
        ("a mark that rose is the exact peak",
         [(100, 500), (100, 900)], None, Measured(800, 800, 800)),
        ("a mark that stood still bounds what was seen",
         [(100, 500), (300, 500)], 400, Measured(None, 300, 400)),
        ("what reached the mark again is exact",
         [(100, 500), (100, 500)], 500, Measured(400, 400, 400)),
        ("a mark that somebody reset bounds nothing",
         [(100, 500), (100, 200)], 250, Measured(None, 150, None)),
        ("torch does not count here: unknown", [(None, None), (None, None)], 1, Measured()),
    ],
)  # fmt: skip
def test_the_measured_peak(sentence, looks, seen, measured):
    counter = Counter(*looks)
    book = PeakBook(counter, StillClock(), ["cuda:0"])
    with PeakMeter("cuda:0", counter, book) as meter:
        if seen is not None:
            book.observe(make_sample(0.0, CUDA, torch_allocated_bytes=seen))
        counter.look = 1
    assert meter.measured == measured, sentence


def test_a_decode_that_fails_is_not_watched_any_more():
    counter = Counter((100, 500))
    book = PeakBook(counter, StillClock(), ["cuda:0"])
    with pytest.raises(LookupError), PeakMeter("cuda:0", counter, book):
        raise LookupError
    assert book.open_watches == 0


def on_a_gpu(vae):
    """As if it decoded on a card: what is measured is learned there."""
    vae.device = torch.device("cuda:0")
    return vae


class Card(Memory):
    """Its reserve is 0 and no weights are missing."""

    def reserve_bytes(self):
        return 0

    def missing_weights_bytes(self, patcher):
        return 0

    def load(self, patcher, needed_bytes, *, entirely=False):
        pass


def gpu_decode(samples, allocator, told, *, memory=None, **options):
    vae = on_a_gpu(Working(allocator, **options))
    decoded = decode(
        samples, vae, memory=memory or Card(), meter=meter_of(allocator), told=told
    )  # fmt: skip
    return vae, decoded


def test_a_measured_decode_is_learned_with_its_time_pixels_and_pieces():
    told = Told()
    _, decoded = gpu_decode(image(3), Allocator(), told)
    ((piece, outcome),) = told.learned
    assert piece == (3, None, 8, 6)
    assert (outcome.measured_bytes, outcome.exact, outcome.failed) == (2 * GiB, True, False)
    assert outcome.seconds == decoded.seconds > 0
    assert (outcome.pixels, outcome.tiles) == (3 * 64 * 48, 1)
    assert decoded.prediction.peak_bytes == 120 * 3 * 8 * 6


def test_where_core_takes_a_batch_apart_the_part_is_what_was_measured():
    allocator, told = Allocator(), Told()
    vae = on_a_gpu(Working(allocator))
    vae.at_once = 1
    decode(image(3), vae, memory=Card(), meter=meter_of(allocator), told=told)
    assert [piece for piece, _ in told.learned] == [(1, None, 8, 6)]
    assert told.learned[0][1].tiles == 3


def test_a_peak_that_is_only_bounded_is_learned_as_a_lower_bound():
    told, allocator = Told(), Allocator(18 * GiB)
    allocator.hold(-18 * GiB)  # the mark stays, so it is no peak of what follows

    class Sampled(Working):
        def _pixels(self, latent, *, check=True):
            self.allocator.hold(GiB)
            return super()._pixels(latent, check=check)

    vae = on_a_gpu(Sampled(allocator))
    decode(image(), vae, memory=Card(), meter=meter_of(allocator), told=told)
    ((_, outcome),) = told.learned
    assert not outcome.exact
    assert outcome.measured_bytes == GiB, "what is still held at the end is known"


def test_a_decode_whose_peak_stays_unknown_still_teaches_its_time():
    told, allocator = Told(), Allocator(18 * GiB)
    allocator.hold(-18 * GiB)
    vae = on_a_gpu(Working(allocator))
    decode(image(), vae, memory=Card(), meter=meter_of(allocator), told=told)
    ((_, outcome),) = told.learned
    assert (outcome.measured_bytes, outcome.exact) == (0, False)
    assert outcome.seconds > 0


def told_need(whole_gib):
    """Predicts so much for 64 x 64 latents, and in proportion."""
    return Told(lambda batch, frames, height, width: int(whole_gib * GiB * height * width / 4096))


def test_a_decode_that_ran_out_teaches_that_it_needs_more_than_was_free():
    told = told_need(2.5)
    latent = torch.rand(1, 4, 64, 64)
    _, decoded = gpu_decode(latent, Allocator(), told, memory=Card(free=3 * GiB), largest=16 * 16)
    assert decoded.record.tried[0] == "whole: ran out of memory"
    piece, outcome = told.learned[0]
    assert piece == (1, None, 64, 64)
    assert (outcome.measured_bytes, outcome.failed, outcome.exact) == (3 * GiB, True, False)


def test_memory_that_another_process_took_meanwhile_does_not_count_as_needed():
    class Shrinking(Card):
        def empty_cache(self):
            self.free = GiB

    told = told_need(2.5)
    latent = torch.rand(1, 4, 64, 64)
    memory = Shrinking(free=3 * GiB)
    gpu_decode(latent, Allocator(), told, memory=memory, largest=16 * 16, whole=1000)
    assert told.learned[0][1].measured_bytes == GiB


def test_running_out_with_far_more_free_than_needed_is_not_believed_in_full():
    told = told_need(0.5)
    latent = torch.rand(1, 4, 64, 64)
    gpu_decode(latent, Allocator(), told, memory=Card(free=3 * GiB), largest=16 * 16, whole=1000)
    assert told.learned[0][1].measured_bytes == 0.75 * GiB


def test_room_is_made_up_to_the_cap_and_no_further():
    vae, allocator = on_a_gpu(Working(Allocator())), Allocator()
    memory = Card(free=2 * GiB)
    memory.evictable_bytes = lambda device, keep: 20 * GiB
    asked = []
    memory.evict = lambda needed, device, keep: asked.append(needed) or 0
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=memory, meter=meter_of(allocator),
        told=told_need(10), budget_cap_bytes=4 * GiB,
    )  # fmt: skip
    assert decoded.record.plan.kind == "tiled"
    assert decoded.record.plan.predicted_peak_bytes <= 4 * GiB


def test_pictures_that_stay_on_the_device_are_room_held_back_and_teach_nothing():
    vae = on_a_gpu(Working(Allocator()))
    vae.output_device = vae.device
    told = told_need(1)
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=Card(free=3 * GiB),
        meter=meter_of(vae.allocator), told=told,
    )  # fmt: skip
    assert decoded.record.budget_bytes == 3 * GiB - 2 * 512 * 512 * 3 * 4
    assert told.learned == []


def test_on_the_cpu_nothing_is_learned():
    told = Told()
    decode(torch.rand(1, 4, 64, 64), Vae(largest=16 * 16), told=told)
    assert told.learned == []


def test_what_the_native_allocator_cannot_fill_is_no_budget():
    told = Told(allocator="native")
    _, decoded = gpu_decode(image(), Allocator(), told, memory=Card(free=12 * GiB))
    assert decoded.record.budget_bytes == 10 * GiB
    assert decoded.record.free_bytes == 12 * GiB


def test_before_an_unknown_decoders_first_plan_a_corner_is_decoded_to_measure():
    told = Told(wants_probe=True)
    vae, decoded = gpu_decode(torch.rand(2, 4, 64, 64), Allocator(), told)
    assert vae.calls == [("whole", (1, 4, 8, 8)), ("whole", (2, 4, 64, 64))]
    assert told.learned[0][0] == (1, None, 8, 8)
    assert decoded.record.tried[0] == "a small corner, to measure: done"
    assert tuple(decoded.images.shape) == (2, 512, 512, 3)


def test_a_corner_that_the_decoder_refuses_does_not_fail_the_decode():
    class NotSmall(Working):
        def _pixels(self, latent, *, check=True):
            if latent.shape[-1] < 16:
                raise ValueError("too small")
            return super()._pixels(latent, check=check)

    allocator = Allocator()
    vae = on_a_gpu(NotSmall(allocator))
    decoded = decode(
        torch.rand(1, 4, 64, 64), vae, memory=Card(), meter=meter_of(allocator),
        told=Told(wants_probe=True),
    )  # fmt: skip
    assert decoded.record.tried == ["a small corner, to measure: ValueError", "whole: done"]


def test_an_interrupt_during_the_corner_stays_one(kept):
    vae = on_a_gpu(Working(Allocator(), largest=0, problem=OldInterrupt()))
    with pytest.raises(OldInterrupt):
        decode(image(), vae, memory=Card(), meter=meter_of(vae.allocator),
               told=Told(wants_probe=True))  # fmt: skip
    assert len(kept) == 1


def test_the_report_tells_predicted_measured_free_and_why():
    from vram_supervisor.nodes.report import decode_facts

    _, decoded = gpu_decode(image(), Allocator(), Told(), memory=Card(free=12 * GiB))
    facts = decode_facts(decoded)
    need = 120 * 8 * 6
    assert facts["prediction"] == {
        "predicted_peak_bytes": need, "base_bytes": need, "source": "prior",
        "reason": "as told", "dry_run": "formula", "seconds": None,
    }  # fmt: skip
    assert facts["measured_peak_bytes"] == 2 * GiB
    assert facts["measured_seconds"] is not None
    assert facts["free_bytes"] == facts["budget_bytes"] == 12 * GiB
    assert facts["plans"][facts["chosen"]]["kind"] == facts["plan"]["kind"] == "whole"
    assert facts["why"].startswith("whole: needs ")
    assert facts["why"].endswith("(as told)")


def test_the_suggestion_for_what_was_decoded_is_its_plan_as_widget_values():
    from vram_supervisor.nodes.suggestion import suggestion_of

    need = 120 * 64 * 64
    decoded = decode(torch.rand(1, 4, 64, 64), Vae(), memory=Memory(free=need // 3))
    suggestion = suggestion_of(decoded)
    assert suggestion["tile"]
    assert suggestion["tile_size"] == decoded.record.plan.tile_size < 512
    assert suggestion["for"] == "512 x 512 px"
    assert suggestion["predicted_peak_bytes"] <= need // 3
