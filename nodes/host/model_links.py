"""Which models a node of a prompt uses: its links, followed back to where models came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .prompt_graph import Graph, Link, NodeTypes

Outputs: TypeAlias = "Mapping[str, tuple[tuple[object, ...], ...] | None]"
"""Patchers in each socket of results that exist, by signature; None where that was not seen."""

PRODUCTS: Final = frozenset(
    {"LATENT", "IMAGE", "MASK", "CONDITIONING", "AUDIO", "VIDEO", "CLIP_VISION_OUTPUT"}
)
"""What models are run for. A node that gives one of these has used its models."""
PLAIN: Final = PRODUCTS | {
    "INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "SIGMAS", "SAMPLER", "NOISE", "BBOX", "SEGS",
}  # fmt: skip
"""Types without a model inside; any other, those of other packs included, may hold one."""
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Reached:
    """What a node uses.

    Attributes:
        patchers: models that exist.
        kinds: types of sockets that hold models which nobody saw.
        unmade: it also uses a model that a loader has still to load, of unknown size.
    """

    patchers: tuple[object, ...] = ()
    kinds: frozenset[str] = frozenset()
    unmade: bool = False


def models_used(graph: Graph, node_id: str, types: NodeTypes, outputs: Outputs) -> Reached:
    """What running a node needs on the device; nothing where it only passes models on."""
    if _passes_on(graph.class_type(node_id), types):
        return Reached()
    walk = _Walk(graph, types, outputs)
    for link in graph.links(node_id):
        walk.follow(link)
    return Reached(tuple(walk.patchers.values()), frozenset(walk.kinds), walk.unmade)


def _passes_on(class_type: str, types: NodeTypes) -> bool:
    """Whether it hands models on, patched or not, and makes nothing with them."""
    given = types.output_types(class_type)
    makes = types.is_output(class_type) or not PRODUCTS.isdisjoint(given)
    return not makes and any(_may_hold(each) for each in given)


def _may_hold(socket_type: str) -> bool:
    return socket_type not in PLAIN


class _Walk:
    """One search, each socket looked at once."""

    def __init__(self, graph: Graph, types: NodeTypes, outputs: Outputs) -> None:
        self._graph, self._types, self._outputs = graph, types, outputs
        self._seen: set[tuple[str, int]] = set()
        self.patchers: dict[int, object] = {}
        self.kinds: set[str] = set()
        self.unmade = False

    def follow(self, link: Link) -> None:
        """From a link to the models on it, past nodes that pass them on."""
        waiting = [link]
        while waiting:
            each = waiting.pop()
            if (each.source, each.slot) in self._seen:
                continue
            self._seen.add((each.source, each.slot))
            sockets = self._outputs.get(self._graph.signature(each.source))
            if sockets is not None:
                found = sockets[each.slot] if each.slot < len(sockets) else ()
                self.patchers.update((id(patcher), patcher) for patcher in found)
                continue
            waiting += self._before(each)

    def _before(self, link: Link) -> list[Link]:
        """What feeds a socket that was not seen. That of a loader is told by its kind, if the
        loader ran unseen; else its model is still to be made."""
        socket_type = self._type_of(link)
        if not _may_hold(socket_type):
            return []
        feeding = self._feeding(link, socket_type)
        if not feeding and self._graph.signature(link.source) in self._outputs:
            self.kinds.add(socket_type)
        elif not feeding:
            self.unmade = True
        return feeding

    def _feeding(self, link: Link, socket_type: str) -> list[Link]:
        """The inputs that go into a socket: of its name, else of its type, else all that may."""
        inputs = self._graph.links(link.source)
        names = self._types.output_names(self._graph.class_type(link.source))
        name = names[link.slot].lower() if link.slot < len(names) else ""
        of_name = [each for each in inputs if each.name.lower() == name]
        if of_name:
            return of_name
        of_type = [each for each in inputs if self._type_of(each) == socket_type != ANY]
        return of_type or [each for each in inputs if _may_hold(self._type_of(each))]

    def _type_of(self, link: Link) -> str:
        given = self._types.output_types(self._graph.class_type(link.source))
        return given[link.slot] if link.slot < len(given) else ANY
