"""A small torch decoder behind a stand-in for a VAE, and a forecaster for it."""

from dataclasses import replace

import torch
from support.clock import StillClock
from torch import nn

from vram_supervisor.nodes.host.forecast import (
    Forecaster,
)
from vram_supervisor.nodes.host.idle import IdleWorker
from vram_supervisor.nodes.host.traces import Traces
from vram_supervisor.supervisor.planning.calibration_store import (
    CalibrationStore,
)
from vram_supervisor.supervisor.planning.cost import FamilyCost
from vram_supervisor.supervisor.planning.dry_run import TensorSpec, trace_decode
from vram_supervisor.supervisor.planning.objective import NOMINAL
from vram_supervisor.supervisor.planning.workspace import CUDNN_LAYOUT
from vram_supervisor.supervisor.types import DeviceInfo

PATIENCE_S = 60.0
MiB = 1 << 20
SHAPE = (1, 4, 64, 64)
WHOLE = (1, None, 64, 64)
TILE = (1, None, 32, 32)
CARD = DeviceInfo("cuda:0", "cuda", name="Card", driver="1.0")


class Decoder(nn.Module):
    """Eight pixels for each latent one."""

    def __init__(self, width=16):
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def decode(self, latent):
        wide = torch.relu(self.first(latent))
        return self.last(wide.repeat_interleave(8, -1).repeat_interleave(8, -2))


class Untraceable(nn.Module):
    """Looks at values, which fake tensors do not have."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def decode(self, latent):
        return latent * int(self.scale.sum().item())


class Vae:
    def __init__(self, model=None, *, formula=lambda shape: 10 * MiB, **facts):
        self.first_stage_model = model or Decoder()
        self.device = torch.device("cuda:0")
        self.vae_dtype = torch.bfloat16
        self.patcher = None
        self.latent_dim = 2
        self.handles_tiling = False
        self.memory_used_decode = lambda shape, dtype: formula(shape)
        vars(self).update(facts)

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return 4 if self.latent_dim == 3 else None


class Interrupted(BaseException):
    """As newer hosts raise it."""


class Clock(StillClock):
    def __call__(self):
        return self.now_s


class Runs:
    """Dry runs that take as long as the test says, and are counted."""

    def __init__(self, clock, seconds=0.0):
        self.clock, self.seconds = clock, seconds
        self.shapes = []

    def __call__(self, vae, shape, *, tiled, fused_attention, total_bytes, check):
        self.shapes.append(shape)
        self.clock.now_s += self.seconds
        trace = trace_decode(
            vae.first_stage_model,
            lambda model, latent: model.decode(latent),
            TensorSpec(shape),
            check=check,
        )
        return replace(trace, seconds=self.seconds)


class World:
    """A process's forecaster with everything around it in the test's hand."""

    def __init__(self, path=None, *, seconds=0.0, family=None, check=lambda: None):
        self.clock = Clock()
        self.runs = Runs(self.clock, seconds)
        self.store = CalibrationStore(path, self.clock)
        self.idle = IdleWorker(self.is_interrupt, lambda: None)
        self.idle.job_started()
        self.forecaster = Forecaster(
            self.store,
            Traces(self.store, check, self.is_interrupt, self.runs, self.clock),
            self.idle,
            lambda: [CARD],
            lambda device: 24 << 30,
            lambda architecture: family,
        )

    @staticmethod
    def is_interrupt(problem):
        return isinstance(problem, Interrupted)

    def forecast(self, vae, shape=SHAPE, **options):
        return self.forecaster.forecast(vae, shape, **options)

    def between_jobs(self):
        self.idle.job_ended()
        assert self.idle.wait_until_done(PATIENCE_S)
        self.idle.job_started()

    def close(self):
        self.idle.close()
        self.store.close()


def base_of(model, shape):
    trace = trace_decode(model, lambda it, latent: it.decode(latent), TensorSpec(shape))
    return CUDNN_LAYOUT.peak_bytes(trace)


def table(**changes):
    """Says 1000 bytes for each latent pixel."""
    known = {
        "family": "small", "title": "Small", "channels": 4, "spatial_scale": 8,
        "temporal_scale": 1, "growth": "none", "video": False, "areas": (1, 10_000),
        "frames": (1,), "base_bytes": ((1000, 10_000_000),), "ratio": 1.1, "measured": True,
        "source": "the test", "time": NOMINAL,
    }  # fmt: skip
    return FamilyCost(**(known | changes))
