"""What two faces do around their work: parked memory is given back, a latent is kept."""

import json
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from support.fake_faces import face  # noqa: E402

from vram_supervisor.supervisor.decode.parking import HostPages  # noqa: E402
from vram_supervisor.supervisor.errors import DecodeFailedError  # noqa: E402
from vram_supervisor.supervisor.units import GiB, to_gib  # noqa: E402

PAGE = 1 << 20


class Memory:
    """The host's, with nothing to free."""

    def main_device(self):
        return torch.device("cpu")

    def loaded_models(self):
        return 0

    def driver_free_bytes(self, device):
        return GiB

    def unload_all(self):
        """Nothing is loaded."""

    def empty_cache(self):
        """Nothing is cached."""


def here(pages=None):
    exacts = None if pages is None else SimpleNamespace(pages=pages)
    return SimpleNamespace(
        memory=Memory(),
        supervisor=SimpleNamespace(devices=[]),
        primary=lambda: None,
        forecaster=SimpleNamespace(exacts=exacts),
    )


# Hard memory purge.


PURGE = {
    "unload_all_models": True,
    "soft_empty_cache": True,
    "ipc_collect": False,
    "trim_working_set": False,
    "gc_passes": 1,
    "console_log": False,
}


def purged(monkeypatch, pages):
    module = face(monkeypatch, "hard_memory_purge")
    monkeypatch.setattr(module, "runtime", lambda: here(pages))
    report, *_ = module.HardMemoryPurge.execute(**PURGE)
    return json.loads(report)["applied"]["parking_pages_freed_gb"]


def test_a_purge_gives_back_what_is_kept_for_the_next_decode(monkeypatch):
    pages = HostPages(PAGE, locks=False)
    pages.give(pages.take_for(8 * PAGE))
    assert purged(monkeypatch, pages) == to_gib(8 * PAGE, 3) > 0
    assert pages.held_bytes == 0


def test_a_purge_leaves_what_is_in_use(monkeypatch):
    pages = HostPages(PAGE, locks=False)
    taken = pages.take_for(2 * PAGE)
    assert purged(monkeypatch, pages) == 0
    assert pages.held_bytes == 2 * PAGE
    pages.give(taken)


def test_a_purge_without_exact_parts_says_nothing_was_parked(monkeypatch):
    assert purged(monkeypatch, None) == 0


# Decode to disk.


class Vae:
    """As ``comfy.sd.VAE`` is where its file held no VAE."""

    device, vae_dtype, patcher, latent_dim = torch.device("cpu"), torch.float32, None, 2

    def __init__(self, *, valid=True, sound=False):
        self.first_stage_model = torch.nn.Conv2d(3, 3, 1) if valid else None
        self.extra_1d_channel = 1 if sound else None

    def throw_exception_if_invalid(self):
        if self.first_stage_model is None:
            raise RuntimeError("ERROR: VAE is invalid: None")

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return None


@pytest.fixture
def to_disk(monkeypatch, tmp_path):
    """Runs the node in a folder; ``to_disk.kept`` is what was kept."""
    module = face(monkeypatch, "vae_decode_to_disk")
    kept = []

    def keep(latent):
        kept.append(latent)
        return tmp_path / "kept.latent"

    monkeypatch.setattr(module, "runtime", here)
    monkeypatch.setattr(module, "save_latent", keep)
    monkeypatch.setattr(module, "_output_folder", lambda: tmp_path)
    monkeypatch.setattr(module, "safe_decode", lambda *args, **how: pytest.fail("decoded"))

    def run(latent, vae, **widgets):
        usual = {"output_dir": "frames", "prefix": "frame", "image_format": "png"}
        usual |= {"jpg_quality": 95, "tile": True, "tiling_mode": "auto"}
        usual |= {"tile_size": 512, "overlap": 64}
        return module.VaeDecodeToDisk.execute({"samples": latent}, vae, **(usual | widgets))

    run.kept, run.folder, run.module = kept, tmp_path / "frames", module
    return run


@pytest.mark.parametrize(
    ("sentence", "shape", "vae", "said"),
    [
        ("a VAE without a network", (1, 4, 8, 8), Vae(valid=False), "VAE is invalid"),
        ("a latent of sound", (1, 4, 8, 8), Vae(sound=True), "no pictures"),
    ],
)
def test_what_fails_before_the_first_frame_keeps_the_latent(to_disk, sentence, shape, vae, said):
    latent = torch.zeros(shape)
    with pytest.raises(DecodeFailedError, match=rf"{said}.*kept\.latent"):
        to_disk(latent, vae)
    assert len(to_disk.kept) == 1
    assert to_disk.kept[0] is latent
    assert not to_disk.folder.exists(), sentence


def test_a_folder_outside_keeps_the_latent_too(to_disk):
    """It may be linked, and known only after an hour of sampling."""
    with pytest.raises(DecodeFailedError, match=r"not inside the output folder.*kept\.latent"):
        to_disk(torch.zeros(1, 4, 8, 8), Vae(), output_dir="../elsewhere")
    assert len(to_disk.kept) == 1


def test_a_job_draws_the_same_in_each_run_of_it(to_disk, monkeypatch):
    from vram_supervisor.nodes.decoding import Decoded
    from vram_supervisor.nodes.host.meter import Measured
    from vram_supervisor.nodes.ladder import Record
    from vram_supervisor.supervisor.decode.sink import pour

    drawn = []

    def decode(latent, vae, wish, *, sink):
        drawn.append(torch.rand(3))
        if len(drawn) == 1:
            raise DecodeFailedError(["failed"], None)
        pour(torch.zeros(len(latent), 8, 8, 3), sink)
        return Decoded(None, Record(), Measured())

    monkeypatch.setattr(to_disk.module, "safe_decode", decode)
    latent = torch.arange(256.0).reshape(1, 4, 8, 8)
    vae = Vae()
    with pytest.raises(DecodeFailedError):
        to_disk(latent, vae)
    torch.rand(7)
    state = torch.get_rng_state()
    to_disk(latent, vae)
    assert torch.equal(drawn[1], drawn[0])
    assert torch.equal(torch.get_rng_state(), state)
    to_disk(latent + 1, vae)
    assert not torch.equal(drawn[2], drawn[0])
