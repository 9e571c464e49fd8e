"""A prompt in API format as a graph: who feeds whom, in which order nodes run, which are alike.

Pure; what node classes declare is asked of ``NodeTypes``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class NodeTypes(Protocol):
    """What node classes declare; a class nobody knows declares nothing."""

    def output_types(self, class_type: str) -> tuple[str, ...]:
        """Types of its outputs; ``*`` for any."""
        ...

    def output_names(self, class_type: str) -> tuple[str, ...]:
        """Names of its outputs, fewer where it does not name them."""
        ...

    def runs_early(self, class_type: str) -> bool:
        """Whether the host runs it as soon as it can: output nodes and asynchronous ones."""
        ...

    def is_output(self, class_type: str) -> bool:
        """Whether it is an output node."""
        ...

    def keyed_by_id(self, class_type: str) -> bool:
        """Whether two nodes of it are never alike, whatever their inputs."""
        ...


@dataclass(frozen=True, slots=True)
class Link:
    """An input that is fed by output ``slot`` of node ``source``."""

    name: str
    source: str
    slot: int


class Graph:
    """One prompt. Broken nodes and links to nowhere are passed over: the host refuses them."""

    def __init__(
        self, nodes: Mapping[str, object], outputs: Sequence[str], types: NodeTypes
    ) -> None:
        self._nodes: dict[str, Mapping[str, object]] = {
            node_id: node
            for node_id, node in nodes.items()
            if isinstance(node, Mapping) and isinstance(node.get("class_type"), str)
        }
        self._outputs = tuple(node_id for node_id in outputs if node_id in self._nodes)
        self._types = types
        self._signatures: dict[str, str] = {}

    def __contains__(self, node_id: object) -> bool:
        return node_id in self._nodes

    @property
    def node_ids(self) -> tuple[str, ...]:
        """All nodes, also those that lead nowhere."""
        return tuple(self._nodes)

    def class_type(self, node_id: str) -> str:
        """The class of a node."""
        return str(self._nodes[node_id]["class_type"])

    def links(self, node_id: str) -> list[Link]:
        """The inputs of a node that other nodes feed, in order."""
        found = ((name, link_of(value)) for name, value in self._inputs(node_id).items())
        return [
            Link(name, *link) for name, link in found if link is not None and link[0] in self._nodes
        ]

    def signature(self, node_id: str) -> str:
        """Equal for nodes whose class, values and sources are equal, in any prompt: the host
        keeps one result for them."""
        if node_id in self._signatures:
            return self._signatures[node_id]
        for each in self._sources_first(node_id):
            self._signatures[each] = self._own_signature(each)
        return self._signatures[node_id]

    def run_order(self, done: Callable[[str], bool]) -> list[str]:
        """Nodes that are still to run, in the host's order; what is done feeds them at once.

        Lazy inputs are counted: whether a node will ask for them is not known before it runs.
        """
        blockers = self._pending(done)
        blocked: dict[str, list[str]] = {node_id: [] for node_id in blockers}
        for node_id, sources in blockers.items():
            for source in sources:
                blocked[source].append(node_id)
        order: list[str] = []
        ready = [node_id for node_id, sources in blockers.items() if not sources]
        place = {node_id: index for index, node_id in enumerate(blockers)}
        while ready:
            picked = self._pick(ready, blocked)
            ready.remove(picked)
            order.append(picked)
            for waiting in blocked[picked]:
                blockers[waiting].discard(picked)
                if not blockers[waiting]:
                    ready.append(waiting)
            ready.sort(key=place.__getitem__)
        return order

    def _pending(self, done: Callable[[str], bool]) -> dict[str, set[str]]:
        """Nodes to run with those of them they wait for, in the order the host finds them."""
        pending: dict[str, set[str]] = {}
        for output in self._outputs:
            waiting = [output]
            while waiting:
                node_id = waiting.pop()
                if node_id in pending or done(node_id):
                    continue
                sources = [link.source for link in self.links(node_id)]
                pending[node_id] = {source for source in sources if not done(source)}
                waiting += sources
        return pending

    def _pick(self, ready: Sequence[str], blocked: Mapping[str, Sequence[str]]) -> str:
        """As the host picks: output nodes, then what leads to one in one step, then in two."""

        def early(node_id: str) -> bool:
            return self._types.runs_early(self.class_type(node_id))

        def is_output(node_id: str) -> bool:
            return self._types.is_output(self.class_type(node_id))

        def next_to_output(node_id: str) -> bool:
            return any(is_output(after) for after in blocked[node_id])

        def two_from_output(node_id: str) -> bool:
            return any(next_to_output(after) for after in blocked[node_id])

        for wanted in (early, next_to_output, two_from_output):
            for node_id in ready:
                if wanted(node_id):
                    return node_id
        return ready[0]

    def _inputs(self, node_id: str) -> Mapping[str, object]:
        inputs = self._nodes[node_id].get("inputs")
        return inputs if isinstance(inputs, Mapping) else {}

    def _sources_first(self, node_id: str) -> list[str]:
        """Nodes without a signature that lead to this one, and it, sources before what they feed.

        Without recursion, for chains may be long; a cycle, which the host refuses, is cut.
        """
        order: list[str] = []
        entered: set[str] = set()
        waiting = [(node_id, False)]
        while waiting:
            each, sources_done = waiting.pop()
            if sources_done:
                order.append(each)
            elif each not in entered and each not in self._signatures:
                entered.add(each)
                waiting.append((each, True))
                waiting += [(link.source, False) for link in self.links(each)]
        return order

    def _own_signature(self, node_id: str) -> str:
        class_type = self.class_type(node_id)
        told: list[object] = [class_type]
        if self._types.keyed_by_id(class_type):
            told.append(node_id)
        for name, value in sorted(self._inputs(node_id).items()):
            link = link_of(value)
            if link is None:
                told.append([name, value])
            else:
                told.append([name, self._signatures.get(link[0], link[0]), link[1]])
        text = json.dumps(told, default=str, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def link_of(value: object) -> tuple[str, int] | None:
    """A link in an API prompt is ``[node id, output index]``."""
    match value:
        case [str() as node_id, int() as slot]:
            return node_id, slot
        case _:
            return None


def to_run(graph: Graph, kept: Iterable[str]) -> list[str]:
    """What of a prompt runs, in order, where results of nodes with these signatures are kept."""
    signatures = set(kept)
    return graph.run_order(lambda node_id: graph.signature(node_id) in signatures)
