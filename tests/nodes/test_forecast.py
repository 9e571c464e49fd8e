"""Forecasts of a small torch decoder: dry runs, and what stands in for them."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")


from support.forecast_world import (  # noqa: E402
    SHAPE,
    TILE,
    WHOLE,
    Decoder,
    Interrupted,
    MiB,
    Untraceable,
    Vae,
    base_of,
    table,
)

from vram_supervisor.nodes.host import forecast as module  # noqa: E402
from vram_supervisor.nodes.host.bases import CHUNK_EDGE, CHUNK_FRAMES  # noqa: E402
from vram_supervisor.nodes.host.forecast import (  # noqa: E402
    FORMULA_RATIO,
    Outcome,
)
from vram_supervisor.nodes.suggestion import tiling_suggestion  # noqa: E402
from vram_supervisor.supervisor.planning.allocator import CAPACITY_RATIO  # noqa: E402


def test_the_whole_latent_is_dry_run_and_held_against_the_prior(worlds):
    vae = Vae()
    found = worlds().forecast(vae).predict(WHOLE)
    assert found.base_bytes == base_of(vae.first_stage_model, SHAPE)
    assert found.peak_bytes > found.base_bytes
    assert (found.source, found.dry_run) == ("prior", "run")


def test_tiles_between_two_dry_runs_cost_none_and_asked_closely_one(worlds):
    world, vae = worlds(), Vae()
    forecast = world.forecast(vae)
    forecast.need_bytes(*WHOLE)
    forecast.need_bytes(*TILE)
    assert world.runs.shapes == [SHAPE, (1, 4, 16, 16)]
    forecast.need_bytes(1, None, 48, 48)
    assert len(world.runs.shapes) == 2
    exact = forecast.predict(TILE, exact=True)
    assert exact.base_bytes == base_of(vae.first_stage_model, (1, 4, 32, 32))


def test_a_second_forecast_remembers_and_another_process_reads_from_disk(worlds, tmp_path):
    first = worlds(tmp_path / "store.sqlite")
    first.forecast(Vae()).need_bytes(*WHOLE)
    assert first.forecast(Vae()).predict(WHOLE).dry_run == "memory"
    assert len(first.runs.shapes) == 1
    first.close()
    second = worlds(tmp_path / "store.sqlite")
    assert second.forecast(Vae()).predict(WHOLE).dry_run == "disk"
    assert second.runs.shapes == []


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("another architecture", {"model": Decoder(8)}),
        ("another dtype", {"vae_dtype": torch.float32}),
    ],
)
def test_dry_runs_are_not_shared_with(worlds, sentence, change):
    world = worlds()
    world.forecast(Vae()).need_bytes(*WHOLE)
    assert world.forecast(Vae(**change)).predict(WHOLE).dry_run == "run", sentence


def test_a_dry_run_that_takes_too_long_is_stood_in_for_by_the_table_and_made_between_jobs(worlds):
    world, vae = worlds(seconds=1.0, family=table()), Vae()
    found = world.forecast(vae).predict(WHOLE)
    assert found.dry_run == "table"
    assert found.base_bytes == 64 * 64 * 1000
    world.between_jobs()
    found = world.forecast(vae).predict(WHOLE)
    assert found.dry_run == "memory"
    assert found.base_bytes == base_of(vae.first_stage_model, SHAPE)


def test_what_the_plan_would_decode_is_dry_run_between_jobs_too(worlds):
    world, vae = worlds(seconds=1.0, family=table()), Vae()
    forecast = world.forecast(vae)
    forecast.need_bytes(*WHOLE)
    assert forecast.predict(TILE, exact=True).dry_run == "table"
    world.between_jobs()
    forecast = world.forecast(vae)
    assert forecast.predict(WHOLE).dry_run == "memory"
    forecast.need_bytes(1, None, 40, 40)
    assert forecast.predict(TILE, exact=True).dry_run == "memory"


def test_the_table_of_16_bit_counts_twice_for_32_bit(worlds):
    world = worlds(seconds=1.0, family=table())
    assert world.forecast(Vae(vae_dtype=torch.float32)).predict(WHOLE).base_bytes == (
        2 * 64 * 64 * 1000
    )


def test_the_table_does_not_stand_in_for_attention_that_keeps_its_scores(worlds, monkeypatch):
    monkeypatch.setattr(module, "attention_name", lambda model: "split")
    world = worlds(seconds=1.0, family=table())
    assert world.forecast(Vae()).predict(WHOLE).dry_run == "formula"


def test_the_dry_runs_of_one_planning_share_their_time(worlds):
    world = worlds(seconds=0.2, family=table())
    forecast = world.forecast(Vae())
    assert forecast.predict(WHOLE).dry_run == "run"
    assert forecast.predict(TILE).dry_run == "table", "0.2 s and 0.2 s are more than 0.3 s"
    assert forecast.predict(WHOLE).dry_run == "run", "what is known stays known"


def test_on_a_cpu_the_dry_run_is_waited_for_where_nothing_stands_in(worlds):
    vae = Vae()
    vae.device = torch.device("cpu")
    forecast = worlds(seconds=100.0).forecast(vae)
    assert forecast.predict(WHOLE).dry_run == "run"
    assert forecast.notes[0].startswith("100.0 s went into dry runs")


def test_on_a_gpu_nothing_is_waited_for_and_a_small_piece_is_measured_instead(worlds):
    world, vae = worlds(seconds=100.0), Vae()
    forecast = world.forecast(vae)
    assert forecast.predict(WHOLE).dry_run == "formula"
    assert forecast.wants_probe()
    assert "made while no job runs" in forecast.notes[0]
    small = (1, None, 8, 8)
    base = forecast.predict(small).base_bytes
    forecast.learn(small, Outcome(50 * base))
    assert not forecast.wants_probe()
    assert forecast.predict(WHOLE).peak_bytes >= 50 * forecast.predict(WHOLE).base_bytes
    world.between_jobs()
    assert world.forecast(vae).predict(WHOLE).dry_run == "memory"


def test_advice_does_not_wait_even_there(worlds):
    world = worlds(seconds=100.0)
    found = world.forecast(Vae(), patient=False).predict(WHOLE)
    assert found.dry_run == "formula"
    assert found.peak_bytes >= FORMULA_RATIO * 10 * MiB


def test_a_decoder_that_cannot_be_dry_run_is_figured_by_the_formula_with_a_note(worlds):
    world, vae = worlds(), Vae(Untraceable())
    forecast = world.forecast(vae)
    found = forecast.predict(WHOLE)
    assert found.dry_run == "formula"
    assert found.peak_bytes >= FORMULA_RATIO * 10 * MiB
    assert forecast.wants_probe()
    assert "cannot be dry-run" in forecast.notes[0]
    again = world.forecast(vae)
    assert again.predict(WHOLE).dry_run == "formula"
    assert len(world.runs.shapes) == 1, "it is not tried again"
    assert len(again.notes) == 1


def test_a_formula_that_fails_says_that_nothing_is_known(worlds):
    def fails(shape):
        raise ZeroDivisionError

    found = worlds().forecast(Vae(Untraceable(), formula=fails)).predict(WHOLE)
    assert found.peak_bytes > 1 << 50
    assert "no usable figure" in found.reason


def test_what_is_no_module_is_figured_by_the_formula_too(worlds):
    found = worlds().forecast(Vae(SimpleNamespace(decode=None))).predict(WHOLE)
    assert found.dry_run == "formula"


def test_on_a_cpu_nothing_is_measured_so_nothing_is_probed(worlds):
    vae = Vae(Untraceable(), device=torch.device("cpu"))
    assert not worlds().forecast(vae).wants_probe()


def test_on_a_cpu_kernels_take_no_workspace(worlds):
    vae = Vae(device=torch.device("cpu"))
    found = worlds().forecast(vae).predict(WHOLE)
    assert found.base_bytes < base_of(vae.first_stage_model, SHAPE)


class Room:
    """A card with so much free and nothing on it."""

    def __init__(self, free):
        self.free = free

    def free_bytes(self, device):
        return self.free

    def kept_free_bytes(self):
        return 0

    def missing_weights_bytes(self, patcher):
        return 0

    def next_use_bytes(self, device, keep):
        return 0

    def evictable_bytes(self, device, keep):
        return 0


def test_advice_for_a_connected_vae_is_planned_from_its_dry_runs(worlds):
    world, vae = worlds(), Vae()
    nominal = (1, 4, 512, 512)
    need = world.forecast(vae, nominal).need_bytes(1, None, 512, 512)
    roomy = int(need * CAPACITY_RATIO["cudaMallocAsync"]) + 1
    fits = tiling_suggestion(vae, Room(roomy), world.forecaster.forecast)
    assert (fits["tile"], fits["tile_size"]) == (False, 4096)
    assert fits["predicted_peak_bytes"] == need
    tight = tiling_suggestion(vae, Room(need // 3), world.forecaster.forecast)
    assert tight["tile"]
    assert tight["predicted_peak_bytes"] <= need // 3
    none = tiling_suggestion(vae, Room(1), world.forecaster.forecast)
    assert (none["tile"], none["tile_size"]) == (True, 64)


def test_the_users_interrupt_ends_the_dry_run_at_once(worlds):
    def interrupt():
        raise Interrupted

    with pytest.raises(Interrupted):
        worlds(check=interrupt).forecast(Vae()).need_bytes(*WHOLE)


class Chunked(Decoder):
    """Cuts its latents by itself into a buffer it is given."""

    comfy_has_chunked_io = True

    def decode(self, latent):
        return super().decode(latent[:, :, 0])


def test_a_decoder_that_cuts_by_itself_is_dry_run_for_a_few_of_its_tiles(worlds):
    world = worlds()
    vae = Vae(Chunked(), latent_dim=3, handles_tiling=True)
    forecast = world.forecast(vae, (1, 4, 100, 200, 300))
    whole = forecast.predict((1, 100, 200, 300))
    assert world.runs.shapes == [
        (1, 4, CHUNK_FRAMES, 16, 16), (1, 4, CHUNK_FRAMES, CHUNK_EDGE, CHUNK_EDGE)
    ]  # fmt: skip
    small, large = (
        base_of(vae.first_stage_model, (1, 4, 1, edge, edge)) for edge in (16, CHUNK_EDGE)
    )
    slope = (large - small) / (CHUNK_EDGE**2 - 256)
    expected = large + slope * (200 * 300 - CHUNK_EDGE**2)
    assert whole.base_bytes == pytest.approx(expected, rel=0.001)
    assert forecast.need_bytes(1, 2, 8, 8) == whole.peak_bytes, "its tiles are its own business"
