"""The two places where ComfyUI calls us: a cache provider and a progress handler."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, ParamSpec

from .jobs import HANDLER_NAME, JobFeed, Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from .next_use import NextUses

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")


def connect(feed_for: Callable[[Progress, bool], JobFeed], uses: NextUses) -> JobFeed:
    """Make a feed and have the host report to it, and to ``uses`` what nodes put out.

    ``feed_for`` gets the host's progress registry and whether the feed must watch the queue
    itself, because the host has no cache providers to report starts and ends.
    """
    try:
        from comfy_api.latest import Caching
        from comfy_execution.cache_provider import register_cache_provider
    except ImportError:
        _log.info("This ComfyUI has no cache providers: jobs are followed by polling.")
        return feed_for(HostProgress(), True)
    feed = feed_for(HostProgress(), False)
    register_cache_provider(_provider(Caching.CacheProvider, feed, uses))
    return feed


def _provider(base: type[Any], feed: JobFeed, uses: NextUses) -> object:
    missed, stored = harmless(uses.missed), harmless(uses.stored)

    class JobNotices(base):  # type: ignore[misc]
        """Caches nothing; it is here for the notices of start and end."""

        async def on_lookup(self, context: object) -> None:
            """Never asked: ``should_cache`` says no first."""

        async def on_store(self, context: object, value: object) -> None:
            """Never asked either."""

        def should_cache(self, context: Any, value: Any = None) -> bool:
            """Say no. The first call of a prompt comes after its registry was rebuilt.

            Asked without a value where the host's own cache has none, else with a fresh one.
            """
            feed.listen()
            if value is None:
                missed(context.node_id)
            else:
                stored(context.node_id, value.outputs)
            return False

        def on_prompt_start(self, prompt_id: str) -> None:
            feed.prompt_started(prompt_id)

        def on_prompt_end(self, prompt_id: str) -> None:
            feed.prompt_ended(prompt_id)

    return JobNotices()


class HostProgress:
    """ComfyUI's progress registry of the moment; it is rebuilt for every prompt."""

    def prompt_id(self) -> str:
        """Which prompt the registry belongs to, empty before the first."""
        return str(_registry().prompt_id)

    def running(self) -> dict[str, str | None]:
        """Nodes running now, with their class. Safe from any thread."""
        from comfy_execution.progress import NodeState

        registry = _registry()
        return {
            node_id: class_of(registry, node_id)
            for node_id, entry in dict(registry.nodes).items()
            if entry["state"] == NodeState.Running
        }

    def states(self) -> tuple[frozenset[str], frozenset[str]]:
        """Nodes of the running prompt that run, and that are through. Safe from any thread."""
        from comfy_execution.progress import NodeState

        now = {node_id: entry["state"] for node_id, entry in dict(_registry().nodes).items()}
        running = frozenset(each for each, state in now.items() if state == NodeState.Running)
        return running, frozenset(
            each for each, state in now.items() if state == NodeState.Finished
        )

    def listen(
        self, entered: Callable[[str, str | None], None], left: Callable[[str], None]
    ) -> None:
        """Register a handler; only in the executor's thread, which walks the handlers."""
        from comfy_execution.progress import ProgressHandler, add_progress_handler

        class NodeNotices(ProgressHandler):  # type: ignore[misc]
            """Reports starts and finishes; a node's own steps are not looked at."""

            def set_registry(self, registry: object) -> None:
                self.registry = registry

            @harmless
            def start_handler(self, node_id: str, state: object, prompt_id: str) -> None:  # noqa: ARG002
                entered(node_id, class_of(self.registry, node_id))

            @harmless
            def finish_handler(self, node_id: str, state: object, prompt_id: str) -> None:  # noqa: ARG002
                left(node_id)

        add_progress_handler(NodeNotices(HANDLER_NAME))


def harmless(call: Callable[_P, None]) -> Callable[_P, None]:
    """A monitor's mistake must not fail the user's node: it is logged with its trace."""

    @functools.wraps(call)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception:  # noqa: BLE001, whatever it is, it is ours
            _log.exception("Following the running node failed; the job goes on")

    return guarded


def class_of(registry: Any, node_id: str) -> str | None:
    """The class of a node, of one made while the prompt runs too; None when unknown."""
    dynprompt = registry.dynprompt
    has_node = getattr(dynprompt, "has_node", None)
    if has_node is not None and not has_node(node_id):
        return None
    return str(dynprompt.get_node(node_id)["class_type"])


def _registry() -> Any:
    from comfy_execution.progress import get_progress_state

    return get_progress_state()
