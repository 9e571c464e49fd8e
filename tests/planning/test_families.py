import pytest

from vram_supervisor.supervisor.planning.families import BY_FAMILY, FAMILIES, family_of
from vram_supervisor.supervisor.planning.planner import grows_with_time
from vram_supervisor.supervisor.types import DecodeContext
from vram_supervisor.supervisor.units import MiB

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


MEASURED = [
    # Decodes of one H200: latent frames, rows and columns, and bytes added at the peak.
    ("kl", (None, 512, 512), 36_781_948_928),
    ("kl", (None, 157, 111), 2_447_287_808),
    ("flux2", (None, 128, 128), 9_208_594_944),
    ("wan2.1", (21, 90, 160), 7_759_759_872),
    ("wan2.1", (9, 45, 83), 1_947_479_552),
    ("wan2.2", (31, 44, 80), 9_454_800_896),
    ("hunyuan", (17, 90, 160), 29_744_841_216),
    ("hunyuan", (33, 32, 32), 2_190_338_560),
    ("hunyuan1.5", (16, 45, 80), 17_135_008_256),
    ("mochi", (7, 60, 106), 31_524_977_152),
    ("cosmos", (16, 88, 160), 9_255_155_200),
    ("cogvideo", (13, 60, 90), 14_133_305_344),
]


@pytest.mark.parametrize(("family", "latent", "measured_bytes"), MEASURED)
def test_figures_lie_a_little_above_what_was_measured(family, latent, measured_bytes):
    need_bytes = BY_FAMILY[family].need_bytes(1, *latent)
    assert 1.0 <= need_bytes / measured_bytes <= 1.25


@pytest.mark.parametrize(
    ("version", "latent", "measured_bytes"),
    [("0.9.0", (16, 24, 40), 5_083_795_968), ("2", (16, 24, 40), 6_776_983_552)],
)
def test_ltx_by_name_covers_every_version(version, latent, measured_bytes):
    assert BY_FAMILY["ltx"].need_bytes(1, *latent) >= measured_bytes


def test_a_decoder_is_found_by_its_architecture_only():
    kl = BY_FAMILY["kl"]
    assert len(kl.architectures) == 2
    for architecture in kl.architectures:
        assert family_of(architecture).architectures == (architecture,)
        assert family_of(architecture).family == "kl"
    assert family_of("kl") is family_of(None) is None


def test_the_table_of_a_family_covers_each_of_its_decoders():
    ltx = BY_FAMILY["ltx"]
    members = [family_of(architecture) for architecture in ltx.architectures]
    assert len(members) == 5
    for frames in (1, 5, 12, 16, 60):
        for edge in (4, 10, 24, 50):
            needs = [each.need_bytes(1, frames, edge, edge) for each in members]
            assert ltx.need_bytes(1, frames, edge, edge) >= max(needs)


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


@pytest.mark.parametrize("family", sorted(NAMES))
def test_beyond_the_table_the_need_goes_on_growing(family):
    sizes = [(1280, 720, 161), (1920, 1088, 321), (3840, 2176, 961), (5120, 2880, 1601)]
    needs = [need(family, *size) for size in sizes]
    assert needs == sorted(needs)
    assert needs[0] > MiB


@pytest.mark.parametrize(
    ("latent", "dry_run_bytes"),
    [((15, 60, 90), 15_260_000_000), ((13, 60, 90), 14_130_000_000)],
)
def test_between_its_points_the_table_covers_the_dry_run(latent, dry_run_bytes):
    assert BY_FAMILY["cogvideo"].need_bytes(1, *latent) >= dry_run_bytes
