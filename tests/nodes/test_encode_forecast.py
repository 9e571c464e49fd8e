"""Forecasts of small encoders: the host's formula, dry runs, and what is learned."""

from contextlib import nullcontext

import pytest
from support.clock import StillClock

torch = pytest.importorskip("torch")

from support.encoding_vae import EncodingVae  # noqa: E402
from torch import nn  # noqa: E402

from vram_supervisor.nodes.host import encode_forecast as module  # noqa: E402
from vram_supervisor.nodes.host import forecast as forecast_module  # noqa: E402
from vram_supervisor.nodes.host.encode_forecast import (  # noqa: E402
    FORMULA_RATIO,
    EncodeForecast,
)
from vram_supervisor.nodes.host.exacts import Exacts  # noqa: E402
from vram_supervisor.nodes.host.forecast import Forecaster, Outcome  # noqa: E402
from vram_supervisor.nodes.host.idle import IdleWorker  # noqa: E402
from vram_supervisor.nodes.host.traces import Traces  # noqa: E402
from vram_supervisor.nodes.host.vae_encoding import encoding_facts, prepared  # noqa: E402
from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.planning.calibration_store import CalibrationStore  # noqa: E402
from vram_supervisor.supervisor.planning.dry_run import TensorSpec, trace_decode  # noqa: E402
from vram_supervisor.supervisor.planning.workspace import CUDNN_LAYOUT  # noqa: E402

WHOLE = (1, None, 8, 6)
HALF = (1, None, 8, 3)


class Interrupted(BaseException):
    pass


class Encoder(nn.Module):
    """Eight pixels make one; runs are counted."""

    runs = 0

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 4, 8, stride=8)

    def encode(self, pixels):
        type(self).runs += 1
        return self.last(self.first(pixels))


class VideoEncoder(nn.Module):
    """All frames at once."""

    lengths: tuple[int, ...] = ()

    def __init__(self):
        super().__init__()
        self.only = nn.Conv3d(3, 4, (1, 8, 8), stride=(4, 8, 8))

    def encode(self, pixels):
        type(self).lengths += (pixels.shape[2],)
        return self.only(pixels)


class Untraceable(Encoder):
    def encode(self, pixels):
        return super().encode(pixels) * int(pixels.sum().item() > 0)


class Memory:
    problem = None

    def is_interrupt(self, problem):
        return isinstance(problem, Interrupted)

    def raise_if_interrupted(self):
        if self.problem is not None:
            raise self.problem


class World:
    def __init__(self):
        self.store = CalibrationStore(None, StillClock())
        self.idle = IdleWorker(self.is_interrupt, lambda: None)
        self.memory = Memory()

    @staticmethod
    def is_interrupt(problem):
        return isinstance(problem, Interrupted)

    def process(self):
        """What one process shares; another one finds what is kept."""
        return Forecaster(
            self.store,
            Traces(self.store, lambda: None, self.is_interrupt),
            self.idle,
            list,
            lambda device: 24 << 30,
            lambda architecture: None,
            Exacts(self.store, HostPages(1 << 12, locks=False)),
        )

    def forecast(self, network=None, pictures=(1, 64, 48, 3), *, process=None, **changes):
        vae = EncodingVae(network or Encoder(), device=torch.device("cuda:0"), **changes)
        pixels = prepared(vae, torch.zeros(pictures))
        return EncodeForecast(
            process or self.process(), vae, encoding_facts(vae), pixels, self.memory
        )


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(forecast_module, "allocator_name", lambda device: "cudaMallocAsync")
    monkeypatch.setattr(forecast_module, "attention_name", lambda model: "pytorch")
    monkeypatch.setattr(module, "answered", lambda total_bytes: nullcontext())
    monkeypatch.setattr(Encoder, "runs", 0)
    monkeypatch.setattr(VideoEncoder, "lengths", ())
    made = World()
    yield made
    made.idle.close()
    made.store.close()


def peak_of(network, shape):
    trace = trace_decode(
        network, lambda net, x: net.encode(x.to(torch.float32, copy=True)), TensorSpec(shape)
    )
    return CUDNN_LAYOUT.peak_bytes(trace)


