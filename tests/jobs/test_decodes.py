"""Decodes as they are told to whoever watches: seldom enough, completely, in order."""

import pytest
from support.clock import StillClock

from vram_supervisor.supervisor.jobs.decodes import MOST_RECTANGLES, DecodeBoard, Pictures
from vram_supervisor.supervisor.types import JobPosition, Plan

PLAN = Plan("tiled", 4, "four tiles", 1000, True, predicted_seconds=2.0)


class World:
    def __init__(self):
        self.clock = StillClock()
        self.told = []
        self.at = JobPosition("job", "8", "IAMCCS_VAEDecodeTiledSafe")
        self.used = {"cuda:0": 500}
        self.board = DecodeBoard(self.clock, self, self.used.get, self.told.append)

    def position(self):
        return self.at

    def begin(self, pictures=Pictures(64, 32, 5)):  # noqa: B008 - it is frozen
        return self.board.begin("decode", "cuda:0", family="AutoencoderKL", pictures=pictures)

    def later(self, seconds):
        self.clock.now_s += seconds


@pytest.fixture
def world():
    return World()


def test_a_decode_from_its_plan_to_its_end(world):
    watch = world.begin()
    watch.planned(PLAN, predicted_bytes=900)
    world.later(3.0)
    watch.ended("done", measured_bytes=800, seconds=2.5, retries=("tiles of 64 px: done",))
    planned, ended = (each.summary for each in world.told)
    assert (planned.outcome, planned.predicted_bytes, planned.plan) == (
        "running",
        900,
        "four tiles",
    )
    assert (ended.outcome, ended.measured_bytes, ended.seconds) == ("done", 800, 2.5)
    assert (ended.node_id, ended.held_bytes, ended.family) == ("8", 500, "AutoencoderKL")
    assert (ended.width, ended.height, ended.frames) == (64, 32, 5)
    assert ended.ended_s - ended.started_s == 3.0
    assert ended.retries == ("tiles of 64 px: done",)
    assert world.board.current() is None
    assert world.board.of_job("job") == (ended,)
    assert world.board.of_job("another") == ()


def test_a_plan_without_a_prediction_of_its_own_keeps_the_plans(world):
    world.begin().planned(PLAN)
    assert world.told[-1].summary.predicted_bytes == 1000


def test_parts_are_told_at_most_ten_times_a_second_and_none_is_lost(world):
    watch = world.begin()
    watch.planned(PLAN)
    for row in range(100):
        world.later(0.01)
        watch.advanced()
        watch.finished(0, 5, (0, 10 * row, 64, 10 * row + 5))
    assert 10 <= len(world.told) <= 12
    watch.ended("done")
    told = [rect for each in world.told for rect in each.finished]
    assert told == [(0, 5, 0, 10 * row, 64, 10 * row + 5) for row in range(100)]
    assert world.told[-2].done in range(90, 101)


def test_what_left_before_the_first_part_does_not_count_as_held(world):
    watch = world.begin()
    world.used["cuda:0"] = 450
    watch.planned(PLAN)
    assert world.told[-1].summary.held_bytes == 450, "by the sample before it"
    world.later(0.1)
    world.board.sampled("cpu", 7)
    world.board.sampled("cuda:0", 200)
    assert world.told[-1].summary.held_bytes == 200
    world.later(0.1)
    world.board.sampled("cuda:0", 900)
    watch.advanced()
    assert world.told[-1].summary.held_bytes == 200, "from then on it is the decode's"


def test_a_card_that_does_not_tell_its_use_tells_none_of_a_decode(world):
    del world.used["cuda:0"]
    watch = world.begin()
    watch.planned(PLAN)
    world.later(0.1)
    world.board.sampled("cuda:0", None)
    watch.advanced()
    assert world.told[-1].summary.held_bytes is None


