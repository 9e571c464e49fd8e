"""A small real network behind a faked host, to be decoded in exact parts."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch
from support.toy_decoders import Clips, Kl, noise

from vram_supervisor.nodes.host import exact as module
from vram_supervisor.nodes.host import exact_shared
from vram_supervisor.nodes.host.evicting import Eviction
from vram_supervisor.nodes.host.exact import ExactWay
from vram_supervisor.nodes.host.exacts import Exacts
from vram_supervisor.nodes.host.vae import VaeFacts
from vram_supervisor.supervisor.decode import layout_bands
from vram_supervisor.supervisor.decode.memory import is_out_of_memory
from vram_supervisor.supervisor.decode.parking import HostPages
from vram_supervisor.supervisor.decode.running import Hooks
from vram_supervisor.supervisor.decode.sink import TensorSink
from vram_supervisor.supervisor.planning.calibration import Bound
from vram_supervisor.supervisor.planning.types import PlanRequest, Room

CPU = torch.device("cpu")
PLENTY = Room(1 << 40)


class Cache:
    """A store of texts; counts what was asked for in vain."""

    def __init__(self):
        self.texts, self.missed = {}, []

    def cached(self, kind, key):
        if (kind, key) not in self.texts:
            self.missed.append(kind)
        return self.texts.get((kind, key))

    def remember(self, kind, key, text):
        self.texts[kind, key] = text


class Memory:
    """The host's memory manager, with nothing to manage."""

    management = SimpleNamespace()

    def __init__(self):
        self.loaded, self.evicted = [], 0

    def load(self, patcher, room_bytes):
        self.loaded.append(patcher)

    def raise_if_interrupted(self):
        """Nobody interrupts."""

    def is_interrupt(self, problem):
        return False

    def is_oom(self, problem):
        return is_out_of_memory(problem)

    def empty_cache(self):
        """Nothing is cached."""

    def make_room(self, needed_bytes, device, *keep):
        freed = self.evict(needed_bytes, device, *keep)
        return Eviction(str(device), 0, 0, freed)

    def evict(self, needed_bytes, device, keep):
        self.evicted += 1
        return 0


class Told:
    """A forecast that was told how far layouts are off."""

    allocator = "native"

    def __init__(self, ratio=1.0):
        self.ratio = ratio

    def bound_exact(self, base_bytes):
        return Bound(int(base_bytes * self.ratio), "measured", self.ratio, "as measured")


def a_vae(model, *, frames=None):
    return SimpleNamespace(
        first_stage_model=model,
        device=CPU,
        vae_dtype=torch.float32,
        output_channels=3,
        process_output=lambda pixels: pixels.add_(1.0).div_(2.0),
        patcher="the weights",
        **({} if frames is None else {"upscale_ratio": (frames, 2, 2)}),
    )


def facts(**how):
    told = {
        "spatial_scale": 2,
        "temporal_scale": None,
        "tiles_itself": False,
        "streams_output": False,
        "pictures": True,
        "image_only": True,
        "family_module": "toy",
    }
    return VaeFacts(**{**told, **how})


class World:
    """One VAE, one latent, and what a process remembers of both."""

    def __init__(self, monkeypatch, model=None, latent=None, **how):
        self.model = model or Kl()
        self.latent = noise(2, 4, 20, 13) if latent is None else latent
        self.vae = a_vae(self.model, frames=how.get("frames"))
        self.facts = how.get("facts") or facts()
        self.cache, self.memory = Cache(), Memory()
        self.pages = HostPages(1 << 12, locks=False)
        self.program = how.get("program") or type(self.model).program
        self.builds = 0
        monkeypatch.setattr(module, "decoder_of", self.decoder_of)
        # This network asks the host nothing.
        monkeypatch.setattr(exact_shared, "answered", lambda total_bytes: nullcontext())
        monkeypatch.setattr(layout_bands, "LEAVING_BYTES", 0)

    def decoder_of(self, model):
        return None if self.program is None else ("toy", self.build)

    def build(self, model):
        self.builds += 1
        return self.program(model)

    def way(self, *, latent=None, forecast=None):
        return ExactWay(
            self.vae,
            self.latent if latent is None else latent,
            self.facts,
            self.memory,
            Exacts(self.cache, self.pages),
            forecast or Told(),
            architecture="toy",
            fused_attention=False,
            total_bytes=None,
        )

    def wanted(self):
        whole = torch.cat([self.model.decode(each[None]) for each in self.latent])
        if whole.ndim == 5:
            whole = whole.transpose(1, 2).flatten(0, 1)
        return (whole.permute(0, 2, 3, 1) + 1) / 2


LEAST_BYTES = {}
"""Budgets that just suffice, by network, input and forecast: many tests start from them."""


def least(way, world, ratio=1.0):
    """A budget that just suffices; one that is 2 % smaller does not."""
    key = type(world.model), tuple(world.latent.shape), ratio
    if key not in LEAST_BYTES:
        LEAST_BYTES[key] = least_of(way)
    return LEAST_BYTES[key]


def least_of(way):
    low, high = 1, 1 << 34
    while high > low * 1.02:
        middle = int((low * high) ** 0.5)
        plan = way.plan(Room(middle), PlanRequest(), None)
        low, high = (low, middle) if plan is not None and plan.fits else (middle, high)
    return high


def decoded(way, plan, **how):
    sink = TensorSink()
    way.decode(plan, sink, how.pop("hooks", Hooks(empty_cache=lambda: None)), lambda: 1 << 40)
    return sink.pixels


class Network(Clips):
    decode = Clips.forward
