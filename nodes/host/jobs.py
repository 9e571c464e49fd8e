"""Follows ComfyUI's jobs without patching it, headless API jobs included.

Where the host has cache providers, one that never caches anything is told when each prompt
starts and ends. At its start it does two things in the executor's own thread: it reads the
prompt from the queue, so that settings hold before the first node runs, and it asks the
executor's event loop to call back, which happens right after the host rebuilt its progress
registry. There a progress handler is registered that sees every node start and finish.

Whether a prompt succeeded is known only to the queue's history, written just after the end
was reported. So the end is settled by the next telemetry sample, or by the next start.

Hosts without cache providers (0.3.64, 0.8) are polled instead: on each telemetry sample,
closely while prompts wait or run, and whenever a supporter node is asked for its fingerprint.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Protocol

from .queue import QueuedPrompt, finished_status, running_prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.types import JobPosition, JobStatus
    from .queue import PromptQueue

_log = logging.getLogger(__name__)

HANDLER_NAME = "vram_supervisor"
PATIENCE_POLLS = 50
"""How many samples to wait for the history to tell how a prompt ended."""


class Tracker(Protocol):
    """The part of the job tracker that is fed."""

    def start_job(self, job_id: str) -> object:
        """A job begins."""
        ...

    def enter_node(self, node_id: str, node_type: str | None) -> object:
        """A node of it begins."""
        ...

    def leave_node(self, node_id: str) -> object:
        """A node of it ends."""
        ...

    def end_job(self, status: JobStatus) -> object:
        """The job ends."""
        ...

    def position(self) -> JobPosition:
        """The job and node that run now."""
        ...


class Progress(Protocol):
    """ComfyUI's progress registry as far as it is read; a test can stand in for it."""

    def prompt_id(self) -> str:
        """Which prompt the registry belongs to."""
        ...

    def running(self) -> dict[str, str | None]:
        """Nodes running now, with their class."""
        ...

    def listen(
        self, entered: Callable[[str, str | None], None], left: Callable[[str], None]
    ) -> None:
        """Have every start and finish of a node reported from now on."""
        ...


class JobFeed:
    """Tells the tracker what the host does. Calls come from the executor's thread and from
    telemetry's; none of them raises into the host."""

    def __init__(
        self,
        tracker: Tracker,
        queue: PromptQueue,
        progress: Progress,
        *,
        started: Callable[[QueuedPrompt | None], None],
        ended: Callable[[], None],
        follow_queue: bool,
    ) -> None:
        """``follow_queue``: the host does not report starts and ends, so watch its queue."""
        self._tracker = tracker
        self._queue = queue
        self._progress = progress
        self._started = started
        self._ended = ended
        self._lock = threading.RLock()
        self._job_id: str | None = None
        self._unsettled: str | None = None
        self._polls_left = 0
        self._listening_to: str | None = None
        self._follow = follow_queue
        self._polled: set[str] = set()

    @property
    def follows_queue(self) -> bool:
        """Whether starts and ends are found by looking at the queue."""
        return self._follow

    def prompt_started(self, prompt_id: str) -> None:
        """A prompt starts; called in the executor's thread before its first node."""
        with self._lock:
            self._begin(prompt_id)
            self._listen_soon(prompt_id)

    def prompt_ended(self, prompt_id: str) -> None:
        """A prompt ended, however it ended."""
        with self._lock:
            if prompt_id == self._job_id:
                self._finish()

    def listen(self) -> None:
        """Register with the progress registry of the running prompt, once."""
        with self._lock:
            job_id = self._job_id
            if job_id is None or self._listening_to == job_id:
                return
            if self._progress.prompt_id() != job_id:
                return
            self._listening_to = job_id
            self._progress.listen(self._entered, self._left)

    def catch_up(self) -> None:
        """Look at the queue and listen from now on; only in the executor's thread."""
        with self._lock:
            self.poll()
            self.listen()

    def poll(self) -> None:
        """Catch up with the host; called once per telemetry sample.

        Takes the queue's mutex, so not for an event loop's thread.
        """
        with self._lock:
            self._settle()
            if self._follow:
                self._follow_queue()
            if self._job_id is not None and self._listening_to != self._job_id:
                self._follow_progress()

    def _begin(self, job_id: str) -> None:
        self._settle(now=True)
        if self._job_id is not None:
            self._finish()
            self._settle(now=True)
        self._job_id = job_id
        self._polled = set()
        self._tracker.start_job(job_id)
        prompts = {prompt.prompt_id: prompt for prompt in running_prompts(self._queue)}
        self._started(prompts.get(job_id))

    def _finish(self) -> None:
        """Settings go back at once; the status is asked for until it is known."""
        self._unsettled, self._job_id = self._job_id, None
        self._listening_to = None
        self._polls_left = PATIENCE_POLLS
        self._ended()

    def _settle(self, *, now: bool = False) -> None:
        if self._unsettled is None:
            return
        status = finished_status(self._queue, self._unsettled)
        self._polls_left -= 1
        if status is None:
            if not now and self._polls_left > 0:
                return
            status = "error" if self._tracker.position().node_id is not None else "success"
        self._unsettled = None
        self._tracker.end_job(status)

    def _listen_soon(self, prompt_id: str) -> None:
        """The registry is rebuilt right after this, without a turn of the event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            _log.debug("Prompt %s starts outside an event loop: its nodes are polled", prompt_id)
            return
        loop.call_soon(self.listen)

    def _follow_queue(self) -> None:
        running = running_prompts(self._queue)
        job_id = running[0].prompt_id if running else None
        if job_id is not None and job_id != self._job_id:
            self._begin(job_id)
        elif job_id is None and self._job_id is not None:
            self._finish()
            self._settle()
        elif job_id is None:
            self._ended()  # a job may come and go between two polls

    def _follow_progress(self) -> None:
        if self._progress.prompt_id() != self._job_id:
            return
        running = self._progress.running()
        for node_id in self._polled - running.keys():
            self._tracker.leave_node(node_id)
        for node_id in running.keys() - self._polled:
            self._tracker.enter_node(node_id, running[node_id])
        self._polled = set(running)

    def _entered(self, node_id: str, node_type: str | None) -> None:
        self._tracker.enter_node(node_id, node_type)

    def _left(self, node_id: str) -> None:
        self._tracker.leave_node(node_id)
