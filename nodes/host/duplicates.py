"""Notices when the public IAMCCS pack is installed beside this one, and says so once."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_log = logging.getLogger(__name__)

LITERAL_ROUTE: Final = "/api/iamccs/hw_probe"
"""What the public pack registers; ours, without ``/api``, answers first in either order."""


def foreign_ids(ids: Mapping[str, Any], mappings: Mapping[str, Any]) -> list[str]:
    """Node ids of this pack that another class serves, given ours by id."""
    return [node_id for node_id, ours in ids.items() if mappings.get(node_id, ours) is not ours]


def duplicate_line(foreign: Iterable[str], *, literal_route: bool) -> str | None:
    """The one line for the log, None when nothing is doubled."""
    names = ", ".join(sorted(foreign))
    if not names and not literal_route:
        return None
    doubled = [f"nodes {names}"] if names else []
    if literal_route:
        doubled.append(f"the route {LITERAL_ROUTE}")
    return (
        f"Another pack provides {' and '.join(doubled)} too: the pack loaded last serves the "
        "nodes. Both work, but remove one of them to know which runs."
    )


class DuplicateWatch:
    """Looks when this pack loads and again at the first job, when every pack is loaded."""

    def __init__(self, ours: Mapping[str, Any]) -> None:
        self._ours = ours
        self._said = False

    def look(self) -> None:
        """Log the line, at most once."""
        if self._said:
            return
        import server

        host_nodes: Any = importlib.import_module("nodes")  # ComfyUI's own module
        instance = getattr(server.PromptServer, "instance", None)
        paths = {getattr(route, "path", None) for route in getattr(instance, "routes", ())}
        foreign = foreign_ids(self._ours, host_nodes.NODE_CLASS_MAPPINGS)
        line = duplicate_line(foreign, literal_route=LITERAL_ROUTE in paths)
        if line is not None:
            self._said = True
            _log.warning("%s", line)
