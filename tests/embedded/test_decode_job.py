import itertools
import json
import threading

import pytest

torch = pytest.importorskip("torch")
from support.instruments import CPU, FakeCounter, ScriptedProbe  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor  # noqa: E402

from vram_supervisor.supervisor.decode.running import RETRIES  # noqa: E402
from vram_supervisor.supervisor.embedded import decode_job  # noqa: E402
from vram_supervisor.supervisor.embedded.decode_job import DecodeJobs, DecodeRequest, named_device  # noqa: E402
from vram_supervisor.supervisor.embedded.decoder import DecoderConfig  # noqa: E402
from vram_supervisor.supervisor.errors import DecodeBusyError  # noqa: E402
from vram_supervisor.supervisor.service import Supervisor  # noqa: E402
from vram_supervisor.supervisor.telemetry.history import MemoryHistory  # noqa: E402
from vram_supervisor.supervisor.types import Reading  # noqa: E402
from vram_supervisor.supervisor.units import GiB  # noqa: E402

TINY = DecoderConfig(channels=(8, 8, 4, 4))
PATIENCE_S = 120


@pytest.fixture
def supervisor():
    probe = ScriptedProbe(CPU, [Reading(free_bytes=4 * GiB)])
    return Supervisor(probes=[probe], history=MemoryHistory(), counter=FakeCounter())


@pytest.fixture
def jobs(supervisor):
    return DecodeJobs(supervisor, device="cpu", config=TINY)


def finish(jobs, request):
    job_id = jobs.start(request)
    assert jobs.wait(PATIENCE_S)
    snapshot = jobs.snapshot()
    assert snapshot["job_id"] == job_id
    return snapshot


@pytest.mark.parametrize(
    ("sentence", "asked", "latent"),
    [
        ("exact sizes stay", (320, 128, 13), (1, 16, 4, 16, 40)),
        ("others are rounded up to whole latents", (321, 121, 14), (1, 16, 5, 16, 41)),
        ("the smallest job is one latent", (1, 1, 1), (1, 16, 1, 1, 1)),
    ],
)
def test_sizes(sentence, asked, latent):
    assert DecodeRequest(*asked).latent_shape() == latent


def test_idle_before_the_first_job(jobs):
    snapshot = jobs.snapshot()
    assert (snapshot["state"], snapshot["job_id"], snapshot["progress"]) == ("idle", None, 0.0)
    assert jobs.preview_png() is None
    assert jobs.wait(0)


def test_a_job_under_a_budget_is_streamed_and_keeps_to_it(jobs):
    got = finish(jobs, DecodeRequest(272, 128, 13, budget_share=0.4, compare=True))
    assert (got["state"], got["error"], got["frames"]) == ("done", None, 13)
    assert got["plan"]["kind"] == "streamed"
    predicted = got["predicted_peak_bytes"]
    assert 0.98 * predicted <= got["measured_peak_bytes"] <= predicted
    assert predicted <= got["budget_bytes"] < got["whole_predicted_bytes"]
    assert got["relative_error"] <= 1e-5
    assert got["progress"] == 1.0
    assert all(tile["done"] for tile in got["tiles"])
    assert sum(tile["w"] * tile["h"] for tile in got["tiles"]) == 272 * 128
    assert jobs.preview_png().startswith(b"\x89PNG")


def test_snapshots_are_json_at_every_moment(jobs):
    json.dumps(jobs.snapshot())
    json.dumps(finish(jobs, DecodeRequest(64, 64, 5)), allow_nan=False)


def test_the_tracker_sees_the_job_and_its_nodes(jobs, supervisor):
    got = finish(jobs, DecodeRequest(64, 64, 5, compare=True))
    (record,) = supervisor.jobs.recent(5)
    assert (record.job_id, record.status) == (got["job_id"], "success")
    assert [(node.node_id, node.node_type) for node in record.nodes] == [
        ("latent", "RandomLatent"),
        ("decode", "StreamedTiledDecode"),
        ("compare", "WholeDecode"),
    ]


def test_without_a_budget_most_of_what_is_free_is_used(jobs, supervisor):
    supervisor.start()
    try:
        sampled = threading.Event()
        stream = supervisor.open_stream(None, sampled.set)
        assert sampled.wait(PATIENCE_S)
        stream.close()
        got = finish(jobs, DecodeRequest(64, 64, 5))
    finally:
        supervisor.stop()
    assert got["budget_bytes"] == int(4 * GiB * decode_job.BUDGET_SHARE)
    assert got["plan"]["kind"] == "whole"


