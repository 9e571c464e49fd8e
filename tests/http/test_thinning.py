"""Events for clients that look once a second."""

import pytest
from support.http_world import GPU, sample_at

from vram_supervisor.supervisor.http.thinning import Thinner
from vram_supervisor.supervisor.types import (
    DecodeProgress,
    DecodeSummary,
    DeviceInfo,
    Event,
    JobChange,
    JobPosition,
    State,
)

OTHER = DeviceInfo("cuda:1", "cuda")


def sample(time_s, device=GPU):
    return Event(1, "telemetry", sample_at(time_s, device=device))


def progress(time_s, *, done=1, outcome="running", number=1):
    summary = DecodeSummary("decode", "cuda:0", "8", 0.0, outcome=outcome)
    return Event(1, "decode", DecodeProgress(number, "job", summary, 9, done, (), time_s))


@pytest.mark.parametrize(
    ("sentence", "events", "kept"),
    [
        ("one sample a second", [sample(each / 10) for each in range(25)], [0, 10, 20]),
        ("a little early counts", [sample(0.0), sample(0.96)], [0, 1]),
        ("each device by itself", [sample(0.0), sample(0.1, OTHER), sample(0.2)], [0, 1]),
        ("a clock set back begins anew", [sample(9.0), sample(2.0), sample(2.5)], [0, 1]),
        ("one of a decode's parts a second", [progress(each / 10) for each in range(15)], [0, 10]),
        ("its plan, and another plan", [progress(0.0, done=0), progress(0.1, done=0)], [0, 1]),
        ("its end", [progress(0.0), progress(0.1, outcome="done")], [0, 1]),
        ("another one", [progress(0.0), progress(0.1, number=2)], [0, 1]),
        (
            "what happens once",
            [
                Event(1, "job", JobChange(0.0, "start", JobPosition())),
                Event(2, "state", State(0.1)),
                Event(3, "job", JobChange(0.2, "end", JobPosition())),
            ],
            [0, 1, 2],
        ),
    ],
)
def test_what_a_slow_client_gets(sentence, events, kept):
    thinner = Thinner()
    got = [place for place, event in enumerate(events) if thinner.keeps(event)]
    assert got == kept, sentence
