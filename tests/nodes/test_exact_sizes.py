"""How many frames, channels and pixels a decode has is what the network makes of its latent, not
what anybody guesses."""

from dataclasses import replace
from fractions import Fraction

import pytest

torch = pytest.importorskip("torch")

from support.exact_decode import clips, plan_for, whole_plan  # noqa: E402
from support.exact_world import Network, World, decoded, facts  # noqa: E402
from support.toy_cogvideo import ToyCogVideo  # noqa: E402
from support.toy_decoders import Clips, Kl, chain, chunks_of, noise, relative, simple  # noqa: E402
from support.toy_hunyuan import ToyNew  # noqa: E402

from vram_supervisor.supervisor.decode.families import cogvideo, hunyuan_image  # noqa: E402
from vram_supervisor.supervisor.decode.sink import TensorSink  # noqa: E402
from vram_supervisor.supervisor.decode.survey import survey  # noqa: E402
from vram_supervisor.supervisor.errors import DecodedOtherwiseError  # noqa: E402
from vram_supervisor.supervisor.planning.workspace import NO_WORKSPACE  # noqa: E402

EXACT = 1e-5
ODD = {
    "CogVideoX": (ToyCogVideo, cogvideo.decoder, lambda t: 4 * t - 3 * (t % 2)),
    "HunyuanImage refiner": (
        lambda: ToyNew("clips"),
        hunyuan_image.decoder,
        lambda t: 1 if t == 1 else 4 * t,
    ),
}
"""Families of which ComfyUI tells another number of frames: 4 * t - 3 of each."""


def told_by_host(frames):
    return 4 * frames - 3


def odd_world(monkeypatch, name, frames):
    build, program, _ = ODD[name]
    return World(
        monkeypatch,
        build(),
        noise(2, 4, frames, 3, 4),
        facts=facts(spatial_scale=8, temporal_scale=4),
        frames=told_by_host,
        program=program,
    )


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ODD)
def test_a_family_knows_how_many_frames_its_network_makes(name, latent_frames):
    build, program, wanted = ODD[name]
    model = build()
    with torch.inference_mode():
        made = model.decode(noise(1, 4, latent_frames, 2, 2)).shape[2]
    assert program(model).frames(latent_frames) == made == wanted(latent_frames)


@pytest.mark.parametrize("latent_frames", [1, 2, 3])
@pytest.mark.parametrize("name", ODD)
def test_parts_have_the_frames_of_the_whole_whatever_the_host_tells(
    monkeypatch, name, latent_frames
):
    world = odd_world(monkeypatch, name, latent_frames)
    way = world.way()
    plan = whole_plan(way)
    assert "exact" in plan.reason
    made = decoded(way, plan)
    wanted = world.wanted()
    assert made.shape == wanted.shape
    assert relative(made, wanted) <= EXACT


@pytest.mark.parametrize("name", ODD)
def test_a_whole_decode_has_the_frames_that_were_made(monkeypatch, name):
    world = odd_world(monkeypatch, name, 2)
    sink, begun = TensorSink(), []
    world.way().decode_whole(sink, begun.append)
    assert begun == [(1, 4, 2, 3, 4)] * 2
    assert torch.equal(sink.pixels, world.wanted())


# Channels.


class FourChannels(Kl):
    """As VAEs that decode transparency."""

    channels = 4

    def __init__(self):
        super().__init__()
        last = self.decoder.conv_out
        self.decoder.conv_out = torch.nn.Conv2d(last.in_channels, self.channels, 3, padding=1)
        self.requires_grad_(requires_grad=False)


class TwelveChannels(FourChannels):
    """As Wan's head for several pictures at once."""

    channels = 12


@pytest.mark.parametrize("model", [FourChannels, TwelveChannels])
@pytest.mark.parametrize("budget", [1, 1000])
def test_pictures_have_the_channels_that_were_made(monkeypatch, model, budget):
    world = World(monkeypatch, model())
    assert world.vae.output_channels == 3
    way = world.way()
    plan, _ = plan_for(way, world, budget)
    made = decoded(way, plan)
    assert made.shape[-1] == model.channels
    assert relative(made, world.wanted()) < 1e-6


class WideClips(Network):
    """Clips of twelve channels."""

    def __init__(self):
        super().__init__(normed=False)
        self.out = torch.nn.Conv3d(8, 12, 1).requires_grad_(requires_grad=False)