def test_with_free_memory_unknown_it_tries_whole(jobs):
    got = finish(jobs, DecodeRequest(64, 64, 5))
    assert got["plan"]["kind"] == "whole"
    assert got["budget_bytes"] == got["whole_predicted_bytes"]


def test_a_budget_nothing_fits_ends_in_an_error_that_says_so(jobs, supervisor):
    got = finish(jobs, DecodeRequest(272, 128, 13, budget_bytes=1000))
    assert got["state"] == "error"
    assert "NothingFitsError" in got["error"]
    assert supervisor.jobs.recent(1)[0].status == "error"


def test_a_job_larger_than_the_machine_is_refused_before_it_allocates(jobs):
    got = finish(jobs, DecodeRequest(16384, 16384, 100_000))
    assert "NothingFitsError" in got["error"]


def test_after_an_error_the_next_job_runs(jobs):
    finish(jobs, DecodeRequest(272, 128, 13, budget_bytes=1000))
    assert finish(jobs, DecodeRequest(64, 64, 5))["error"] is None


class Gate:
    """Holds a decode before one of its parts until the test lets it go on."""

    def __init__(self, monkeypatch, part=1):
        self.reached, self.open = threading.Event(), threading.Event()
        real, seen = DecodeJobs._check, itertools.count(1)

        def wait_then_check(jobs, job):
            if next(seen) >= part:
                self.reached.set()
                assert self.open.wait(PATIENCE_S)
            real(jobs, job)

        monkeypatch.setattr(DecodeJobs, "_check", wait_then_check)


def test_one_job_at_a_time(jobs, monkeypatch):
    gate = Gate(monkeypatch)
    running = jobs.start(DecodeRequest(64, 64, 5))
    assert gate.reached.wait(PATIENCE_S)
    with pytest.raises(DecodeBusyError) as caught:
        jobs.start(DecodeRequest(64, 64, 5))
    assert caught.value.job_id == running
    assert jobs.snapshot()["state"] == "running"
    gate.open.set()
    assert jobs.wait(PATIENCE_S)
    assert jobs.snapshot()["state"] == "done"


def test_a_running_job_shows_its_tiles_before_they_are_done(jobs, monkeypatch):
    gate = Gate(monkeypatch)
    jobs.start(DecodeRequest(272, 128, 13, budget_share=0.4))
    assert gate.reached.wait(PATIENCE_S)
    running = jobs.snapshot()
    gate.open.set()
    assert jobs.wait(PATIENCE_S)
    assert len(running["tiles"]) == running["plan"]["tiles"] > 1
    assert running["progress"] == 0
    assert not any(tile["done"] for tile in running["tiles"])


def test_a_cancelled_job_is_interrupted(jobs, supervisor, monkeypatch):
    gate = Gate(monkeypatch)
    jobs.start(DecodeRequest(64, 64, 5))
    assert gate.reached.wait(PATIENCE_S)
    jobs.cancel()
    gate.open.set()
    assert jobs.wait(PATIENCE_S)
    assert supervisor.jobs.recent(1)[0].status == "interrupted"
    assert "interrupted" in jobs.snapshot()["error"]


def test_a_job_cancelled_within_a_tile_leaves_it_unfinished(jobs, monkeypatch):
    # Four chunks at the latent's resolution, the tile itself, and its first two chunks.
    gate = Gate(monkeypatch, part=4 + 1 + 3)
    jobs.start(DecodeRequest(272, 128, 13, budget_share=0.4))
    assert gate.reached.wait(PATIENCE_S)
    (begun, *rest) = jobs.snapshot()["tiles"]
    jobs.cancel()
    gate.open.set()
    assert jobs.wait(PATIENCE_S)
    assert (begun["share_done"], begun["done"]) == (pytest.approx(5 / 13, abs=1e-4), False)
    assert not any(tile["share_done"] for tile in rest)
    assert "after 0 finished" in jobs.snapshot()["error"]
    assert jobs.preview_png() is None


def run_out(monkeypatch, method, times):
    """Let a part of the decoder run out of memory so many times, not in the dry run."""
    real, failed = getattr(decode_job.CausalVideoDecoder, method), []

    def failing(self, x, *rest, **how):
        if not isinstance(x, FakeTensor) and len(failed) < times:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, x, *rest, **how)

    monkeypatch.setattr(decode_job.CausalVideoDecoder, method, failing)


