"""How long work takes: what decides races."""

import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.nodes.attention import checking  # noqa: E402


def test_a_hiccup_decides_no_race(monkeypatch):
    """The first run warms up and is not timed; of the others the shortest counts."""
    now, durations = [0.0], [50.0, 7.0, 2.0, 4.0]

    def work():
        now[0] += durations.pop(0)

    monkeypatch.setattr(checking.time, "perf_counter", lambda: now[0])
    assert checking.seconds(torch.device("cpu"), work) == 2.0
    assert durations == []
