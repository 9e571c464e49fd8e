"""A bounded ring of events that any number of readers follow, each with a cursor of its own.

The events exist once, in the ring. A reader that falls behind loses the oldest ones and is
told how many; it never makes the ring, or anything else, grow.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..types import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..types import DecodeProgress, EventKind, JobChange, Sample, State


class EventRing:
    """The newest ``capacity`` events, numbered from 1. Every method may be called on any thread."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} events holds nothing")
        self._lock = threading.Lock()
        self._slots: list[Event | None] = [None] * capacity
        self._last = 0
        self._subscriptions: set[Subscription] = set()

    @property
    def last_sequence(self) -> int:
        """Sequence of the newest event, 0 while there is none."""
        return self._last

    def publish(
        self, kind: EventKind, payload: Sample | JobChange | DecodeProgress | State
    ) -> Event:
        """Add an event and tell the subscribers that wait for one."""
        with self._lock:
            self._last += 1
            event = Event(self._last, kind, payload)
            self._slots[self._last % len(self._slots)] = event
            waiting = [each for each in self._subscriptions if each.armed]
            for subscription in waiting:
                subscription.armed = False
        # Outside the lock, for a notified subscriber may take at once.
        for subscription in waiting:
            subscription.notify()
        return event

    def after(self, sequence: int) -> list[Event]:
        """Events newer than ``sequence`` that are still held, oldest first."""
        with self._lock:
            return self._held(sequence, len(self._slots))[0]

    def subscribe(
        self,
        last_sequence: int | None,
        notify: Callable[[], None],
        on_close: Callable[[], None] | None = None,
    ) -> Subscription:
        """Follow the ring from the event after ``last_sequence``.

        None, or a sequence this ring has not reached, starts at the next event. ``notify``
        runs on the publishing thread, at most once until the next ``take``: it must not block.
        """
        with self._lock:
            if last_sequence is None or not 0 <= last_sequence <= self._last:
                last_sequence = self._last
            subscription = Subscription(self, last_sequence, notify, on_close)
            self._subscriptions.add(subscription)
            return subscription

    def advance(self, subscription: Subscription, most: int) -> tuple[list[Event], int]:
        """Move a subscription's cursor over up to ``most`` events; what ``take`` does."""
        with self._lock:
            subscription.armed = subscription in self._subscriptions
            events, dropped = self._held(subscription.cursor, most)
            subscription.cursor += dropped + len(events)
            return events, dropped

    def drop(self, subscription: Subscription) -> bool:
        """Forget a subscription; False if it was forgotten before."""
        with self._lock:
            known = subscription in self._subscriptions
            self._subscriptions.discard(subscription)
            subscription.armed = False
            return known

    def _held(self, sequence: int, most: int) -> tuple[list[Event], int]:
        """Up to ``most`` events after ``sequence``, and how many fell out before them."""
        oldest = max(1, self._last - len(self._slots) + 1)
        first = max(sequence + 1, oldest)
        last = min(self._last, first + most - 1)
        slots = (self._slots[number % len(self._slots)] for number in range(first, last + 1))
        return [event for event in slots if event is not None], first - sequence - 1


class Subscription:
    """One reader's place in the ring. It holds a cursor and no events."""

    def __init__(
        self,
        ring: EventRing,
        cursor: int,
        notify: Callable[[], None],
        on_close: Callable[[], None] | None,
    ) -> None:
        self._ring = ring
        self._on_close = on_close
        self.notify = notify
        self.cursor = cursor
        """Sequence of the last event that was taken or lost; the ring moves it."""
        self.armed = True
        """Whether the next event calls ``notify``; the ring guards it."""

    def take(self, most: int) -> tuple[list[Event], int]:
        """Up to ``most`` new events, oldest first, and how many were lost before them."""
        return self._ring.advance(self, most)

    def close(self) -> None:
        """Stop being notified. A second call does nothing."""
        if self._ring.drop(self) and self._on_close is not None:
            self._on_close()
