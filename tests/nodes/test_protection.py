"""Core's decode nodes made safe: switched on, switched off, and what is left to core."""

from types import SimpleNamespace

import pytest
from support.decode_nodes import Host, Latent, Vae, old_nodes, picture

from vram_supervisor.nodes.host.protection import (
    hookable,
    is_picture,
    tiled_request,
)
from vram_supervisor.nodes.host.vae import VaeFacts
from vram_supervisor.supervisor.planning.types import PlanRequest

IMAGE = VaeFacts(8, None, False, False, True, True, "kl")
VIDEO = VaeFacts(8, 4, False, False, True, False, "wan")
AUDIO = VaeFacts(1, None, False, False, False, False, "audio")


class NewNode:
    """As ComfyUI's newer base class: node classes are called, not objects, through a clone."""

    FUNCTION = "EXECUTE_NORMALIZED"

    @classmethod
    def GET_SCHEMA(cls):
        return None

    @classmethod
    def EXECUTE_NORMALIZED(cls, *args, **inputs):
        return cls.execute(*args, **inputs)


def new_nodes():
    class VAEDecode(NewNode):
        @classmethod
        def execute(cls, vae, samples):
            return (vae.decode(samples["samples"]),)

    class VAEDecodeTiled(NewNode):
        @classmethod
        def execute(cls, vae, samples, tile_size):
            sizes = {"tile_x": tile_size // 8, "tile_y": tile_size // 8, "overlap": 8}
            return (vae.decode_tiled(samples["samples"], **sizes),)

    return {"VAEDecode": VAEDecode, "VAEDecodeTiled": VAEDecodeTiled}


def held(nodes):
    """What each class holds under the name its function has."""
    return {key: vars(node).get("decode", vars(node).get("execute")) for key, node in nodes.items()}


BOTH = pytest.mark.parametrize("nodes", [old_nodes, new_nodes], ids=["old", "new"])


@BOTH
def test_on_both_nodes_decode_safely_and_off_they_are_what_they_were(nodes):
    host = Host(nodes())
    before, sizes = held(host.nodes), {"tile_size": 512}
    vae = Vae()

    assert host.protection.switch_on() == ("VAEDecode", "VAEDecodeTiled")
    assert host.run("VAEDecode", vae=vae, samples=picture()) == "safe"
    assert host.run("VAEDecodeTiled", vae=vae, samples=picture(), **sizes) == "safe"
    assert [request for _, _, request, _ in host.asked] == [
        PlanRequest(),
        PlanRequest(manual=True, tile_size=512, overlap=64),
    ]
    assert all(asked is vae for _, asked, _, _ in host.asked), "the real object decodes"
    assert vae.calls == []

    host.protection.switch_off()
    assert all(held(host.nodes)[node] is before[node] for node in before)
    assert host.run("VAEDecode", vae=vae, samples=picture()) == "core: whole 4-D"
    assert host.run("VAEDecodeTiled", vae=vae, samples=picture(), **sizes) == "core: tiled 4-D"


@BOTH
def test_a_switch_that_was_never_touched_changes_nothing(nodes):
    table = nodes()
    before = held(table)
    host = Host(table)
    assert all(held(table)[node] is before[node] for node in before)
    host.protection.switch_off()
    assert all(held(table)[node] is before[node] for node in before)


def test_switched_on_twice_one_switch_off_is_enough():
    host = Host()
    before = held(host.nodes)
    first = host.protection.switch_on()
    wrapped = held(host.nodes)
    assert host.protection.switch_on() == first
    assert held(host.nodes) == wrapped
    host.protection.switch_off()
    host.protection.switch_off()
    assert all(held(host.nodes)[node] is before[node] for node in before)


def test_it_can_be_switched_on_again():
    host = Host()
    for _ in range(2):
        host.protection.switch_on()
        assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe"
        host.protection.switch_off()
    assert len(host.asked) == 2


def test_the_wrapper_keeps_the_name_and_the_signature():
    host = Host()
    host.protection.switch_on()
    wrapped = host.nodes["VAEDecode"].decode
    assert wrapped.__name__ == "decode"
    assert "VAEDecode" in wrapped.__qualname__


def test_the_vae_is_left_as_it_was_and_its_stand_in_passes_for_one():
    host = Host()
    seen = []
    inner = host.nodes["VAEDecode"].decode

    def looking(self, vae, samples):
        seen.append(vae)
        return inner(self, vae, samples)

    host.nodes["VAEDecode"].decode = looking
    host.protection.switch_on()
    vae = Vae()
    host.run("VAEDecode", vae=vae, samples=picture())
    assert isinstance(seen[0], Vae)
    assert seen[0].calls is vae.calls
    assert vars(vae).keys() == {"latent_dim", "calls"}


@pytest.mark.parametrize(
    ("sentence", "running"),
    [
        ("from a script, outside of any node", lambda host: None),
        ("by a node of another pack", lambda host: SimpleNamespace),
        ("by a node that inherits from core's",
         lambda host: type("Mine", (host.nodes["VAEDecode"],), {})),
        ("on a host that does not tell which node runs", lambda host: RuntimeError("no registry")),
    ],
)  # fmt: skip
def test_the_function_is_cores_own_when_called(sentence, running):
    host = Host()
    host.protection.switch_on()
    host.running = running(host)
    vae = Vae()
    assert host.nodes["VAEDecode"]().decode(vae, picture()) == ("core: whole 4-D",), sentence
    assert host.asked == []


@pytest.mark.parametrize(
    ("sentence", "vae", "latent", "told"),
    [
        ("an audio latent", Vae(latent_dim=1), Latent(3), "core: whole 3-D"),
        ("a 4-D latent of an audio VAE", Vae(latent_dim=1), Latent(4), "core: whole 4-D"),
        ("a mask", Vae(), Latent(3), "core: whole 3-D"),
        ("a shape nobody knows", Vae(), Latent(6), "core: whole 6-D"),
    ],
)
def test_what_the_safe_decode_does_not_know_goes_to_core(sentence, vae, latent, told):
    host = Host()
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=vae, samples={"samples": latent}) == told, sentence
    assert [(how, samples) for how, samples, _ in vae.calls] == [("whole", latent)]
    assert host.asked == []