def test_clips_have_the_channels_that_were_made_in_parts_and_whole(monkeypatch):
    world = clips(monkeypatch, WideClips())
    way, whole = world.way(), TensorSink()
    way.decode_whole(whole, lambda shape: None)
    assert torch.equal(whole.pixels, world.wanted())
    assert relative(decoded(way, whole_plan(way)), world.wanted()) < 1e-6


# A decoder that nobody knows.


def test_a_black_box_has_the_frames_that_its_dry_run_made(monkeypatch):
    world = clips(monkeypatch, program=None, frames=lambda frames: 2 * frames + 3)
    world.program = None
    way = world.way()
    plan = whole_plan(way)
    assert "black box" in plan.reason
    made = decoded(way, plan)
    assert made.shape == (10, 24, 18, 3)
    assert relative(made, world.wanted()) < 1e-6


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_dry_run_of_all_frames_says_how_many_come_of_them(frames):
    found = survey(Clips(), Clips.program, (1, 4, frames, 16, 16), torch.float32, NO_WORKSPACE)
    assert (found.frames, found.channels) == (2 * frames, 3)


def test_a_dry_run_of_a_few_of_the_frames_does_not_say_how_many_come_of_all():
    def build(net):
        return net.program(chunks_of(1, 2))

    found = survey(Clips(), build, (1, 4, 41, 16, 16), torch.float32, NO_WORKSPACE)
    assert (found.frames, found.channels) == (None, 3)


def test_a_picture_is_one_frame():
    found = survey(Kl(), Kl.program, (1, 4, 16, 16), torch.float32, NO_WORKSPACE)
    assert (found.frames, found.channels) == (1, 3)


# What is made otherwise is an error, and no pixels that nobody wrote come out.


@pytest.mark.parametrize(
    ("sentence", "more", "said"),
    [
        ("fewer than were told", 3, "82 frames where 85"),
        ("one fewer than was told", 1, "82 frames where 83"),
        ("one more than was told", -1, "at least 82 frames where 81"),
    ],
)
@pytest.mark.parametrize("who", ["the host", "the family"])
@pytest.mark.parametrize("budget", [1, 1000])
def test_frames_that_come_otherwise_are_an_error(monkeypatch, sentence, more, said, who, budget):
    def told(frames):
        return 2 * frames + more

    def streamed(net):
        program = net.streamed(chunks_of(1, 2))
        return replace(program, frames=told) if who == "the family" else program

    # So many frames that the dry run is of a few of them only, and does not know.
    latent = noise(1, 4, 41, 6, 5)
    host = told if who == "the host" else lambda frames: 2 * frames
    world = clips(monkeypatch, latent=latent, program=streamed, frames=host)
    way = world.way()
    plan, _ = plan_for(way, world, budget)
    with pytest.raises(DecodedOtherwiseError, match=said):
        decoded(way, plan)


def test_what_the_dry_run_made_counts_more_than_what_the_host_tells(monkeypatch):
    world = clips(monkeypatch, frames=lambda frames: 2 * frames + 3)
    way = world.way()
    made = decoded(way, whole_plan(way))
    assert made.shape[0] == 10
    assert relative(made, world.wanted()) < 1e-6


def test_the_sizes_of_a_whole_decode_are_no_guess(monkeypatch):
    world = clips(monkeypatch, frames=lambda frames: 2 * frames + 3)
    sink = TensorSink()
    world.way().decode_whole(sink, lambda shape: None)
    assert torch.equal(sink.pixels, world.wanted())


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_a_program_that_makes_other_sizes_than_it_says_cannot_be_surveyed(scale):
    def build(net):
        return chain(simple("decoder", net.decode, scale=Fraction(scale)))

    with pytest.raises(ValueError, match="pixels"):
        survey(Kl(), build, (1, 4, 16, 16), torch.float32, NO_WORKSPACE)


@pytest.mark.parametrize("scale", [1, 4])
def test_a_black_box_whose_scale_is_told_wrong_is_left_to_the_host(monkeypatch, scale):
    world = World(monkeypatch, facts=facts(spatial_scale=scale))
    world.program = None
    way = world.way()
    assert whole_plan(way) is None
    assert any("cannot be taken apart" in note for note in way.notes)
