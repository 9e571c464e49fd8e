"""Work between jobs: when it is done, when it stops, and what it leaves alone."""

import gc
import threading

import pytest

from vram_supervisor.nodes.host.idle import IdleWorker

PATIENCE_S = 60.0


class Owner:
    """What work is done for."""


class Interrupted(BaseException):
    """The user's wish to end the running job."""


@pytest.fixture
def given_back():
    return []


@pytest.fixture
def worker(given_back):
    made = IdleWorker(lambda p: isinstance(p, Interrupted), lambda: given_back.append(True))
    yield made
    made.close()


class Work:
    """Checks until it is let go or stopped, and says how far it came."""

    def __init__(self):
        self.begun, self.stopped = threading.Event(), threading.Event()
        self.let_go = threading.Event()
        self.ends = []

    def __call__(self, owner, check):
        self.begun.set()
        try:
            while not self.let_go.is_set():
                check()
        except BaseException:
            self.ends.append("stopped")
            self.begun.clear()
            self.stopped.set()
            raise
        self.ends.append("done")


def test_work_is_done_at_once_where_no_job_runs(worker):
    owner, done = Owner(), []
    worker.later(owner, "a", lambda owner, check: done.append(owner))
    assert worker.wait_until_done(PATIENCE_S)
    assert done == [owner]


def test_work_waits_for_the_end_of_the_job(worker):
    owner, done = Owner(), []
    worker.job_started()
    worker.later(owner, "a", lambda owner, check: done.append("a"))
    assert not worker.wait_until_done(0)
    assert done == []
    worker.job_ended()
    assert worker.wait_until_done(PATIENCE_S)
    assert done == ["a"]


def test_a_job_that_starts_stops_the_work_in_hand_which_is_done_again_afterwards(worker):
    owner, work = Owner(), Work()
    worker.later(owner, "a", work)
    assert work.begun.wait(PATIENCE_S)
    worker.job_started()
    assert work.stopped.wait(PATIENCE_S)
    work.let_go.set()
    worker.job_ended()
    assert worker.wait_until_done(PATIENCE_S)
    assert work.ends == ["stopped", "done"]


def test_of_one_key_only_one_waits(worker):
    owner, done = Owner(), []
    worker.job_started()
    for number in range(3):
        worker.later(owner, "same", lambda owner, check, number=number: done.append(number))
    worker.job_ended()
    assert worker.wait_until_done(PATIENCE_S)
    assert done == [0]


def test_work_whose_vae_is_gone_is_forgotten(worker):
    owner, done = Owner(), []
    worker.job_started()
    worker.later(owner, "a", lambda owner, check: done.append("a"))
    del owner
    gc.collect()
    worker.job_ended()
    assert worker.wait_until_done(PATIENCE_S)
    assert done == []


def test_an_interrupt_that_work_swallowed_is_given_back_and_the_thread_lives(worker, given_back):
    owner, done = Owner(), []

    def swallows(owner, check):
        raise Interrupted

    worker.later(owner, "a", swallows)
    worker.later(owner, "b", lambda owner, check: done.append("b"))
    assert worker.wait_until_done(PATIENCE_S)
    assert given_back == [True]
    assert done == ["b"]


def test_an_interrupt_meant_for_a_starting_job_only_puts_the_work_off(worker, given_back):
    owner, tries = Owner(), []

    def hit_by_interrupt(owner, check):
        tries.append("a")
        if len(tries) == 1:
            worker.job_started()
            raise Interrupted

    worker.later(owner, "a", hit_by_interrupt)
    assert not worker.wait_until_done(0)
    while not given_back:
        assert not worker.wait_until_done(0)
    worker.job_ended()
    assert worker.wait_until_done(PATIENCE_S)
    assert tries == ["a", "a"]
    assert given_back == [True]


def test_work_that_fails_is_given_up_and_the_next_is_done(worker):
    owner, done = Owner(), []

    def fails(owner, check):
        done.append("failed")
        raise ValueError

    worker.later(owner, "a", fails)
    worker.later(owner, "b", lambda owner, check: done.append("b"))
    assert worker.wait_until_done(PATIENCE_S)
    assert done == ["failed", "b"]


def test_closing_stops_what_is_in_hand_and_takes_nothing_more(worker):
    owner, work = Owner(), Work()
    worker.later(owner, "a", work)
    assert work.begun.wait(PATIENCE_S)
    worker.close()
    assert work.stopped.wait(PATIENCE_S)
    worker.later(owner, "b", work)
    assert worker.wait_until_done(PATIENCE_S)
    assert work.ends == ["stopped"]