def test_of_a_nested_latent_the_node_itself_picks_what_is_decoded():
    host = Host()
    host.protection.switch_on()
    nested = {"samples": Latent(nested=True)}
    assert host.run("VAEDecode", vae=Vae(latent_dim=3), samples=nested) == "safe"
    assert host.asked[0][0].ndim == 5


def test_options_of_a_decoder_are_cores_business():
    host = Host()
    vae = Vae()

    def with_options(self, vae, samples):
        return (vae.decode(samples["samples"], vae_options={"steps": 3}),)

    host.nodes["VAEDecode"].decode = with_options
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=vae, samples=picture()) == "core: whole 4-D"
    assert vae.calls[0][2] == {"steps": 3}


@pytest.mark.parametrize("vae", [None, "no VAE", SimpleNamespace(decode=lambda latent: "other")])
def test_what_is_no_vae_is_handed_over_as_it_is(vae):
    host = Host()
    seen = []
    host.nodes["VAEDecode"].decode = lambda self, vae, samples: seen.append(vae) or ("",)
    host.protection.switch_on()
    host.run("VAEDecode", vae=vae, samples=picture())
    assert seen == [vae]


def test_a_vae_that_cannot_be_read_is_handed_over_as_it_is(caplog):
    class Odd(Vae):
        def spacial_compression_decode(self):
            raise RuntimeError("unknown")

    host = Host()
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=Odd(), samples=picture()) == "core: whole 4-D"
    assert "cannot be stood in for" in caplog.text


async def slow(self, vae, samples):
    return ("",)


@pytest.mark.parametrize(
    ("sentence", "attributes", "name"),
    [
        ("an old class", {"FUNCTION": "run", "run": lambda self: None}, "run"),
        ("a new class", {"GET_SCHEMA": 1, "execute": classmethod(lambda cls: None)}, "execute"),
        ("core's extra nodes", {"RELATIVE_PYTHON_MODULE": "comfy_extras.nodes_x",
                                "FUNCTION": "run", "run": lambda self: None}, "run"),
        ("a new class that nobody placed", {"RELATIVE_PYTHON_MODULE": None, "GET_SCHEMA": 1,
                                            "execute": classmethod(lambda cls: None)}, "execute"),
        ("another pack's", {"RELATIVE_PYTHON_MODULE": "custom_nodes.x", "FUNCTION": "run",
                            "run": lambda self: None}, None),
        ("a function of a base class", {"FUNCTION": "__repr__"}, None),
        ("a function that is none", {"FUNCTION": "run", "run": 3}, None),
        ("one that has to be awaited", {"FUNCTION": "run", "run": slow}, None),
        ("no function named", {}, None),
    ],
)  # fmt: skip
def test_which_attribute_runs_a_node(sentence, attributes, name):
    assert hookable(type("Node", (), attributes)) == name, sentence


SIZES = {"tile_x": 64, "tile_y": 64, "overlap": 8, "tile_t": 16, "overlap_t": 2}


@pytest.mark.parametrize(
    ("sentence", "facts", "sizes", "asked"),
    [
        ("an image's sizes are pixels", IMAGE, SIZES | {"tile_t": None, "overlap_t": None},
         PlanRequest(manual=True, tile_size=512, overlap=64)),
        ("a video's are frames too", VIDEO, SIZES,
         PlanRequest(manual=True, tile_size=512, overlap=64, temporal_size=64,
                     temporal_overlap=8)),
        ("no overlap is a size", IMAGE, SIZES | {"overlap": 0},
         PlanRequest(manual=True, tile_size=512, overlap=0)),
        ("oblong tiles are not the node's", IMAGE, SIZES | {"tile_y": 32}, None),
        ("nor is a video without a chunk", VIDEO, SIZES | {"tile_t": None}, None),
        ("nor no sizes at all", IMAGE, {}, None),
        ("nor one nobody knows", IMAGE, SIZES | {"blend": 1}, None),
    ],
)  # fmt: skip
def test_the_tiled_nodes_sizes(sentence, facts, sizes, asked):
    assert tiled_request(sizes, facts) == asked, sentence


@pytest.mark.parametrize(
    ("latent", "facts", "picture"),
    [
        (Latent(4), IMAGE, True),
        (Latent(5), VIDEO, True),
        (Latent(5, nested=True), VIDEO, False),
        (Latent(3), IMAGE, False),
        (Latent(4), AUDIO, False),
        ({"no": "tensor"}, IMAGE, False),
    ],
)
def test_what_counts_as_a_picture(latent, facts, picture):
    assert is_picture(latent, facts) is picture
