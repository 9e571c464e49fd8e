"""The feed follows a scripted host: its notices, its queue and its progress registry."""

import asyncio

import pytest

from vram_supervisor.nodes.host.jobs import PATIENCE_POLLS, JobFeed
from vram_supervisor.nodes.host.queue import status_from
from vram_supervisor.supervisor.types import JobPosition

SUCCESS = {"status_str": "success", "completed": True, "messages": [["execution_success", {}]]}
ERROR = {"status_str": "error", "completed": False, "messages": [["execution_error", {}]]}
INTERRUPTED = {
    "status_str": "error",
    "completed": False,
    "messages": [["execution_start", {}], ["execution_interrupted", {}]],
}


class Tracker:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []
        self.nodes = []

    def start_job(self, job_id):
        self.told.append(("start", job_id))

    def enter_node(self, node_id, node_type):
        self.nodes.append(node_id)
        self.told.append(("enter", node_id, node_type))

    def leave_node(self, node_id):
        if node_id in self.nodes:
            self.nodes.remove(node_id)
            self.told.append(("leave", node_id))

    def end_job(self, status):
        self.nodes.clear()
        self.told.append(("end", status))

    def position(self):
        return JobPosition("job", self.nodes[-1] if self.nodes else None)


class Host:
    """A queue and a progress registry that do as the test says."""

    def __init__(self):
        self.items = []
        self.history = {}
        self.registry = ""
        self.nodes = {}
        self.listeners = []

    def get_current_queue_volatile(self):
        return list(self.items), []

    def get_history(self, prompt_id=None, *, map_function):
        if prompt_id not in self.history:
            return {}
        return {prompt_id: map_function({"status": self.history[prompt_id]})}

    def prompt_id(self):
        return self.registry

    def running(self):
        return dict(self.nodes)

    def listen(self, entered, left):
        self.listeners.append((entered, left))

    def begin(self, prompt_id):
        self.items = [(0, prompt_id, {"1": {"class_type": "A", "inputs": {}}}, {}, ["1"], {})]
        self.registry = prompt_id

    def finish(self, prompt_id, status):
        self.items = []
        self.history[prompt_id] = status


class World:
    def __init__(self, *, follow):
        self.host, self.tracker = Host(), Tracker()
        self.settings = []
        self.feed = JobFeed(
            self.tracker,
            self.host,
            self.host,
            started=lambda prompt: self.settings.append(prompt and prompt.prompt_id),
            ended=lambda: self.settings.append("restored"),
            follow_queue=follow,
        )


@pytest.fixture
def told():
    """A host that reports starts and ends."""
    return World(follow=False)


@pytest.fixture
def polled():
    """A host that can only be watched."""
    return World(follow=True)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(SUCCESS, "success"), (ERROR, "error"), (INTERRUPTED, "interrupted"), (None, "success")],
)
def test_a_job_ends_with_the_status_of_the_queues_history(told, status, outcome):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.feed.prompt_ended("a")
    assert told.settings == ["a", "restored"], "settings go back before the status is known"
    told.feed.poll()
    assert ("end", outcome) not in told.tracker.told
    told.host.finish("a", status)
    told.feed.poll()
    assert told.tracker.told == [("start", "a"), ("end", outcome)]


def test_the_next_start_settles_the_job_before(told):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.feed.prompt_ended("a")
    told.host.finish("a", ERROR)
    told.host.begin("b")
    told.feed.prompt_started("b")
    assert told.tracker.told == [("start", "a"), ("end", "error"), ("start", "b")]


def test_a_history_that_was_wiped_is_not_waited_for_forever(told):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.feed.prompt_ended("a")
    for _ in range(PATIENCE_POLLS):
        told.feed.poll()
    assert told.tracker.told[-1] == ("end", "success")


def test_with_a_node_still_open_and_no_history_the_job_counts_as_failed(told):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.feed.listen()
    entered, _left = told.host.listeners[0]
    entered("1", "A")
    told.feed.prompt_ended("a")
    for _ in range(PATIENCE_POLLS):
        told.feed.poll()
    assert told.tracker.told[-1] == ("end", "error")


def test_the_feed_listens_once_and_only_to_its_own_prompt(told):
    told.host.begin("a")
    told.host.registry = "the prompt before"
    told.feed.prompt_started("a")
    told.feed.listen()
    assert told.host.listeners == []
    told.host.registry = "a"
    told.feed.listen()
    told.feed.listen()
    assert len(told.host.listeners) == 1


def test_the_executors_loop_calls_back_after_the_registry_was_rebuilt(told):
    async def execute():
        told.host.items = [(0, "a", {}, {}, [], {})]
        told.feed.prompt_started("a")
        assert told.host.listeners == []
        told.host.registry = "a"
        await asyncio.gather(asyncio.sleep(0))

    asyncio.run(execute())
    assert len(told.host.listeners) == 1


def test_nodes_are_polled_while_nobody_listens_and_not_afterwards(told):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.host.nodes = {"1": "A"}
    told.feed.poll()
    told.feed.poll()
    told.host.nodes = {"2": "B"}
    told.feed.poll()
    assert told.tracker.told == [
        ("start", "a"), ("enter", "1", "A"), ("leave", "1"), ("enter", "2", "B"),
    ]  # fmt: skip
    told.feed.listen()
    told.host.nodes = {"3": "C"}
    told.feed.poll()
    assert ("enter", "3", "C") not in told.tracker.told


def test_a_polled_host_is_followed_from_start_to_end(polled):
    polled.feed.poll()
    polled.host.begin("a")
    polled.feed.poll()
    polled.host.nodes = {"1": "A"}
    polled.feed.poll()
    polled.host.nodes = {}
    polled.host.finish("a", SUCCESS)
    polled.feed.poll()
    assert polled.tracker.told == [("start", "a"), ("enter", "1", "A"), ("end", "success")]
    assert polled.settings[-2:] == ["a", "restored"]


def test_a_polled_host_that_goes_straight_to_the_next_job(polled):
    polled.host.begin("a")
    polled.feed.poll()
    polled.host.finish("a", INTERRUPTED)
    polled.host.begin("b")
    polled.feed.poll()
    assert polled.tracker.told == [("start", "a"), ("end", "interrupted"), ("start", "b")]


def test_settings_of_a_job_too_short_to_be_seen_go_back_all_the_same(polled):
    polled.feed.poll()
    assert polled.settings == ["restored"]


def test_an_end_of_another_prompt_changes_nothing(told):
    told.host.begin("a")
    told.feed.prompt_started("a")
    told.feed.prompt_ended("z")
    assert told.settings == ["a"]


@pytest.mark.parametrize(
    ("sentence", "status", "expected"),
    [
        ("messages may be missing", {"status_str": "success"}, "success"),
        ("an unknown word is no success", {"status_str": "odd", "messages": []}, "error"),
        ("no status at all is an old host's success", None, "success"),
    ],
)
def test_odd_history_entries(sentence, status, expected):
    assert status_from(status) == expected, sentence
