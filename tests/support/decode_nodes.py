"""Stand-ins for core's two decode nodes, old and new, and a host that runs them."""

from vram_supervisor.nodes.host.protection import (
    Protection,
)


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


def picture():
    return {"samples": Latent()}
