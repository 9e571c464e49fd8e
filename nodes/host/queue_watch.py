"""Watches the queue of a host that does not report starts and ends (0.3.64, 0.8).

Between jobs it sleeps. A posted prompt wakes it, through the server's own hook for incoming
prompts, and it polls closely until the queue is empty again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSE_INTERVAL_S: Final = 0.02
LOOKS_AFTER_THE_LAST_JOB: Final = 25


class QueueWatch:
    """A daemon thread that calls ``poll`` while ``busy`` says that there is work."""

    def __init__(self, poll: Callable[[], None], busy: Callable[[], bool]) -> None:
        self._poll, self._busy = poll, busy
        self._posted = threading.Event()
        self._pause = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vram-queue-watch", daemon=True)

    def start(self) -> None:
        """Begin to wait for prompts."""
        self._thread.start()

    def posted(self, prompt: object) -> object:
        """A prompt arrives; it is passed on unchanged. Never blocks."""
        self._posted.set()
        return prompt

    def _run(self) -> None:
        while True:
            self._posted.wait()
            self._posted.clear()
            self._follow()

    def _follow(self) -> None:
        """The prompt is queued a moment after it was posted, so one empty look is no end."""
        empty_looks = 0
        while empty_looks < LOOKS_AFTER_THE_LAST_JOB:
            self._pause.wait(CLOSE_INTERVAL_S)
            empty_looks = 0 if self._busy() else empty_looks + 1
            self._poll()
