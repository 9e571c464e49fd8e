"""Jobs and nodes as hosts report them: in order, late, twice, or not at all."""

import threading

import pytest
from support.clock import StillClock

from vram_supervisor.supervisor.jobs.tracker import REMEMBERED_JOBS, JobTracker
from vram_supervisor.supervisor.types import JobPosition, Peak


class CountingPeaks:
    """Gives each watch a number; ending it gives that number as its peak."""

    def __init__(self):
        self.begun = 0
        self.open = set()

    def watch(self):
        self.begun += 1
        self.open.add(self.begun)
        return CountingWatch(self, self.begun)


class CountingWatch:
    def __init__(self, book, number):
        self.book, self.number = book, number

    def end(self):
        self.book.open.discard(self.number)
        return (Peak("cuda:0", used_bytes=self.number),)


class World:
    def __init__(self):
        self.clock = StillClock()
        self.peaks = CountingPeaks()
        self.changes = []
        self.tracker = JobTracker(self.clock, self.changes.append, self.peaks)

    def phases(self):
        return [(change.phase, change.position.node_id) for change in self.changes]


@pytest.fixture
def world():
    return World()


def test_a_job_from_start_to_end(world):
    tracker = world.tracker
    tracker.start_job("a")
    world.clock.now_s = 1.0
    tracker.enter_node("3", "KSampler")
    assert tracker.position() == JobPosition("a", "3", "KSampler")
    world.clock.now_s = 4.0
    tracker.leave_node("3")
    assert tracker.position() == JobPosition("a")
    tracker.end_job("success")
    assert tracker.position() == JobPosition()
    (record,) = tracker.recent(10)
    (node,) = record.nodes
    assert (record.job_id, record.status, record.ended_s - record.started_s) == ("a", "success", 4)
    assert (node.node_id, node.node_type, node.ended_s - node.started_s) == ("3", "KSampler", 3)
    assert (record.peaks[0].used_bytes, node.peaks[0].used_bytes) == (1, 2)
    assert world.phases() == [("start", None), ("node", "3"), ("node", None), ("end", None)]
    assert world.changes[-1].record == record
    assert world.changes[-1].position == JobPosition("a")


REPORTS = [
    # (calls, phases announced, job running at the end, why)
    ([("enter_node", "1")], [], None, "a node without a job is ignored"),
    ([("leave_node", "1")], [], None, "so is the end of one"),
    ([("end_job", "success")], [], None, "and the end of no job"),
    ([("start_job", "a"), ("start_job", "a")], ["start"], "a", "a job told twice starts once"),
    (
        [("start_job", "a"), ("enter_node", "1"), ("enter_node", "1")],
        ["start", "node"],
        "a",
        "a node told twice runs once",
    ),
    ([("start_job", "a"), ("leave_node", "9")], ["start"], "a", "an unknown node ends nothing"),
    (
        [("start_job", "a"), ("end_job", "error"), ("end_job", "success")],
        ["start", "end"],
        None,
        "a job ends once",
    ),
    (
        [("start_job", "a"), ("start_job", "b")],
        ["start", "end", "start"],
        "b",
        "a job that never ended gives way to the next",
    ),
]


@pytest.mark.parametrize(("calls", "phases", "running", "why"), REPORTS)
def test_odd_reports(world, calls, phases, running, why):
    for name, argument in calls:
        getattr(world.tracker, name)(argument)
    assert [change.phase for change in world.changes] == phases, why
    assert world.tracker.position().job_id == running, why


def test_a_job_that_gave_way_counts_as_interrupted(world):
    world.tracker.start_job("a")
    world.tracker.enter_node("1", "Slow")
    world.tracker.start_job("b")
    (record,) = world.tracker.recent(10)
    assert (record.job_id, record.status) == ("a", "interrupted")
    assert record.nodes[0].ended_s is not None


def test_the_position_is_the_latest_entered_node_that_still_runs(world):
    tracker = world.tracker
    tracker.start_job("a")
    tracker.enter_node("1", "A")
    tracker.enter_node("2", "B")
    assert tracker.position().node_id == "2"
    tracker.leave_node("1")
    assert tracker.position().node_id == "2"
    tracker.enter_node("3", "C")
    tracker.leave_node("3")
    assert tracker.position().node_id == "2"


def test_a_node_may_run_again(world):
    world.tracker.start_job("a")
    for _ in range(3):
        world.tracker.enter_node("1", "Loop")
        world.tracker.leave_node("1")
    world.tracker.end_job("success")
    assert [node.node_id for node in world.tracker.recent(1)[0].nodes] == ["1", "1", "1"]


def test_ending_a_job_ends_its_nodes_and_every_watch(world):
    world.tracker.start_job("a")
    world.tracker.enter_node("1")
    world.tracker.enter_node("2")
    world.tracker.end_job("error")
    assert [node.ended_s is not None for node in world.tracker.recent(1)[0].nodes] == [True, True]
    assert world.peaks.open == set()


def test_the_running_job_can_be_looked_at(world):
    assert world.tracker.current() is None
    world.tracker.start_job("a")
    world.tracker.enter_node("1", "A")
    world.tracker.leave_node("1")
    world.tracker.enter_node("2", "B")
    current = world.tracker.current()
    assert (current.status, current.ended_s) == ("running", None)
    assert [(node.node_id, node.ended_s is None) for node in current.nodes] == [
        ("1", False),
        ("2", True),
    ]


def test_recent_jobs_are_bounded_and_newest_first(world):
    for number in range(REMEMBERED_JOBS + 9):
        world.tracker.start_job(str(number))
        world.tracker.end_job("success")
    newest = REMEMBERED_JOBS + 8
    assert [record.job_id for record in world.tracker.recent(2)] == [str(newest), str(newest - 1)]
    assert len(world.tracker.recent(10_000)) == REMEMBERED_JOBS
    assert world.tracker.recent(-1) == []


def test_the_figures_can_be_looked_at_while_peaks_are_read():
    """Reading the allocator may wait for its lock; a page that asks must not wait along."""
    reading, go_on = threading.Event(), threading.Event()

    class SlowPeaks(CountingPeaks):
        def watch(self):
            reading.set()
            assert go_on.wait(60)
            return super().watch()

    tracker = JobTracker(StillClock(), lambda change: None, SlowPeaks())
    starter = threading.Thread(target=tracker.start_job, args=("a",))
    starter.start()
    assert reading.wait(60)
    assert (tracker.current(), tracker.recent(1), tracker.position()) == (None, [], JobPosition())
    go_on.set()
    starter.join()
    assert tracker.position().job_id == "a"


def test_many_threads_may_report_at_once(world):
    tracker = world.tracker
    tracker.start_job("a")

    def run(node_id):
        for _ in range(50):
            tracker.enter_node(node_id)
            tracker.leave_node(node_id)

    threads = [threading.Thread(target=run, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tracker.end_job("success")
    assert len(tracker.recent(1)[0].nodes) == 200
    assert world.peaks.open == set()
