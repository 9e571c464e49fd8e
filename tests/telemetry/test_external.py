"""A figure a second, whatever single samples say."""

from vram_supervisor.supervisor.telemetry.external import SecondsTrace


def trace_of(*samples, kept=100):
    trace = SecondsTrace(kept)
    return trace, [trace.add(at, value) for at, value in samples]


def test_a_second_is_its_median_and_complete_once_the_next_begins():
    trace, completed = trace_of((0.1, 5), (0.2, 900), (0.3, 6), (1.0, 7))
    assert completed == [False, False, False, True]
    assert trace.points() == [(0.0, 6)]


def test_seconds_without_samples_are_missing():
    trace, _ = trace_of((0.0, 1), (5.5, 2), (9.0, 3))
    assert trace.points() == [(0.0, 1), (5.0, 2)]
    assert trace.points(since_s=3.0) == [(5.0, 2)]


def test_now_is_the_running_second_without_a_misreading():
    trace, _ = trace_of((0.0, 5), (0.1, 5), (0.2, 900))
    assert trace.now_bytes() == 5
    trace.add(0.3, 900)
    assert trace.now_bytes() == 900


def test_nothing_is_known_before_the_first_sample():
    assert SecondsTrace().now_bytes() is None
    assert SecondsTrace().points() == []


def test_the_oldest_seconds_go():
    trace, _ = trace_of(*((float(second), second) for second in range(10)), kept=3)
    assert trace.points() == [(6.0, 6), (7.0, 7), (8.0, 8)]
