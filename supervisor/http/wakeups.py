"""Wakes the streams of an event loop from the threads that publish.

The host's own work runs on the same loop. Were all clients woken in one turn of it, that work
would wait for every one of them; so they are woken a few per turn, in order.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

CLIENTS_PER_TURN: Final = 8


class Wakeups:
    """Collects who is to be woken on one loop. Notifiers may be called on any thread.

    There is no lock, so the loop never waits for a publisher: a notifier enters its waker
    before it looks at ``_scheduled``, and the loop looks for wakers once more after it has
    cleared that flag, so between them none is forgotten. Waking twice does no harm.
    """

    def __init__(self, per_turn: int = CLIENTS_PER_TURN) -> None:
        self._per_turn = per_turn
        self._due: deque[asyncio.Event] = deque()
        self._scheduled = False

    def notifier(self, loop: asyncio.AbstractEventLoop, waker: asyncio.Event) -> Callable[[], None]:
        """A function that sets ``waker`` on ``loop``, soon; it never waits."""

        def notify() -> None:
            self._due.append(waker)
            if self._scheduled:
                return
            self._scheduled = True
            # At shutdown the ring may publish once more while the loop is already gone.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake_some, loop)

        return notify

    def _wake_some(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(self._per_turn, len(self._due))):
            self._due.popleft().set()
        self._scheduled = bool(self._due)
        if not self._scheduled and self._due:
            self._scheduled = True
        if self._scheduled:
            loop.call_soon(self._wake_some, loop)
