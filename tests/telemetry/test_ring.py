"""The event ring: numbering, cursors, losses, notification."""

import sys

import pytest
from support.instruments import make_sample

from vram_supervisor.supervisor.telemetry.ring import EventRing


def nothing():
    pass


def publish(ring, count):
    return [ring.publish("telemetry", make_sample(number)).sequence for number in range(count)]


def sequences(events):
    return [event.sequence for event in events]


def test_events_are_numbered_from_one():
    ring = EventRing(4)
    assert ring.last_sequence == 0
    assert publish(ring, 3) == [1, 2, 3]
    assert ring.last_sequence == 3


AFTER = [
    # (published, asked after, what comes, why)
    (0, 0, [], "an empty ring has nothing"),
    (3, 0, [1, 2, 3], "all of a ring that is not full"),
    (3, 2, [3], "only what is newer"),
    (3, 3, [], "nothing is newer than the newest"),
    (3, 9, [], "a number of the future has nothing after it"),
    (9, 0, [6, 7, 8, 9], "a full ring has its newest events"),
    (9, 5, [6, 7, 8, 9], "right at the edge nothing is missing"),
]


@pytest.mark.parametrize(("published", "asked", "expected", "why"), AFTER)
def test_events_after_a_sequence(published, asked, expected, why):
    ring = EventRing(4)
    publish(ring, published)
    assert sequences(ring.after(asked)) == expected, why


TAKES = [
    # (published before, resume after, published then, most, taken, dropped, why)
    (3, None, 2, 9, [4, 5], 0, "without a number it starts at the next event"),
    (3, 1, 0, 9, [2, 3], 0, "a resumed reader gets what it missed"),
    (3, 0, 0, 2, [1, 2], 0, "no more than asked for"),
    (3, 0, 6, 9, [6, 7, 8, 9], 5, "what fell out of the ring is counted"),
    (3, 0, 6, 2, [6, 7], 5, "and counted once, however few are taken"),
    (3, 7, 1, 9, [4], 0, "a number of another life starts at the next event"),
    (3, -1, 1, 9, [4], 0, "so does a negative one"),
]


@pytest.mark.parametrize(("before", "resume", "then", "most", "taken", "dropped", "why"), TAKES)
def test_what_a_subscription_takes(*, before, resume, then, most, taken, dropped, why):
    ring = EventRing(4)
    publish(ring, before)
    subscription = ring.subscribe(resume, nothing)
    publish(ring, then)
    events, lost = subscription.take(most)
    assert (sequences(events), lost) == (taken, dropped), why


def test_taking_goes_on_where_it_stopped():
    ring = EventRing(4)
    subscription = ring.subscribe(None, nothing)
    publish(ring, 3)
    assert sequences(subscription.take(2)[0]) == [1, 2]
    assert sequences(subscription.take(2)[0]) == [3]
    assert subscription.take(2) == ([], 0)


def test_one_notification_until_the_next_take():
    ring = EventRing(8)
    calls = []
    subscription = ring.subscribe(None, lambda: calls.append(ring.last_sequence))
    publish(ring, 3)
    assert calls == [1]
    subscription.take(1)
    publish(ring, 2)
    assert calls == [1, 4]


def test_a_notified_reader_may_take_at_once():
    ring = EventRing(8)
    taken = []
    subscription = ring.subscribe(None, lambda: taken.extend(sequences(subscription.take(9)[0])))
    publish(ring, 3)
    assert taken == [1, 2, 3]


def test_a_closed_subscription_is_not_notified_and_closes_once():
    ring = EventRing(8)
    calls, closings = [], []
    subscription = ring.subscribe(None, lambda: calls.append(1), lambda: closings.append(1))
    subscription.close()
    subscription.close()
    publish(ring, 2)
    assert (calls, closings) == ([], [1])


def test_a_reader_that_never_reads_costs_nothing():
    ring = EventRing(16)
    subscription = ring.subscribe(None, nothing)
    before = sys.getsizeof(subscription) + sys.getsizeof(vars(subscription))
    publish(ring, 10_000)
    assert sys.getsizeof(subscription) + sys.getsizeof(vars(subscription)) == before
    assert len(ring.after(0)) == 16
    assert subscription.take(99)[1] == 10_000 - 16


def test_a_ring_holds_something():
    with pytest.raises(ValueError, match="holds nothing"):
        EventRing(0)