BUDGETED = DecodeRequest(272, 128, 13, budget_share=0.4, compare=True)


@pytest.mark.parametrize(
    ("sentence", "method", "times", "more_tiles"),
    [
        ("what fails once is tried again", "up", 1, 0),
        ("a tile that fails for good is split on the map", "up", 1 + RETRIES, 1),
        ("as often as it must", "up", 3 * (1 + RETRIES), 3),
        ("the part before all tiles is tried again", "mid", RETRIES, 0),
    ],
)
def test_running_out_of_memory_loses_nothing(
    jobs, monkeypatch, sentence, method, times, more_tiles
):
    run_out(monkeypatch, method, times)
    got = finish(jobs, BUDGETED)
    assert got["error"] is None
    assert len(got["ladder"]) == times
    assert len(got["tiles"]) == got["plan"]["tiles"] + more_tiles
    assert sum(tile["w"] * tile["h"] for tile in got["tiles"]) == 272 * 128
    assert got["progress"] == 1.0
    assert all(tile["done"] for tile in got["tiles"])
    assert got["relative_error"] <= 1e-5


def test_a_whole_decode_that_runs_out_is_streamed(jobs, monkeypatch):
    run_out(monkeypatch, "forward", 1 + RETRIES)
    got = finish(jobs, DecodeRequest(96, 64, 13, compare=True))
    assert (got["error"], got["plan"]["kind"]) == (None, "streamed")
    assert [line.split(",")[0] for line in got["ladder"]] == ["whole"] * (1 + RETRIES)
    assert got["progress"] == 1.0
    assert got["measured_peak_bytes"] <= got["predicted_peak_bytes"]
    assert got["relative_error"] <= 1e-5


def test_a_clip_too_small_for_parts_that_need_less_is_not_tried_in_parts(jobs, monkeypatch):
    run_out(monkeypatch, "forward", 10_000)
    got = finish(jobs, DecodeRequest(64, 64, 5))
    assert "DecodeFailedError" in got["error"]
    assert got["ladder"] == ("whole, 8x8 at (0, 0): out of memory",) * (1 + RETRIES)


def test_when_nothing_fits_every_attempt_is_named(jobs, monkeypatch):
    run_out(monkeypatch, "up", 10_000)
    got = finish(jobs, DecodeRequest(96, 64, 13))
    assert "DecodeFailedError" in got["error"]
    assert got["ladder"][0] == "whole, 12x8 at (0, 0): out of memory"
    assert got["ladder"][-1] == "up path, 1x1 at (0, 0): out of memory"
    assert all(line in got["error"] for line in got["ladder"])
    assert jobs.preview_png() is None


@pytest.mark.parametrize(
    ("primary", "cuda", "expected"),
    [
        pytest.param("cpu", False, "cpu", id="the CPU"),
        pytest.param("cuda:1", True, "cuda:1", id="a GPU torch can use"),
        pytest.param("nvml:0", False, "cpu", id="a GPU only the driver sees"),
        pytest.param("cuda:0", False, "cpu", id="a CUDA name without CUDA"),
    ],
)
def test_the_device(primary, cuda, expected, supervisor, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(supervisor, "primary_device", lambda: primary)
    assert DecodeJobs(supervisor).device == expected


def test_precision_is_put_back_and_cudnn_stays_on():
    before = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled)
    with decode_job.full_precision():
        # torch's context manager turns cuDNN off unless told not to.
        assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled) == (False, True)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.parametrize("share", [0.4, 0.2])
def test_on_cuda_the_budget_is_kept_and_the_picture_is_the_same(share, supervisor):
    torch.cuda.reset_peak_memory_stats()  # earlier tests in this process held more
    jobs = DecodeJobs(supervisor, device="cuda:0")
    got = finish(jobs, DecodeRequest(640, 384, 25, budget_share=share, compare=True))
    assert (got["state"], got["error"], got["frames"]) == ("done", None, 25)
    assert 0 < got["measured_peak_bytes"] <= got["budget_bytes"] < got["whole_predicted_bytes"]
    assert got["measured_exact"] is True
    assert got["relative_error"] <= 1e-5


@pytest.mark.parametrize(
    ("given", "named"),
    [(None, None), ("cpu", "cpu"), ("cpu:0", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")],
)
def test_a_device_is_named_as_telemetry_names_it(given, named):
    assert named_device(given) == named


def test_a_device_torch_does_not_know_is_refused():
    with pytest.raises(RuntimeError):
        named_device("nonsense")
