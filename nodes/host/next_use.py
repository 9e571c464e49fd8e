"""When ComfyUI needs each loaded model next: from what runs, what waits, and what nodes made.

What a prompt still runs is known from its graph and from which results the host keeps; which
models hang on a link is known from the outputs of nodes that ran, seen when the host offers them
to its cache providers. Nodes are told apart as the host's cache does it, by class, values and
sources, so that a loader in a waiting prompt is known for the one that ran already.

Hosts without cache providers show no outputs. There a model counts as needed when any link of
its type is.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ...supervisor.jobs.eviction import NEVER
from ...supervisor.units import GiB
from .held_models import base_of, kind_of, patchers_in
from .model_links import Reached, models_used
from .prompt_graph import Graph, to_run
from .queue import waiting_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    from .model_links import Outputs
    from .prompt_graph import NodeTypes
    from .queue import PromptQueue, QueuedPrompt

    Keeps: TypeAlias = Literal["last", "all", "none"]

_log = logging.getLogger(__name__)

REMEMBERED_NODES: Final = 4096
"""Nodes whose outputs are remembered, all prompts together; beyond that the oldest go."""
MOST_PROMPTS: Final = 32
"""Waiting prompts that are looked at: some milliseconds each, at every eviction, while the job
waits. What only later ones need counts as not needed."""
MOST_FREE_GIB: Final = 128
"""The host's cache wants no more system memory free than that before it keeps old results."""


class NodeStates(Protocol):
    """Which nodes of the running prompt run now and which are through."""

    def states(self) -> tuple[frozenset[str], frozenset[str]]:
        """Running ones, finished ones."""
        ...


@dataclass(frozen=True, slots=True)
class Uses:
    """What is needed when, counted in node runs from now on; 0 is the node that runs.

    Attributes:
        steps: what each coming node run uses, the next first; those that use nothing are left
            out.
        by_base: the next use by the identity of the weights.
        by_kind: of models that nobody saw come out of a node, by type of socket.
        made: weights that some node is known to have put out.
        idle: nothing runs or waits.
    """

    steps: tuple[tuple[float, Reached], ...] = ()
    by_base: Mapping[int, float] = field(default_factory=dict[int, float])
    by_kind: Mapping[str, float] = field(default_factory=dict[str, float])
    made: frozenset[int] = frozenset()
    idle: bool = False

    def of(self, patcher: object) -> float | None:
        """The next use of a model, ``NEVER``, or None where that is not known."""
        base = id(base_of(patcher))
        if base in self.by_base:
            return self.by_base[base]
        if self.idle or base in self.made:
            return NEVER
        return self.by_kind.get(kind_of(patcher) or "")

    def later(self) -> Uses:
        """The same for a node that is done with its models: they may be the first to leave."""
        steps = [(step, reached) for step, reached in self.steps if step > 0]
        return _summed(steps, self.made, idle=self.idle)

    def coming(self) -> Iterator[Reached]:
        """What each node run after the present one uses, the next first."""
        return (reached for step, reached in self.steps if step > 0)


@dataclass
class _Running:
    """The prompt that runs. Nodes are told by id, results by signature.

    Attributes:
        kept: what the host's cache held when it began.
        missed: nodes the host looked for in its cache in vain.
        stored: nodes whose results it took into its cache.
    """

    graph: Graph
    kept: frozenset[str]
    missed: set[str] = field(default_factory=set[str])
    stored: set[str] = field(default_factory=set[str])


