"""What ComfyUI's prompt queue and history say, as plain values.

Only ``prompt_queue.get_current_queue_volatile`` and ``get_history`` are used; both have been
there since before 0.3.64. They take the queue's mutex: not for an event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.types import JobStatus

_LEAST_ITEM_LENGTH = 5


class PromptQueue(Protocol):
    """The part of ComfyUI's ``PromptQueue`` that is read."""

    def get_current_queue_volatile(self) -> tuple[list[object], list[object]]:
        """Running and waiting items."""
        ...

    def get_history(
        self,
        prompt_id: str | None = None,
        *,
        map_function: Callable[[Mapping[str, object]], object],
    ) -> Mapping[str, object]:
        """Finished prompts by id, each through ``map_function``."""
        ...


@dataclass(frozen=True, slots=True)
class QueuedPrompt:
    """One running item of the queue: API-format nodes and the outputs asked for."""

    prompt_id: str
    nodes: Mapping[str, object]
    outputs: tuple[str, ...]


def running_prompts(queue: PromptQueue) -> list[QueuedPrompt]:
    """What runs now; normally one, none between jobs."""
    running, _ = queue.get_current_queue_volatile()
    prompts = (_prompt(item) for item in running)
    return [prompt for prompt in prompts if prompt is not None]


def waiting_prompts(queue: PromptQueue) -> list[QueuedPrompt]:
    """What waits, in the order in which it will run."""
    _, waiting = queue.get_current_queue_volatile()
    # The host keeps a heap, whose list is not in order; numbers may be fractions or negative.
    prompts = [(item, _prompt(item)) for item in waiting]
    found = [(_number(item), prompt) for item, prompt in prompts if prompt is not None]
    return [prompt for _, prompt in sorted(found, key=lambda each: each[0])]


def has_work(queue: PromptQueue) -> bool:
    """Whether anything runs or waits."""
    running, waiting = queue.get_current_queue_volatile()
    return bool(running or waiting)


def _prompt(item: object) -> QueuedPrompt | None:
    """An item is ``(number, prompt id, prompt, extra data, outputs, ...)``."""
    if not isinstance(item, Sequence) or len(item) < _LEAST_ITEM_LENGTH:
        return None
    prompt_id, nodes, outputs = item[1], item[2], item[4]
    if not isinstance(nodes, Mapping):
        return None
    return QueuedPrompt(str(prompt_id), nodes, tuple(str(node_id) for node_id in outputs))


def _number(item: object) -> float:
    number = item[0] if isinstance(item, Sequence) else None
    return float(number) if isinstance(number, int | float) else 0.0


def finished_status(queue: PromptQueue, prompt_id: str) -> JobStatus | None:
    """How a prompt ended, None while the queue does not know."""
    found = queue.get_history(prompt_id=prompt_id, map_function=_status_of)
    return status_from(found[prompt_id]) if prompt_id in found else None


def _status_of(entry: Mapping[str, object]) -> object:
    """Picked out here, for the whole entry would be copied deeply otherwise."""
    return entry.get("status")


def status_from(status: object) -> JobStatus:
    """Translate a history entry's status.

    ComfyUI knows only success and error there; an interrupt shows as a message
    ``execution_interrupted``. An entry without a status counts as success, for that is how
    old versions wrote finished prompts.
    """
    if not isinstance(status, Mapping):
        return "success"
    messages = status.get("messages")
    names = {str(message[0]) for message in messages} if isinstance(messages, list) else set()
    if "execution_interrupted" in names:
        return "interrupted"
    return "success" if status.get("status_str") == "success" else "error"
