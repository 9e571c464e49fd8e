"""What every node's face says of itself, read without ComfyUI.

    python tests/support/face_schemas.py > locales/en/nodeDefs.json

writes the English texts anew after one of them has changed.
"""

import json
import sys
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
FACES = ROOT / "nodes" / "faces"


class _Recorder:
    """Stands for ``comfy_api.latest.io``: keeps what schemas are made of."""

    ComfyNode = object

    @staticmethod
    def Schema(**told):
        return SimpleNamespace(**told)

    @staticmethod
    def Custom(_name):
        return _kind("*")

    @staticmethod
    def NodeOutput(*values):
        return values

    def __getattr__(self, name):
        return _kind(name)


def _kind(name):
    def made(input_id=None, **told):
        return SimpleNamespace(kind=name, id=input_id, **told)

    return SimpleNamespace(Input=made, Output=made)


@lru_cache(maxsize=1)
def schemas():
    """Every schema, by node id."""
    from support.fake_faces import face

    names = sorted(
        path.stem for path in FACES.glob("*.py") if path.stem not in {"__init__", "common"}
    )
    found = {}
    for name in names:
        with pytest.MonkeyPatch.context() as patched:
            module = face(patched, name, _Recorder())
            for each in list(vars(module).values()):
                if isinstance(each, type) and hasattr(each, "define_schema"):
                    schema = each.define_schema()
                    found[schema.node_id] = schema
    return found


WIDGET_KINDS = {"Boolean", "Int", "Float", "String", "Combo"}


def widgets(node_id):
    """The inputs of a node that are widgets, in their order."""
    return [each for each in schemas()[node_id].inputs if each.kind in WIDGET_KINDS]


def node_texts():
    """As ``nodeDefs.json`` has them. Names of inputs stay as they are: reports and help pages
    call them so."""
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                each.id: {"tooltip": getattr(each, "tooltip", None)} for each in schema.inputs
            },
        }
        for node_id, schema in sorted(schemas().items())
    }


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    print(json.dumps(node_texts(), indent=2, ensure_ascii=False))