class NextUses:
    """Follows prompts and answers ``look``. Any thread may call."""

    def __init__(
        self, types: NodeTypes, states: NodeStates, keeps: Keeps | Callable[[], Keeps] = "last"
    ) -> None:
        """``keeps``: whether the host's cache outlives a prompt that does not use it."""
        self.queue: PromptQueue | None = None
        """Where prompts wait; None before the host has one."""
        self._types, self._states, self._keeps = types, states, keeps
        self._lock = threading.RLock()
        self._running: _Running | None = None
        self._kept: frozenset[str] = frozenset()
        self._changing: set[str] = set()
        """Signatures that run again though nothing before them changed."""
        self._outputs: OrderedDict[str, tuple[tuple[weakref.ref[object], ...], ...]]
        self._outputs = OrderedDict()
        self._told = False
        """Whether the host tells of misses and results at all."""

    def prompt_started(self, prompt: QueuedPrompt | None) -> None:
        """A prompt starts; None: one that cannot be read."""
        with self._lock:
            self.prompt_ended()
            if prompt is not None:
                graph = Graph(prompt.nodes, prompt.outputs, self._types)
                self._running = _Running(graph, self._surviving(self._kept, graph))

    def prompt_ended(self) -> None:
        """It ended: what it leaves in the host's cache is worked out."""
        with self._lock:
            if self._running is None:
                return
            self._kept = self._results(self._running)
            self._running = None

    def missed(self, node_id: str) -> None:
        """The host's cache had nothing for a node: it runs, if it is needed."""
        with self._lock:
            self._told = True
            if self._running is not None:
                self._running.missed.add(node_id)

    def stored(self, node_id: str, outputs: Sequence[object]) -> None:
        """A node ran; ``outputs`` are what its sockets give."""
        with self._lock:
            self._told = True
            running = self._running
            if running is None or node_id not in running.graph:
                return  # a node made while the prompt runs; its parent's result is told, too
            running.stored.add(node_id)
            signature = running.graph.signature(node_id)
            self._outputs[signature] = tuple(_references(each) for each in outputs)
            self._outputs.move_to_end(signature)
            while len(self._outputs) > REMEMBERED_NODES:
                self._outputs.popitem(last=False)

    def look(self) -> Uses:
        """What is needed when. Takes the queue's mutex, so not for an event loop.

        Never raises: this only decides who leaves first, and no decode shall fail for it.
        """
        try:
            # Before the lock: whoever holds the queue's mutex may want to look, too.
            waiting = [] if self.queue is None else waiting_prompts(self.queue)
            with self._lock:
                return self._look(waiting)
        except Exception:  # noqa: BLE001, whatever it is, it is ours
            _log.exception("What is needed next cannot be told; models leave by size")
            return Uses()

    def _look(self, waiting: Sequence[QueuedPrompt]) -> Uses:
        steps: list[tuple[float, Reached]] = []
        kept = self._kept
        if self._running is not None:
            kept = self._rest_of_running(self._running, steps)
        for prompt in waiting[:MOST_PROMPTS]:
            graph = Graph(prompt.nodes, prompt.outputs, self._types)
            kept = self._all_of(graph, kept, steps)
        idle = self._running is None and not waiting
        return _summed(steps, self._made(), idle=idle)

    def _rest_of_running(
        self, running: _Running, steps: list[tuple[float, Reached]]
    ) -> frozenset[str]:
        graph = running.graph
        now, _ = self._states.states()
        done = self._done(running)
        outputs = self._known_outputs({graph.signature(each) for each in done})
        order = [each for each in graph.run_order(done.__contains__) if each not in now]
        used = [models_used(graph, each, self._types, outputs) for each in now if each in graph]
        steps += [(0.0, each) for each in used]
        self._add(graph, order, outputs, steps)
        ran = {graph.signature(each) for each in (*now, *order) if each in graph}
        return self._results(running) | (ran - self._changing)

    def _all_of(
        self, graph: Graph, kept: frozenset[str], steps: list[tuple[float, Reached]]
    ) -> frozenset[str]:
        """The steps of a waiting prompt; returns what is kept after it."""
        kept = self._surviving(kept, graph) - self._changing
        order = to_run(graph, kept)
        self._add(graph, order, self._known_outputs(kept), steps)
        return kept | ({graph.signature(each) for each in order} - self._changing)

    def _add(
        self,
        graph: Graph,
        order: Iterable[str],
        outputs: Outputs,
        steps: list[tuple[float, Reached]],
    ) -> None:
        after = steps[-1][0] if steps else 0.0
        for place, node_id in enumerate(order, 1):
            steps.append((after + place, models_used(graph, node_id, self._types, outputs)))

    def _surviving(self, kept: frozenset[str], graph: Graph) -> frozenset[str]:
        """What the host still has of its cache when a prompt begins."""
        keeps = self._keeps() if callable(self._keeps) else self._keeps
        if keeps == "none":
            return frozenset()
        if keeps == "all":
            return kept
        return kept & {graph.signature(each) for each in graph.node_ids}

    def _done(self, running: _Running) -> set[str]:
        """Nodes of the running prompt that ran, or whose results were kept.

        A host that tells of misses and had none is believed of results that were seen once.
        """
        _, finished = self._states.states()
        graph = running.graph
        known = running.kept
        if running.missed:
            known |= self._outputs.keys() - self._changing
        cached = {
            each
            for each in graph.node_ids
            if each not in running.missed and graph.signature(each) in known
        }
        return cached | running.stored | {each for each in finished if each in graph}

    def _results(self, running: _Running) -> frozenset[str]:
        """Signatures in the host's cache; also learns which of them do not hold.

        A node that ran without its result being offered has inputs that equal nothing, not even
        themselves: it runs every time. One that was missed though it was kept looks at the world,
        unless all of them were: then the host's cache was emptied.
        """
        graph, kept = running.graph, set[str]()
        for node_id in self._done(running):
            signature = graph.signature(node_id)
            if self._told and node_id not in running.stored and signature not in running.kept:
                self._changing.add(signature)
            else:
                kept.add(signature)
        expected = [each for each in graph.node_ids if graph.signature(each) in running.kept]
        if self._told and not running.missed.issuperset(expected):
            for node_id in expected:
                known = self._changing.add if node_id in running.missed else self._changing.discard
                known(graph.signature(node_id))
        return frozenset(kept)

    def _known_outputs(self, kept: Iterable[str]) -> Outputs:
        """Of results that are kept: what their sockets hold, None where that was not seen."""
        known: dict[str, tuple[tuple[object, ...], ...] | None] = {}
        for signature in kept:
            sockets = self._outputs.get(signature)
            known[signature] = None if sockets is None else tuple(map(_alive, sockets))
        return known

    def _made(self) -> frozenset[int]:
        sockets = (socket for outputs in self._outputs.values() for socket in outputs)
        return frozenset(id(base_of(each)) for socket in sockets for each in _alive(socket))


