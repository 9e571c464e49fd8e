"""Faces of nodes without ComfyUI: what they import of it, as far as running them asks for it."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

FACES = "vram_supervisor.nodes.faces"


def face(monkeypatch, name, io=None):
    """The module of one face, imported beside a ComfyUI that has names only, or another ``io``."""
    latest = ModuleType("comfy_api.latest")
    latest.io = io or SimpleNamespace(
        ComfyNode=object, Custom=lambda name: name, NodeOutput=lambda *values: values
    )
    package = ModuleType("comfy_api")
    package.latest = latest
    monkeypatch.setitem(sys.modules, "comfy_api", package)
    monkeypatch.setitem(sys.modules, "comfy_api.latest", latest)
    for known in (f"{FACES}.common", f"{FACES}.{name}"):
        monkeypatch.delitem(sys.modules, known, raising=False)
    made = importlib.import_module(f"{FACES}.{name}")
    # Gone again afterwards: nobody else should meet a face of this ComfyUI.
    for known in ("common", name):
        module = sys.modules.pop(f"{FACES}.{known}")
        monkeypatch.setitem(sys.modules, f"{FACES}.{known}", module)
        delattr(sys.modules[FACES], known)
    return made
