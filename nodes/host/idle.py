"""Work for the time between jobs: stopped when one starts, taken up again when it has ended."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    Check: TypeAlias = Callable[[], None]
    Work: TypeAlias = Callable[[Any, Check], None]
    """Called with its owner, and with what it is to call now and then; that may raise."""

MOST_WAITING: Final = 256
"""Pieces of work; the oldest go, for what is asked again is put in again."""
CLOSE_PATIENCE_S: Final = 2.0

_log = logging.getLogger(__name__)


class JobStarted(Exception):  # noqa: N818
    """Raised inside work in hand when a job starts: it will be done again from its beginning."""


@dataclass(frozen=True)
class _Item:
    key: str
    owner: weakref.ref[Any]
    work: Work


@dataclass
class IdleWorker:
    """One daemon thread, started when there is work for the first time.

    Attributes:
        is_interrupt: whether an error is the host's interrupt.
        give_back_interrupt: sets the user's interrupt again after work has swallowed it: it
            was meant for a job.
    """

    is_interrupt: Callable[[BaseException], bool]
    give_back_interrupt: Callable[[], None]
    _waiting: dict[str, _Item] = field(default_factory=dict[str, "_Item"])
    _change: threading.Condition = field(default_factory=threading.Condition)
    _job_runs: bool = False
    _disturbed: bool = False
    """Whether a job has started since the work in hand began."""
    _closed: bool = False
    _in_hand: str | None = None
    _thread: threading.Thread | None = None

    def later(self, owner: object, key: str, work: Work) -> None:
        """Do ``work(owner, check)`` while no job runs; forgotten when ``owner`` is gone.

        Of the same key only one waits. Returns at once.
        """
        item = _Item(key, weakref.ref(owner), work)
        with self._change:
            if self._closed or key in self._waiting or key == self._in_hand:
                return
            while len(self._waiting) >= MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[key] = item
            self._change.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vram-idle", daemon=True)
                self._thread.start()

    def job_started(self) -> None:
        """Stop what is in hand at its next check; begin nothing."""
        with self._change:
            self._job_runs = self._disturbed = True

    def job_ended(self) -> None:
        """Go on; may be said more than once."""
        with self._change:
            self._job_runs = False
            self._change.notify_all()

    def close(self) -> None:
        """Drop what waits, stop what is in hand, and wait for that a little."""
        with self._change:
            self._closed = True
            self._waiting.clear()
            self._change.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_PATIENCE_S)

    def wait_until_done(self, timeout_s: float) -> bool:
        """Whether nothing waits and nothing is in hand, at the latest after ``timeout_s``."""
        with self._change:
            return self._change.wait_for(lambda: not self._waiting and not self._in_hand, timeout_s)

    def _run(self) -> None:
        while True:
            item = self._next()
            if item is None:
                return
            again = self._do(item)
            with self._change:
                self._in_hand = None
                if again and not self._closed:
                    self._waiting.setdefault(item.key, item)
                self._change.notify_all()
            del item

    def _next(self) -> _Item | None:
        """Wait for work that may be done; None when closed."""
        with self._change:
            self._change.wait_for(lambda: self._closed or (self._waiting and not self._job_runs))
            if self._closed:
                return None
            key = next(iter(self._waiting))
            self._in_hand, self._disturbed = key, False
            return self._waiting.pop(key)

    def _do(self, item: _Item) -> bool:
        """Whether the work is to be done again."""
        owner = item.owner()
        if owner is None:
            return False
        try:
            item.work(owner, self._check)
        except JobStarted:
            return True
        except BaseException as problem:  # noqa: BLE001 - hosts' interrupts are no Exceptions
            return self._goes_on_after(problem)
        return False

    def _goes_on_after(self, problem: BaseException) -> bool:
        if self.is_interrupt(problem):
            self.give_back_interrupt()
            return self._disturbed
        if not isinstance(problem, Exception):
            raise problem
        if not self._disturbed:
            _log.info("Work between jobs was given up", exc_info=problem)
        # A model that a job is moving about cannot be looked at: no fault of the work.
        return self._disturbed

    def _check(self) -> None:
        if self._disturbed or self._closed:
            raise JobStarted