def _references(output: object) -> tuple[weakref.ref[object], ...]:
    """To the patchers; the host's cache alone decides how long they live."""
    return tuple(weakref.ref(each) for each in patchers_in(output))


def _alive(references: Iterable[weakref.ref[object]]) -> tuple[object, ...]:
    found = (reference() for reference in references)
    return tuple(each for each in found if each is not None)


def _summed(steps: Sequence[tuple[float, Reached]], made: frozenset[int], *, idle: bool) -> Uses:
    by_base: dict[int, float] = {}
    by_kind: dict[str, float] = {}
    for step, reached in steps:
        for patcher in reached.patchers:
            by_base.setdefault(id(base_of(patcher)), step)
        for kind in reached.kinds:
            by_kind.setdefault(kind, step)
    using = tuple((step, each) for step, each in steps if each != Reached())
    return Uses(using, by_base, by_kind, made, idle)


def cache_keeps(
    arguments: object, system_memory: Callable[[], tuple[int, int]] | None = None
) -> Callable[[], Keeps]:
    """What the host's command line makes of its cache, to be asked at any time.

    Its RAM-pressure cache, the usual one, drops what the running prompt does not use while less
    system memory than a threshold is free: by default all there is, or 128 GiB.

    Args:
        arguments: the host's.
        system_memory: free and total bytes; None: this machine's.
    """
    if getattr(arguments, "cache_none", False):
        return lambda: "none"
    if getattr(arguments, "cache_lru", 0):
        return lambda: "all"
    told = getattr(arguments, "cache_ram", 0)
    # Before it was the usual one, its argument was a number, 0 for the classic cache.
    if getattr(arguments, "cache_classic", False) or told == 0:
        return lambda: "last"
    threshold_gib = (*told, None, None)[1] if isinstance(told, list | tuple) else float(told)
    asked = system_memory or _system_memory

    def keeps() -> Keeps:
        free, total = asked()
        least = min(MOST_FREE_GIB * GiB, total) if threshold_gib is None else threshold_gib * GiB
        return "all" if free >= least else "last"

    return keeps


def _system_memory() -> tuple[int, int]:
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.available), int(memory.total)
