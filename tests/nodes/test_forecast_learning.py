"""Forecasts of a small torch decoder: what measured decodes teach."""

import sqlite3

import pytest

torch = pytest.importorskip("torch")


from support.forecast_world import (  # noqa: E402
    SHAPE,
    TILE,
    WHOLE,
    Decoder,
    MiB,
    Untraceable,
    Vae,
    base_of,
    table,
)

from vram_supervisor.nodes.host.forecast import (  # noqa: E402
    Outcome,
)
from vram_supervisor.supervisor.planning.architecture import architecture_hash  # noqa: E402
from vram_supervisor.supervisor.planning.objective import NOMINAL  # noqa: E402


def test_after_the_probe_the_measured_ratio_counts(worlds):
    forecast = worlds().forecast(Vae(Untraceable(), formula=lambda shape: 100 * MiB))
    cold = forecast.need_bytes(*WHOLE)
    forecast.learn((1, None, 8, 8), Outcome(50 * MiB))
    assert not forecast.wants_probe()
    assert forecast.need_bytes(*WHOLE) < cold / 3


def test_a_decode_that_took_more_raises_the_next_prediction(worlds):
    world, vae = worlds(), Vae()
    forecast = world.forecast(vae)
    before = forecast.predict(WHOLE)
    taken = 3 * before.base_bytes
    forecast.learn(WHOLE, Outcome(taken))
    assert forecast.need_bytes(*WHOLE) > taken
    assert world.forecast(vae).need_bytes(*WHOLE) > taken
    assert world.forecast(vae).predict(WHOLE).source == "measured"
    tile = world.forecast(vae).predict(TILE, exact=True)
    assert tile.peak_bytes > 3 * tile.base_bytes, "the ratio holds at other sizes too"


def test_a_failed_allocation_is_a_lower_bound_for_the_next_decode(worlds):
    world, vae = worlds(), Vae()
    free = 2 * world.forecast(vae).need_bytes(*WHOLE)
    world.forecast(vae).learn(WHOLE, Outcome(free, exact=False, failed=True))
    assert world.forecast(vae).need_bytes(*WHOLE) > free


def test_beside_a_table_a_decode_is_learned_once_its_dry_run_is_made(worlds):
    world, vae = worlds(seconds=1.0, family=table()), Vae()
    forecast = world.forecast(vae)
    forecast.learn(WHOLE, Outcome(64 * MiB))
    assert world.store.measurements(forecast.key) == ()
    world.between_jobs()
    (kept,) = world.store.measurements(forecast.key)
    assert kept.base_bytes == base_of(vae.first_stage_model, SHAPE)
    assert kept.measured_bytes == 64 * MiB


def test_a_failure_beside_a_table_is_kept_at_once(worlds):
    world = worlds(seconds=1.0, family=table())
    forecast = world.forecast(Vae())
    forecast.learn(WHOLE, Outcome(64 * MiB, exact=False, failed=True))
    assert world.store.measurements(forecast.key)[0].failed
    assert world.forecast(Vae()).need_bytes(*WHOLE) > 64 * MiB


def test_measurements_belong_to_card_driver_and_allocator(worlds):
    key = worlds().forecast(Vae()).key
    assert (key.gpu, key.driver, key.allocator) == ("Card", "1.0", "cudaMallocAsync")
    assert key.vae == architecture_hash(Decoder())
    assert key.dtype == "bfloat16"


def test_the_time_is_the_familys_until_decodes_were_timed(worlds):
    world = worlds(family=table())
    forecast = world.forecast(Vae())
    assert forecast.time_model() == NOMINAL
    pixels = 512 * 512
    slow_s = 10 * NOMINAL.decode_s(pixels)
    forecast.learn(WHOLE, Outcome(64 * MiB, seconds=slow_s, pixels=pixels))
    learned = world.forecast(Vae()).time_model()
    assert learned.decode_s(pixels) == pytest.approx(slow_s, rel=0.01)
    assert worlds().forecast(Vae()).time_model() is None, "nobody timed an unknown family"
    told = world.forecaster.times[table().family]
    assert told.decode_s(pixels) == pytest.approx(slow_s, rel=0.01), "the probe is told"


def broken_store(path, how):
    if how == "corrupt":
        path.write_bytes(b"no database" * 1000)
    elif how == "a later version's":
        with sqlite3.connect(path) as file:
            file.execute("PRAGMA user_version = 99")
        file.close()
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("how", ["corrupt", "a later version's", "a folder"])
def test_a_store_that_cannot_be_used_changes_no_figure_and_is_told(worlds, tmp_path, how):
    vae = Vae()
    world = worlds(broken_store(tmp_path / "store.sqlite", how))
    forecast = world.forecast(vae)
    found = forecast.predict(WHOLE)
    assert found.base_bytes == base_of(vae.first_stage_model, SHAPE)
    forecast.learn(WHOLE, Outcome(3 * found.base_bytes))
    assert world.forecast(vae).need_bytes(*WHOLE) > 3 * found.base_bytes
    assert len(forecast.notes) == 1