def test_the_whole_is_dry_run_once_and_found_again_by_another_process(world):
    network = Encoder()
    found = world.forecast(network).predict(WHOLE)
    assert found.base_bytes == peak_of(network, (1, 3, 64, 48))
    assert (found.source, found.dry_run) == ("prior", "run")
    assert found.peak_bytes > found.base_bytes
    Encoder.runs = 0
    again = world.forecast(network).predict(WHOLE)
    assert (again.base_bytes, again.dry_run, Encoder.runs) == (found.base_bytes, "disk", 0)


def test_a_batch_needs_as_much_for_each_item(world):
    forecast = world.forecast(pictures=(3, 64, 48, 3))
    one, three = (forecast.predict((n, *WHOLE[1:])).base_bytes for n in (1, 3))
    assert three == 3 * one


def test_with_ample_room_by_the_hosts_formula_nobody_waits_for_a_dry_run(world):
    forecast = world.forecast()
    formula = 100 * 64 * 48
    forecast.has_room(1 << 30)
    told = forecast.predict(WHOLE)
    assert (told.base_bytes, told.dry_run, Encoder.runs) == (formula, "formula", 0)
    assert told.peak_bytes >= formula * FORMULA_RATIO


def test_without_ample_room_a_dry_run_decides(world):
    forecast = world.forecast()
    forecast.has_room(100 * 64 * 48)
    assert forecast.predict(WHOLE).dry_run == "run"


def test_tiles_cost_the_share_that_the_formula_gives_them(world):
    forecast = world.forecast()
    whole, half = forecast.predict(WHOLE).base_bytes, forecast.predict(HALF).base_bytes
    assert half == pytest.approx(whole / 2, abs=1)
    assert forecast.hungriest([HALF, WHOLE]).piece == WHOLE


@pytest.mark.parametrize(
    ("sentence", "frames", "runs"),
    [
        ("a short clip is run as it is", 33, {33}),
        ("of a long one only so much that the rest follows", 129, {17, 33}),
    ],
)
def test_of_a_video(world, sentence, frames, runs):
    network = VideoEncoder()
    forecast = world.forecast(network, (frames, 64, 48, 3), video=True)
    told = forecast.predict((1, (frames + 3) // 4, 8, 6)).base_bytes
    assert set(VideoEncoder.lengths) == runs, sentence
    assert told == pytest.approx(peak_of(network, (1, 3, frames, 64, 48)), rel=0.01)


def test_an_encoder_that_cannot_be_dry_run_is_judged_by_the_formula_and_the_report_says_so(world):
    forecast = world.forecast(Untraceable())
    assert forecast.predict(WHOLE).dry_run == "formula"
    assert any("cannot be dry-run" in note for note in forecast.notes)


def test_an_interrupt_during_a_dry_run_passes_through(world):
    world.memory.problem = Interrupted()
    with pytest.raises(Interrupted):
        world.forecast().predict(WHOLE)


def test_a_formula_that_fails_does_not_fail_the_encode(world):
    def broken(shape, dtype):
        raise ZeroDivisionError

    forecast = world.forecast(memory_used_encode=broken)
    forecast.has_room(1 << 40)
    assert forecast.predict(WHOLE).dry_run == "run"


def test_what_was_measured_makes_the_next_prediction(world):
    forecast = world.forecast()
    base = forecast.predict(WHOLE).base_bytes
    forecast.learn(WHOLE, Outcome(int(1.3 * base)))
    told = forecast.predict(WHOLE)
    assert told.source == "measured"
    assert 1.3 * base <= told.peak_bytes < 1.4 * base + (64 << 20)


def test_tiles_teach_only_by_failing(world):
    forecast = world.forecast()
    forecast.learn(HALF, Outcome(1 << 20))
    assert forecast.predict(WHOLE).source == "prior"
    base = forecast.predict(WHOLE).base_bytes
    before = forecast.predict(HALF).peak_bytes
    forecast.learn(HALF, Outcome(4 * base, exact=False, failed=True))
    assert forecast.predict(HALF).peak_bytes > before


def test_exact_parts_have_measurements_of_their_own(world):
    forecast = world.forecast()
    before = forecast.bound_exact(1 << 30).bytes
    forecast.learn_exact(1 << 30, Outcome(1 << 30))
    assert forecast.bound_exact(1 << 30).bytes < before
    assert forecast.predict(WHOLE).source == "prior"