def test_what_was_held_back_is_told_without_a_further_change(world):
    watch = world.begin()
    watch.planned(PLAN)
    watch.advanced()
    watch.finished(0, 5, (0, 0, 64, 16))
    world.board.sampled("cpu", 1)
    assert len(world.told) == 1, "not before its time"
    world.later(0.1)
    world.board.sampled("cpu", 1)
    world.board.sampled("cpu", 1)
    assert [(each.done, each.finished) for each in world.told[1:]] == [(1, ((0, 5, 0, 0, 64, 16),))]
    watch.ended("done")
    world.later(1.0)
    world.board.sampled("cpu", 1)
    assert world.told[-1].summary.outcome == "done"


def test_a_snapshot_has_all_that_is_final(world):
    watch = world.begin()
    watch.finished(0, 1, (0, 0, 8, 8))
    world.later(1.0)
    watch.finished(0, 1, (20, 20, 28, 28))
    world.later(1.0)
    watch.finished(1, 1, (0, 0, 8, 8))
    assert world.board.current().finished == (
        (0, 1, 0, 0, 8, 8),
        (0, 1, 20, 20, 28, 28),
        (1, 1, 0, 0, 8, 8),
    )


@pytest.mark.parametrize(
    ("sentence", "second", "joined"),
    [
        ("below", (0, 8, 8, 16), [(0, 1, 0, 0, 8, 16)]),
        ("to the right", (8, 0, 16, 8), [(0, 1, 0, 0, 16, 8)]),
        ("below, but wider", (0, 8, 9, 16), [(0, 1, 0, 0, 8, 8), (0, 1, 0, 8, 9, 16)]),
        ("elsewhere", (9, 9, 16, 16), [(0, 1, 0, 0, 8, 8), (0, 1, 9, 9, 16, 16)]),
    ],
)
def test_what_lies_beside_the_last_one_joins_it(world, sentence, second, joined):
    watch = world.begin()
    watch.finished(0, 1, (0, 0, 8, 8))
    watch.finished(0, 1, second)
    assert list(world.board.current().finished) == joined, sentence


def test_a_snapshot_is_bounded(world):
    watch = world.begin()
    for place in range(MOST_RECTANGLES + 10):
        watch.finished(place, 1, (0, 0, 8, 8))
    assert len(world.board.current().finished) == MOST_RECTANGLES


def test_another_plan_begins_to_count_anew(world):
    watch = world.begin()
    watch.planned(PLAN)
    watch.advanced()
    watch.said("tile 2 ran out of memory")
    watch.planned(Plan("cpu", 9, "on the CPU", 0, True))
    now = world.board.current()
    assert (now.steps, now.done, now.summary.kind) == (9, 0, "cpu")
    assert now.summary.retries == ("tile 2 ran out of memory",)


def test_what_is_no_longer_planned_shows_no_plan(world):
    watch = world.begin()
    watch.planned(PLAN)
    watch.planned(None)
    now = world.board.current()
    assert (now.steps, now.summary.kind, now.summary.plan) == (None, None, None)
    assert now.summary.predicted_bytes is None


@pytest.mark.parametrize(("outcome", "done"), [("done", 4), ("failed", 1), ("interrupted", 1)])
def test_what_is_done_has_no_steps_left(world, outcome, done):
    watch = world.begin()
    watch.planned(PLAN)
    watch.advanced()
    watch.ended(outcome)
    assert world.told[-1].done == done


def test_what_comes_after_the_end_is_ignored(world):
    watch = world.begin()
    watch.ended("failed")
    told = len(world.told)
    world.later(1.0)
    watch.advanced()
    watch.ended("done")
    assert len(world.told) == told
    assert [each.outcome for each in world.board.of_job("job")] == ["failed"]


def test_of_two_at_once_the_later_one_shows(world):
    first, second = world.begin(), world.begin(None)
    assert world.board.current().number == 2
    second.ended("done")
    assert world.board.current().number == 1
    first.ended("done")
