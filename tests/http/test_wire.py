from __future__ import annotations

import dataclasses
import json
import math

import pytest
from support.http_world import BUSY_READING, sample_at

from vram_supervisor.supervisor.http.wire import (
    LIVE_NODES,
    change_json,
    dump_json,
    event_json,
    plan_json,
    record_json,
    sample_json,
    summary_json,
)
from vram_supervisor.supervisor.types import (
    DecodeProgress,
    DecodeSummary,
    JobChange,
    JobPosition,
    JobRecord,
    NodeRecord,
    Peak,
    Plan,
    ProcessUse,
    Reading,
    State,
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_json_cannot_write_become_null(value: float) -> None:
    text = dump_json({"a": [value, 1.5], "b": {"c": (value,)}, "d": "NaN"})
    assert json.loads(text) == {"a": [None, 1.5], "b": {"c": [None]}, "d": "NaN"}


def test_json_is_one_line_whatever_the_text() -> None:
    assert "\n" not in dump_json({"name": "a\nb\r\n\u2028c"})


def test_a_sample_keeps_unknown_as_null_and_names_its_job() -> None:
    sample = sample_at(12.5, Reading(used_bytes=0), job_id="j", node_id="3", node_type="KSampler")
    answer = sample_json(sample)
    assert answer["device"] == "cuda:0"
    assert (answer["time_s"], answer["job_id"], answer["node_id"]) == (12.5, "j", "3")
    reading = answer["reading"]
    assert isinstance(reading, dict)
    assert reading["used_bytes"] == 0
    assert reading["free_bytes"] is None
    assert reading["processes"] == []


def test_every_figure_of_a_reading_reaches_the_client() -> None:
    reading = Reading(**{name: index for index, name in enumerate(Reading.__slots__)})
    reading = Reading(
        *[getattr(reading, name) for name in Reading.__slots__[:-2]],
        processes=(ProcessUse(7, None, "other"),),
        error="torn",
    )
    answer = sample_json(sample_at(1, reading))["reading"]
    assert isinstance(answer, dict)
    assert set(answer) == set(Reading.__slots__)
    assert answer["processes"] == [{"pid": 7, "name": "other", "used_bytes": None}]
    for name in Reading.__slots__[:-2]:
        assert answer[name] == getattr(reading, name)


def test_a_job_change_carries_the_record_at_the_end_only() -> None:
    node = NodeRecord("3", "KSampler", 1.0, 2.0, (Peak("cuda:0", 5, 4, 3, torch_exact=True),))
    record = JobRecord("j", 1.0, 2.5, "success", (node,), (Peak("cuda:0", 5),))
    start = change_json(JobChange(1.0, "start", JobPosition("j")))
    end = change_json(JobChange(2.5, "end", JobPosition("j"), record))
    assert start["record"] is None
    assert end["record"] == record_json(record)
    assert record_json(record)["nodes"] == [
        {
            "node_id": "3",
            "node_type": "KSampler",
            "started_s": 1.0,
            "ended_s": 2.0,
            "peaks": [
                {
                    "device": "cuda:0",
                    "used_bytes": 5,
                    "process_bytes": 4,
                    "torch_bytes": 3,
                    "torch_exact": True,
                    "torch_bound_bytes": None,
                }
            ],
        }
    ]


def test_a_plan_has_every_field_of_the_record() -> None:
    plan = Plan("tiled", 4, "because", 100, fits=True, tile_size=512, warnings=("w",))
    answer = plan_json(plan)
    assert set(answer) == set(Plan.__slots__)
    assert answer["warnings"] == ["w"]
    assert dump_json({"reading": BUSY_READING.used_bytes, "plan": answer})


def test_live_answers_carry_the_newest_nodes_only_and_say_how_many_there_are():
    nodes = tuple(NodeRecord(str(n), "Node", float(n)) for n in range(LIVE_NODES + 3))
    record = JobRecord("job", 0.0, 9.0, "success", nodes)
    shown = record_json(record, LIVE_NODES)
    assert shown["node_count"] == LIVE_NODES + 3
    assert [shown["nodes"][0]["node_id"], len(shown["nodes"])] == ["3", LIVE_NODES]
    assert len(record_json(record)["nodes"]) == LIVE_NODES + 3


def test_a_running_decode_tells_plan_parts_and_what_is_final() -> None:
    summary = DecodeSummary(
        "decode", "cuda:0", "8", 12.0, kind="tiled", plan="four tiles", retries=("one",)
    )
    progress = DecodeProgress(3, "job", summary, steps=4, done=2, finished=((0, 1, 0, 0, 8, 8),))
    answer = event_json(progress)
    assert (answer["number"], answer["job_id"], answer["node_id"]) == (3, "job", "8")
    assert (answer["steps"], answer["done"], answer["outcome"]) == (4, 2, "running")
    assert answer["finished"] == [[0, 1, 0, 0, 8, 8]]
    assert answer["retries"] == ["one"]
    fields = {each.name for each in dataclasses.fields(DecodeSummary)}
    assert fields <= set(answer), "every figure of a summary reaches the client"


def test_a_job_tells_its_decodes() -> None:
    decode = DecodeSummary("decode", "cuda:0", "8", 12.0, predicted_bytes=5, measured_bytes=4)
    told = record_json(JobRecord("j", 1.0, decodes=(decode,)))["decodes"]
    assert told == [summary_json(decode)]


def test_the_state_tells_reserve_and_warnings() -> None:
    answer = event_json(State(1.5, 7, "others swing", ("it spills",)))
    assert answer == {
        "time_s": 1.5,
        "reserve_bytes": 7,
        "reserve_words": "others swing",
        "warnings": ["it spills"],
    }
