"""What ComfyUI's node classes declare of themselves."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class _Declared:
    types: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    is_output: bool = False
    is_async: bool = False
    keyed_by_id: bool = False


class HostNodeTypes:
    """Asks ComfyUI's own table of classes, of which other packs put in theirs at any time."""

    def __init__(self) -> None:
        self._declared: dict[object, _Declared] = {}
        """By class: newer nodes build a whole schema to answer."""

    def output_types(self, class_type: str) -> tuple[str, ...]:
        """Types of its outputs; a list of choices counts as ``COMBO``."""
        return self._of(class_type).types

    def output_names(self, class_type: str) -> tuple[str, ...]:
        """Names of its outputs, fewer where it does not name them."""
        return self._of(class_type).names

    def runs_early(self, class_type: str) -> bool:
        """Whether the host runs it as soon as it can."""
        declared = self._of(class_type)
        return declared.is_output or declared.is_async

    def is_output(self, class_type: str) -> bool:
        """Whether it is an output node."""
        return self._of(class_type).is_output

    def keyed_by_id(self, class_type: str) -> bool:
        """Whether two nodes of it are never alike."""
        return self._of(class_type).keyed_by_id

    def _of(self, class_type: str) -> _Declared:
        host_nodes: Any = importlib.import_module("nodes")  # ComfyUI's own module
        node = host_nodes.NODE_CLASS_MAPPINGS.get(class_type)
        if node is None:
            return _Declared()
        if node not in self._declared:
            self._declared[node] = declared_by(node)
        return self._declared[node]


def declared_by(node: Any) -> _Declared:
    """Read one class of either generation."""
    function = getattr(node, str(getattr(node, "FUNCTION", "")), None)
    hidden = node.INPUT_TYPES().get("hidden", {})
    return _Declared(
        types=tuple(_type_name(each) for each in _sequence(node, "RETURN_TYPES")),
        names=tuple(str(each) for each in _sequence(node, "RETURN_NAMES")),
        is_output=getattr(node, "OUTPUT_NODE", False) is True,
        is_async=inspect.iscoroutinefunction(function),
        keyed_by_id=bool(getattr(node, "NOT_IDEMPOTENT", False)) or "UNIQUE_ID" in hidden.values(),
    )


def _sequence(node: Any, name: str) -> Sequence[Any]:
    found = getattr(node, name, None)
    return found if isinstance(found, Sequence) else ()


def _type_name(declared: object) -> str:
    """A plain text, whatever text class a pack made for its wildcard."""
    return str.__str__(declared) if isinstance(declared, str) else "COMBO"
