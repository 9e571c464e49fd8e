"""Stand-ins for ComfyUI's VAE object, its memory manager and torch's counters."""

import torch
from support.clock import StillClock

from vram_supervisor.nodes.decoding import DecodeWish, decode_safely
from vram_supervisor.nodes.host.evicting import Eviction
from vram_supervisor.nodes.host.forecast import Prediction
from vram_supervisor.nodes.host.meter import PeakMeter
from vram_supervisor.supervisor.planning.types import PlanRequest
from vram_supervisor.supervisor.telemetry.peaks import PeakBook


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

    def next_use_bytes(self, device, keep):
        return 0

    def evictable_bytes(self, device, keep):
        return 0

    def make_room(self, needed_bytes, device, *keep):
        freed = self.evict(needed_bytes, device, *keep)
        return Eviction(str(device), 0, 0, freed)

    def evict(self, needed, device, keep):
        return 0

    def empty_cache(self):
        pass

    def raise_if_interrupted(self):
        pass

    def is_interrupt(self, problem):
        return isinstance(problem, Interrupted | OldInterrupt)

    def is_oom(self, problem):
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
    board = options.pop("board", None)
    wish = DecodeWish(request, **options)
    return decode_safely(samples, vae, wish, memory or Memory(), meter, told, board=board)


def image(batch=1):
    return torch.rand(batch, 4, 8, 6)


def video(frames=3):
    return torch.rand(1, 16, frames, 8, 6)


MANUAL = PlanRequest(manual=True, tile_size=64, overlap=16)


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


def on_a_gpu(vae):
    """As if it decoded on a card: what is measured is learned there."""
    vae.device = torch.device("cuda:0")
    return vae


class Card(Memory):
    """Its reserve is 0 and no weights are missing."""

    def kept_free_bytes(self):
        return 0

    def missing_weights_bytes(self, patcher):
        return 0

    def load(self, patcher, needed_bytes, *, entirely=False):
        pass


def told_need(whole_gib):
    """Predicts so much for 64 x 64 latents, and in proportion."""
    return Told(lambda batch, frames, height, width: int(whole_gib * GiB * height * width / 4096))
