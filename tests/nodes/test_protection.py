"""The hook on core's decode nodes, on node classes shaped as the host's old and new ones."""

import functools
from types import SimpleNamespace

import pytest

from vram_supervisor.nodes.host.protection import (
    Protection,
    hookable,
    is_picture,
    tiled_request,
)
from vram_supervisor.nodes.host.vae import VaeFacts
from vram_supervisor.supervisor.planning.types import PlanRequest

IMAGE = VaeFacts(8, None, False, False, True, True, "kl")
VIDEO = VaeFacts(8, 4, False, False, True, False, "wan")
AUDIO = VaeFacts(1, None, False, False, False, False, "audio")


class Latent:
    """A latent of so many dimensions."""

    def __init__(self, ndim=4, *, nested=False):
        self.ndim, self.is_nested = ndim, nested

    def unbind(self):
        return [Latent(5), Latent(4)]


class Vae:
    """Says how it was asked to decode; shaped as ComfyUI's."""

    first_stage_model = object()
    handles_tiling = False

    def __init__(self, latent_dim=2):
        self.latent_dim = latent_dim
        self.calls = []

    def memory_used_decode(self, shape, dtype):
        return 1

    def spacial_compression_decode(self):
        return 8

    def temporal_compression_decode(self):
        return 4 if self.latent_dim == 3 else None

    def decode(self, samples_in, vae_options={}):  # noqa: B006 - as core's
        self.calls.append(("whole", samples_in, vae_options))
        return f"core: whole {samples_in.ndim}-D"

    def decode_tiled(
        self, samples, tile_x=None, tile_y=None, overlap=None, tile_t=None, overlap_t=None
    ):
        self.calls.append(("tiled", samples, (tile_x, tile_y, overlap, tile_t, overlap_t)))
        return f"core: tiled {samples.ndim}-D"


def old_nodes():
    """Two node classes as v0.33 has them, new for each test."""

    class VAEDecode:
        FUNCTION = "decode"

        def decode(self, vae, samples):
            latent = samples["samples"]
            if latent.is_nested:
                latent = latent.unbind()[0]
            return (vae.decode(latent),)

    class VAEDecodeTiled:
        FUNCTION = "decode"

        def decode(self, vae, samples, tile_size, overlap=64, temporal_size=64, temporal_overlap=8):
            frames = vae.temporal_compression_decode()
            sizes = {
                "tile_x": tile_size // 8,
                "tile_y": tile_size // 8,
                "overlap": overlap // 8,
                "tile_t": None if frames is None else temporal_size // frames,
                "overlap_t": None if frames is None else temporal_overlap // frames,
            }
            return (vae.decode_tiled(samples["samples"], **sizes),)

    return {"VAEDecode": VAEDecode, "VAEDecodeTiled": VAEDecodeTiled}


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


class Host:
    """A node table, a switch on it, and a safe decode that tells what it was asked for."""

    def __init__(self, nodes=None):
        self.nodes = nodes or old_nodes()
        self.running = None
        self.asked = []
        self.protection = Protection(lambda: self.nodes, self.executing, self.decode)

    def executing(self):
        if isinstance(self.running, Exception):
            raise self.running
        return self.running

    def decode(self, latent, vae, request, core):
        self.asked.append((latent, vae, request, core))
        return "safe"

    def run(self, node_id, **inputs):
        """As the executor does, old classes and new."""
        node = self.nodes[node_id]
        self.running = node
        try:
            if hasattr(node, "GET_SCHEMA"):
                clone = type(f"{node.__name__}Clone", (node, *node.__bases__), dict(vars(node)))
                return clone.EXECUTE_NORMALIZED(**inputs)[0]
            return getattr(node(), node.FUNCTION)(**inputs)[0]
        finally:
            self.running = None


def held(nodes):
    """What each class holds under the name its function has."""
    return {key: vars(node).get("decode", vars(node).get("execute")) for key, node in nodes.items()}


def picture():
    return {"samples": Latent()}


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


def counting(function, counts):
    """Another pack's wrapper: does its own work around whatever it found."""

    @functools.wraps(function)
    def around(*args, **inputs):
        counts.append("before")
        (images,) = function(*args, **inputs)
        return (f"{images}, framed",)

    return around


def test_a_wrapper_from_before_us_still_does_its_work():
    host, counts = Host(), []
    theirs = counting(host.nodes["VAEDecode"].decode, counts)
    host.nodes["VAEDecode"].decode = theirs
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"
    host.protection.switch_off()
    assert vars(host.nodes["VAEDecode"])["decode"] is theirs
    assert counts == ["before"]


def test_a_wrapper_from_after_us_stays_and_ours_only_passes_on(caplog):
    host, counts = Host(), []
    tiled = vars(host.nodes["VAEDecodeTiled"])["decode"]
    host.protection.switch_on()
    theirs = counting(host.nodes["VAEDecode"].decode, counts)
    host.nodes["VAEDecode"].decode = theirs
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"

    host.protection.switch_off()
    assert vars(host.nodes["VAEDecode"])["decode"] is theirs
    assert vars(host.nodes["VAEDecodeTiled"])["decode"] is tiled
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "core: whole 4-D, framed"
    host.protection.switch_off()
    assert caplog.text.count("Another pack has replaced") == 1


def test_buried_once_it_is_placed_anew_and_decodes_once():
    host, counts = Host(), []
    host.protection.switch_on()
    host.nodes["VAEDecode"].decode = counting(host.nodes["VAEDecode"].decode, counts)
    host.protection.switch_off()
    host.protection.switch_on()
    assert host.run("VAEDecode", vae=Vae(), samples=picture()) == "safe, framed"
    assert len(host.asked) == 1


def test_another_packs_class_under_cores_id_is_left_alone(caplog):
    nodes = old_nodes()
    nodes["VAEDecode"].RELATIVE_PYTHON_MODULE = "custom_nodes.other"
    host = Host(nodes)
    before = vars(nodes["VAEDecode"])["decode"]
    assert host.protection.switch_on() == ("VAEDecodeTiled",)
    assert vars(nodes["VAEDecode"])["decode"] is before
    assert "VAEDecode is not core's own node" in caplog.text


def test_a_host_without_these_nodes_is_no_error(caplog):
    host = Host({"Other": object})
    assert host.protection.switch_on() == ()
    host.protection.switch_off()
    assert caplog.text.count("is not core's own node") == 2


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
