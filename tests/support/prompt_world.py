"""Prompts, node classes and patchers without a ComfyUI."""

from types import SimpleNamespace

TYPES = {
    "Load": ("MODEL",),
    "LoadVae": ("VAE",),
    "LoadAll": ("MODEL", "CLIP", "VAE"),
    "Lora": ("MODEL", "CLIP"),
    "Encode": ("CONDITIONING",),
    "Guide": ("GUIDER",),
    "Sample": ("LATENT",),
    "Decode": ("IMAGE",),
    "Clean": ("MODEL", "CLIP", "VAE", "*", "STRING"),
    "Pipe": ("PIPE",),
    "AllInOne": ("MODEL", "LATENT", "IMAGE"),
    "Noise": ("LATENT",),
    "Save": (),
}
NAMES = {"Clean": ("model", "clip", "vae", "passthrough", "report_json")}


class Types:
    """What the classes above declare."""

    def output_types(self, class_type):
        return TYPES.get(class_type, ())

    def output_names(self, class_type):
        return NAMES.get(class_type, ())

    def runs_early(self, class_type):
        return class_type in {"Save", "Early"}

    def is_output(self, class_type):
        return class_type == "Save"

    def keyed_by_id(self, class_type):
        return class_type == "Clean"


def prompt(text):
    """A prompt from lines like ``k: Sample model=a latent=n.0 steps=20``; a value that names
    another node, with or without its output, is a link."""
    lines = [line.split() for line in text.strip().splitlines()]
    ids = {line[0].rstrip(":") for line in lines}
    return {
        line[0].rstrip(":"): {
            "class_type": line[1],
            "inputs": dict(_input(part, ids) for part in line[2:]),
        }
        for line in lines
    }


def _input(part, ids):
    name, _, value = part.partition("=")
    source, _, slot = value.partition(".")
    return name, [source, int(slot or 0)] if source in ids else value


class Base:
    """Weights that clones share; weak references can be made to it."""


class Patcher:
    """As the host's, as far as it is looked at."""

    def __init__(self, name, size=10, loaded=0, base=None):
        self.name, self.size, self.loaded = name, size, loaded
        self.model = base or type(name, (Base,), {})()
        self.load_device, self.offload_device = "cuda:0", "cpu"

    def loaded_size(self):
        return self.loaded

    def model_size(self):
        return self.size

    def clone(self):
        return Patcher(self.name, self.size, self.loaded, self.model)


class States:
    """The host's progress registry."""

    def __init__(self):
        self.running, self.finished = set(), set()

    def states(self):
        return frozenset(self.running), frozenset(self.finished)


class Queue:
    """The host's queue; ``waiting`` are items as it keeps them."""

    def __init__(self):
        self.running, self.waiting = [], []

    def put(self, number, nodes, outputs=("s",)):
        self.waiting.append((number, f"prompt {number}", nodes, {}, list(outputs)))

    def get_current_queue_volatile(self):
        return list(self.running), list(self.waiting)


def holder(patcher):
    """A VAE or CLIP object."""
    return SimpleNamespace(patcher=patcher)
