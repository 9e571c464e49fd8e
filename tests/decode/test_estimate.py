import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.estimate import StreamedCost, plan_streamed  # noqa: E402
from vram_supervisor.supervisor.decode.executor import decode  # noqa: E402
from vram_supervisor.supervisor.embedded.decoder import (  # noqa: E402
    CausalVideoDecoder,
    DecoderConfig,
)
from vram_supervisor.supervisor.errors import NothingFitsError  # noqa: E402
from vram_supervisor.supervisor.planning.dry_run import TensorSpec  # noqa: E402
from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402
from vram_supervisor.supervisor.planning.types import PlanRequest  # noqa: E402

CONFIG = DecoderConfig(channels=(16, 12, 8, 8))
SHAPE = (1, 16, 4, 16, 34)
REQUEST = PlanRequest(overlap=0)


@pytest.fixture(scope="module")
def decoder():
    return CausalVideoDecoder(CONFIG)


@pytest.fixture(scope="module")
def cost(decoder):
    return StreamedCost(decoder, TensorSpec(SHAPE))


def measured(decoder, plan):
    latent = torch.randn(SHAPE)
    with LiveBytes("cpu") as counter:
        frames = decode(decoder, latent, plan).frames
    assert frames.shape == (1, 3, 13, 128, 272)
    return counter.peak_bytes


@pytest.mark.parametrize(
    ("share", "kind", "tiles"),
    [(1.0, "whole", 1), (0.6, "streamed", 1), (0.4, "streamed", 2), (0.3, "streamed", 3)],
)
def test_the_prediction_is_what_the_decode_then_holds(decoder, cost, share, kind, tiles):
    budget = int(cost.whole_bytes() * share)
    planned = plan_streamed(decoder, cost, budget, REQUEST)
    plan = planned.plan
    assert (plan.kind, plan.tiles) == (kind, tiles)
    assert plan.predicted_peak_bytes <= budget
    assert measured(decoder, plan) == pytest.approx(plan.predicted_peak_bytes, rel=0.001)


def test_the_reason_names_the_whole_need_and_the_budget(decoder, cost):
    planned = plan_streamed(decoder, cost, cost.whole_bytes() // 2, REQUEST)
    assert planned.whole_bytes == cost.whole_bytes()
    assert "streamed through time" in planned.plan.reason
    assert "whole needs" in planned.plan.reason


def test_too_small_a_budget_names_the_smallest_need(decoder, cost):
    with pytest.raises(NothingFitsError) as caught:
        plan_streamed(decoder, cost, 1000, REQUEST)
    smallest = caught.value.smallest_need_bytes
    assert plan_streamed(decoder, cost, smallest, REQUEST).plan.fits


def test_the_ratio_covers_kernel_workspace(decoder, cost):
    doubled = StreamedCost(decoder, TensorSpec(SHAPE), ratio=2.0)
    assert doubled.whole_bytes() == 2 * cost.whole_bytes()
    assert doubled.need_bytes(1, 4, 16, 20) == 2 * cost.need_bytes(1, 4, 16, 20)


def test_each_size_is_dry_run_once(decoder, monkeypatch):
    cost = StreamedCost(decoder, TensorSpec(SHAPE))
    runs = []
    real = cost._dry_run
    monkeypatch.setattr(cost, "_dry_run", lambda run: runs.append(run) or real(run))
    assert cost.need_bytes(1, 4, 16, 20) == cost.need_bytes(1, 4, 16, 20)
    assert len(runs) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_real_out_of_memory_loses_nothing():
    decoder = CausalVideoDecoder(DecoderConfig(channels=(96, 64, 48, 32))).cuda()
    latent = torch.randn((1, 16, 5, 48, 80), device="cuda")
    cost = StreamedCost(decoder, TensorSpec(tuple(latent.shape), device="cuda:0"))
    plan = plan_streamed(decoder, cost, 1 << 60, REQUEST).plan
    assert plan.kind == "whole"
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = decode(decoder, latent, plan).frames
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(0.3 * 2**30 / total)
        try:
            outcome = decode(decoder, latent, plan)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert outcome.tried
    error = (outcome.frames - expected).norm() / expected.norm()
    assert error <= 1e-5
