"""The safe decode around exact parts: a host's memory, VAE and forecast that go together."""

import torch
from support import decoding_world, exact_world
from support.decoding_world import Counter, meter_of
from support.exact_world import PLENTY, World, facts, least
from support.toy_decoders import chunks_of, noise

from vram_supervisor.nodes.decoding import DecodeWish, decode_safely
from vram_supervisor.supervisor.planning.types import PlanRequest, Room

TOO_MUCH = 1 << 50


class Memory(decoding_world.Memory, exact_world.Memory):
    """The host's memory manager, as both halves ask it."""

    def __init__(self, free=1 << 40):
        decoding_world.Memory.__init__(self, free)
        exact_world.Memory.__init__(self)

    def is_oom(self, problem):
        known = decoding_world.Memory.is_oom(self, problem)
        return known or exact_world.Memory.is_oom(self, problem)

    def load(self, patcher, needed_bytes, *, entirely=False):
        self.loaded.append(patcher)

    def evict(self, needed_bytes, device, keep):
        return exact_world.Memory.evict(self, needed_bytes, device, keep)

    def progress_bar(self, steps):
        return lambda: None


class VideoVae(decoding_world.Vae):
    """As ComfyUI's own class: runs the network, finishes its pictures, tiles quietly."""

    scale = 2

    def __init__(self, model, *, frames=None):
        super().__init__(video=True)
        self.first_stage_model, self.patcher = model, "the weights"
        if frames is not None:
            self.upscale_ratio = (frames, self.scale, self.scale)

    def spacial_compression_decode(self):
        return self.scale

    def temporal_compression_decode(self):
        return 2

    def process_output(self, pixels):
        return pixels.add_(1.0).div_(2.0)

    def decode(self, latent):
        self.calls.append("whole")
        return self.process_output(self.first_stage_model.decode(latent)).movedim(1, -1)

    def decode_tiled(self, latent, **sizes):
        self.calls.append("tiled")
        batch, _, frames, height, width = latent.shape
        return torch.zeros(batch, 2 * frames, self.scale * height, self.scale * width, 3)


class Told(decoding_world.Told):
    """A forecast of what core does, the same for every piece unless told how to count, that lays
    out parts in a world."""

    def __init__(self, world, need):
        super().__init__(need if callable(need) else lambda *piece: need)
        self.world, self.way = world, None

    def bound_exact(self, base_bytes):
        return exact_world.Told().bound_exact(base_bytes)

    def learn_exact(self, base_bytes, outcome):
        """Nothing is measured here."""

    def exact_way(self, latent, facts, memory):
        self.world.latent, self.world.facts, self.world.memory = latent, facts, memory
        self.way = self.world.way()
        return self.way


def clips(monkeypatch, model=None, latent=None, **how):
    """A video VAE whose need shrinks with its tiles."""
    return World(
        monkeypatch,
        model or exact_world.Network(normed=False),
        noise(1, 4, 5, 12, 9) if latent is None else latent,
        **{
            "facts": facts(temporal_scale=2),
            "frames": lambda frames: 2 * frames,
            "program": lambda net: net.streamed(chunks_of(1, 2)),
            **how,
        },
    )


def whole_plan(way):
    return way.plan(PLENTY, PlanRequest(), None)


def plan_for(way, world, budget):
    """A plan for so many times the least that suffices."""
    room = Room(int(budget * least(way, world)))
    return way.plan(room, PlanRequest(), None), room


def decode_safe(world, vae, *, need_bytes=100, free=1 << 40, told=None, memory=None, **how):
    """``decode_safely`` of a world's latent, core's ways needing ``need_bytes`` each."""
    world.vae = vae
    wish = DecodeWish(PlanRequest(), last_frame_fix=False, budget_cap_bytes=0, keep_latent=False)
    return decode_safely(
        world.latent,
        vae,
        wish,
        memory or Memory(free),
        meter_of(Counter((None, None)), "cpu"),
        told or Told(world, need_bytes),
        **how,
    )
