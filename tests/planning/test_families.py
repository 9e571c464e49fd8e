import pytest

from vram_supervisor.supervisor.planning.families import BY_FAMILY, FAMILIES
from vram_supervisor.supervisor.planning.planner import grows_with_time
from vram_supervisor.supervisor.types import DecodeContext
from vram_supervisor.supervisor.units import GiB, MiB

NAMES = {
    "kl", "flux2", "wan2.1", "wan2.2", "hunyuan", "hunyuan1.5", "ltx", "mochi", "cosmos",
    "cogvideo", "h3",
}  # fmt: skip


def need(family, width, height, frames=None):
    cost = BY_FAMILY[family]
    shape = cost.shape_for(DecodeContext(width, height, frames))
    return cost.need_bytes(shape.batch, shape.frames, shape.height, shape.width)


def test_the_families_are_those_the_probe_accepts():
    assert FAMILIES == NAMES


@pytest.mark.parametrize(
    ("family", "size", "measured_gib"),
    [
        ("kl", (4096, 4096, None), 34.4),
        ("wan2.1", (1280, 720, 81), 7.5),
        ("wan2.1", (832, 480, 33), 3091 / 1024),
        ("hunyuan", (1280, 720, 65), 28.5),
        ("ltx", (1280, 768, 121), 8.5),
    ],
)
def test_figures_lie_at_or_a_little_above_what_was_measured(family, size, measured_gib):
    assert 0.99 <= need(family, *size) / (measured_gib * GiB) <= 1.1


@pytest.mark.parametrize(
    ("family", "frames", "dry_run_gib", "ratio"),
    [
        # Dry runs of the host's decoders at 1280x768 in bf16, and the ratio measured for each.
        ("flux2", None, 1.188, 1.697),
        ("wan2.2", 81, 7.469, 1.281),
        ("hunyuan1.5", 81, 14.350, 1.258),
        ("mochi", 121, 171.214, 1.342),
        ("cosmos", 129, 16.443, 1.298),
        ("cogvideo", 81, 32.851, 1.138),
    ],
)
def test_estimates_cover_the_dry_run_times_its_workspace(family, frames, dry_run_gib, ratio):
    assert 1.0 <= need(family, 1280, 768, frames) / (dry_run_gib * ratio * GiB) <= 1.1


@pytest.mark.parametrize("frames", [81, 121, 241])
@pytest.mark.parametrize("family", sorted(NAMES))
def test_only_families_that_grow_with_time_are_cut_through_time(family, frames):
    cost = BY_FAMILY[family]
    shape = cost.shape_for(DecodeContext(1280, 720, frames))
    assert grows_with_time(shape, cost) is (cost.growth == "linear")
    assert (cost.growth == "linear") is (family in {"ltx", "mochi", "cosmos", "cogvideo"})


@pytest.mark.parametrize("family", sorted(NAMES))
def test_larger_never_needs_less(family):
    sizes = [(256, 256, 9), (512, 512, 9), (512, 512, 81), (1280, 720, 81), (1280, 720, 241)]
    needs = [need(family, *size) for size in sizes]
    assert needs == sorted(needs)
    assert needs[0] > MiB


@pytest.mark.parametrize("family", sorted(NAMES))
def test_every_family_says_where_its_figures_come_from(family):
    assert len(BY_FAMILY[family].source) > 20


@pytest.mark.parametrize(
    ("sentence", "family", "context", "latent"),
    [
        ("sizes round up to whole latents", "kl", (1001, 999, None), (None, 125, 126)),
        ("an image VAE has no time however many frames", "kl", (64, 64, 9), (None, 8, 8)),
        ("81 frames of Wan are 21 latents", "wan2.1", (1280, 720, 81), (21, 90, 160)),
        ("82 frames take one latent more", "wan2.1", (1280, 720, 82), (22, 90, 160)),
        ("a video VAE without frames decodes one", "ltx", (1280, 704, None), (1, 22, 40)),
    ],
)
def test_latent_sizes(sentence, family, context, latent):
    shape = BY_FAMILY[family].shape_for(DecodeContext(*context))
    assert (shape.frames, shape.height, shape.width) == latent


@pytest.mark.parametrize("context", [(None, 720), (1280, None), (0, 720)])
def test_an_unknown_size_has_no_shape(context):
    assert BY_FAMILY["kl"].shape_for(DecodeContext(*context)) is None
