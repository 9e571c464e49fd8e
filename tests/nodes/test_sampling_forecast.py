"""What sampling is expected to need: the host's formula, then what it really took."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.clock import StillClock  # noqa: E402

from vram_supervisor.nodes.host.meter import Measured  # noqa: E402
from vram_supervisor.nodes.host.sampling_forecast import SamplingForecast, Seen  # noqa: E402
from vram_supervisor.supervisor.planning.calibration import CalibrationKey  # noqa: E402
from vram_supervisor.supervisor.planning.calibration_store import CalibrationStore  # noqa: E402
from vram_supervisor.supervisor.units import GiB, MiB  # noqa: E402

KEY = CalibrationKey(
    gpu="card",
    driver=None,
    torch=None,
    cudnn=None,
    allocator="native",
    vae="wan",
    dtype="torch.bfloat16",
    attention="attention_pytorch",
    autotune=False,
)
SHAPE = (1, 16, 21, 60, 104)


class Model:
    """A formula of 8 KiB for each latent pixel, and for each of the longest text's tokens."""

    def memory_required(self, shape, cond_shapes):
        pixels = shape[0] * shape[2] * shape[3] * shape[4]
        tokens = sum(shape[1] for (shape,) in cond_shapes.values())
        return 8192.0 * (pixels + tokens)

    def extra_conds_shapes(self, **cond):
        return {"text": cond["text"]} if "text" in cond else {}


@pytest.fixture
def store():
    return CalibrationStore(None, StillClock())


def forecast(store, conds=None, shape=SHAPE):
    patcher = SimpleNamespace(model=Model())
    return SamplingForecast(store, patcher, conds or {}, shape, KEY)


def seen(*shape):
    found = Seen()
    found.look(shape)
    return found


def formula(frames, batch=1):
    return 8192 * batch * frames * 60 * 104


def test_cold_it_is_the_hosts_formula_with_a_little_more(store):
    told = forecast(store).bound(21)
    assert formula(21) <= told.bytes < 1.1 * formula(21) + 64 * MiB
    assert told.source == "prior"


def test_more_frames_need_more(store):
    needs = [forecast(store).need_bytes(frames) for frames in range(1, 22)]
    assert needs == sorted(needs)
    assert len(set(needs)) == len(needs)


def test_of_the_conditions_the_largest_counts(store):
    """The host runs them one at a time where memory is short."""
    texts = {"positive": [{"text": (1, 512)}], "negative": [{"text": (1, 77)}, {}]}
    more = forecast(store, texts).need_bytes(21) - forecast(store).need_bytes(21)
    assert 8192 * 512 <= more < 1.1 * 8192 * 512


@pytest.mark.parametrize("ratio", [0.5, 1.8])
def test_what_it_took_is_what_the_next_one_is_expected_to_take(store, ratio):
    took = int(ratio * formula(21))
    forecast(store).learn(seen(*SHAPE), Measured(took, took, took))
    told = forecast(store).bound(21)
    assert took <= told.bytes < 1.05 * took + 64 * MiB
    assert told.source == "measured"


def test_both_conditions_at_once_say_what_one_takes(store):
    """With room to spare the host runs them together; on a smaller card it would not."""
    took = formula(21, batch=2)
    forecast(store).learn(seen(2, *SHAPE[1:]), Measured(took, took, took))
    assert forecast(store).need_bytes(21) < 1.1 * formula(21) + 64 * MiB


def test_windows_teach_of_windows(store):
    took = 2 * formula(6)
    forecast(store).learn(seen(1, 16, 6, 60, 104), Measured(took, took, took))
    assert forecast(store).need_bytes(6) >= took


def test_a_failure_counts_as_at_least(store):
    before = forecast(store).need_bytes(21)
    forecast(store).learn_failure(seen(*SHAPE), 21, 2 * before)
    assert forecast(store).need_bytes(21) > 2 * before
    assert forecast(store).need_bytes(21) < 4 * before


def test_a_failure_before_the_model_ran_counts_for_what_was_asked(store):
    forecast(store).learn_failure(Seen(), 21, 9 * GiB)
    assert forecast(store).need_bytes(21) > 9 * GiB


@pytest.mark.parametrize(
    ("sentence", "shape", "measured"),
    [
        ("nothing was measured", SHAPE, Measured()),
        ("the model never ran", None, Measured(5, 5, 5)),
        ("sound and pictures in one", (1, 1, 4096), Measured(5, 5, 5)),
    ],
)
def test_what_says_nothing_is_not_kept(store, sentence, shape, measured):
    forecast(store).learn(Seen(shape), measured)
    assert not store.measurements(KEY), sentence


def test_the_largest_call_is_what_counts():
    found = Seen()
    for frames in (6, 21, 13):
        found.look((1, 16, frames, 60, 104))
    assert found.shape == SHAPE
