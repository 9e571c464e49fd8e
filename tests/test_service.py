"""The supervisor as a whole, with scripted instruments."""

import gc
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from support.clock import EPOCH_S, StillClock
from support.instruments import CPU, CUDA, FakeCounter, ScriptedProbe, StuckProbe, make_sample

from vram_supervisor.supervisor.errors import StreamLimitReachedError, SupervisorStoppedError
from vram_supervisor.supervisor.service import Supervisor, build_supervisor
from vram_supervisor.supervisor.telemetry.history import MemoryHistory
from vram_supervisor.supervisor.types import DeviceInfo, Event, JobRecord, Reading, Sample

PATIENCE_S = 60


def nothing():
    pass


def make(probes=None, history=None, **options):
    return Supervisor(
        probes=[ScriptedProbe(CUDA), ScriptedProbe(CPU)] if probes is None else probes,
        history=history or MemoryHistory(),
        counter=FakeCounter(),
        **options,
    )


@contextmanager
def started(supervisor):
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


class Follower:
    """Reads a stream until something has come."""

    def __init__(self, supervisor, last_event_id=None):
        self._arrived = threading.Semaphore(0)
        self.events = []
        self.subscription = supervisor.open_stream(last_event_id, self._arrived.release)

    def until(self, wanted):
        while True:
            self.events += self.subscription.take(100)[0]
            if any(wanted(event) for event in self.events):
                return self.events
            assert self._arrived.acquire(timeout=PATIENCE_S), "nothing came any more"


def test_samples_of_every_device_reach_a_stream_and_the_latest_figures():
    with started(make()) as supervisor:
        follower = Follower(supervisor)
        for device in (CUDA, CPU):
            follower.until(lambda event, device=device: event.payload.device == device)
        assert set(supervisor.latest()) == {"cuda:0", "cpu"}
        assert supervisor.recent_samples("cpu", 1)[0].device == CPU
        follower.subscription.close()


def test_a_job_shows_up_on_samples_in_events_and_in_the_history():
    history = MemoryHistory()
    readings = [Reading(used_bytes=number, torch_allocated_bytes=number) for number in range(1, 99)]
    with started(make([ScriptedProbe(CUDA, readings)], history)) as supervisor:
        follower = Follower(supervisor)
        supervisor.jobs.start_job("a")
        supervisor.jobs.enter_node("3", "KSampler")
        follower.until(
            lambda event: event.kind == "telemetry" and event.payload.position.node_id == "3"
        )
        supervisor.jobs.end_job("success")
        events = follower.until(lambda event: event.kind == "job" and event.payload.phase == "end")
    phases = [event.payload.phase for event in events if event.kind == "job"]
    assert phases == ["start", "node", "end"]
    (record,) = history.jobs(10)
    assert (record.job_id, record.nodes[0].node_type) == ("a", "KSampler")
    assert record.nodes[0].peaks[0].used_bytes > 0


def test_stopping_writes_what_was_queued():
    """The store is slow: the job's thread does not wait for it, stop does."""
    writing, go_on = threading.Event(), threading.Event()

    class SlowHistory(MemoryHistory):
        closed = False

        def add(self, record):
            writing.set()
            assert go_on.wait(PATIENCE_S)
            super().add(record)

        def close(self):
            self.closed = True

    history = SlowHistory()
    supervisor = make(history=history)
    supervisor.start()
    for job_id in "abc":
        supervisor.jobs.start_job(job_id)
        supervisor.jobs.end_job("success")
    assert writing.wait(PATIENCE_S)
    assert supervisor.jobs.recent(1)[0].job_id == "c", "reporting did not wait for the disk"
    assert history.jobs(10) == []
    go_on.set()
    supervisor.stop()
    assert [record.job_id for record in history.jobs(10)] == ["c", "b", "a"]
    assert history.closed


def test_a_supervisor_that_never_ran_still_keeps_its_jobs():
    history = MemoryHistory()
    supervisor = make(history=history)
    supervisor.jobs.start_job("a")
    supervisor.jobs.end_job("success")
    supervisor.stop()
    assert [record.job_id for record in history.jobs(10)] == ["a"]


def test_starting_twice_is_starting_once_and_stopping_is_final():
    probes = [ScriptedProbe(CPU)]
    supervisor = make(probes)
    assert not supervisor.running
    supervisor.start()
    supervisor.start()
    assert supervisor.running
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("vram-supervisor") == 1
    supervisor.stop()
    supervisor.stop()
    assert not supervisor.running
    assert probes[0].closed == 1
    with pytest.raises(SupervisorStoppedError):
        supervisor.start()


def test_every_thread_is_a_daemon():
    """ComfyUI ends without telling: no thread of ours may keep the process alive."""
    before = set(threading.enumerate())
    with started(make()) as supervisor:
        follower = Follower(supervisor)
        follower.until(lambda event: event.kind == "telemetry")
        ours = set(threading.enumerate()) - before
        assert ours
        assert all(thread.daemon for thread in ours), ours


def test_a_driver_that_hangs_does_not_hang_the_stop(caplog):
    stuck = StuckProbe(CUDA)
    supervisor = make([stuck, ScriptedProbe(CPU)])
    try:
        supervisor.start()
        assert stuck.entered.wait(PATIENCE_S)
        supervisor.stop(timeout_s=0.2)
        assert not supervisor.running
        assert stuck.closed == 0
        assert "left open" in caplog.text
    finally:
        stuck.release.set()


def test_streams_are_counted_and_limited():
    supervisor = make(stream_limit=2)
    first, _ = supervisor.open_stream(None, nothing), supervisor.open_stream(None, nothing)
    with pytest.raises(StreamLimitReachedError) as caught:
        supervisor.open_stream(None, nothing)
    assert (caught.value.limit, caught.value.retry_after_s > 0) == (2, True)
    first.close()
    first.close()
    supervisor.open_stream(None, nothing)
    assert supervisor.health()["streams"] == 2


RATES = [
    # (what happens, samples a second, why)
    ([], 1.0, "idle"),
    (["open"], 10.0, "somebody watches"),
    (["open", "close"], 1.0, "nobody watches any more"),
    (["job"], 10.0, "a job runs"),
    (["job", "end"], 1.0, "the job is over"),
    (["open", "job", "end"], 10.0, "the job is over and somebody still watches"),
]


@pytest.mark.parametrize(("steps", "rate_hz", "why"), RATES)
def test_the_rate_follows_what_goes_on(steps, rate_hz, why):
    supervisor = make()
    streams = []
    acts = {
        "open": lambda: streams.append(supervisor.open_stream(None, nothing)),
        "close": lambda: streams.pop().close(),
        "job": lambda: supervisor.jobs.start_job("a"),
        "end": lambda: supervisor.jobs.end_job("success"),
    }
    for step in steps:
        acts[step]()
    assert supervisor.health()["rate_hz"] == rate_hz, why


PRIMARY = [
    # (device keys, primary, why)
    (["cpu"], "cpu", "nothing else"),
    (["cuda:0", "cuda:1", "cpu"], "cuda:0", "the first GPU"),
    (["mps", "cpu"], "mps", "whatever computes"),
    (["nvml:0", "cpu"], "cpu", "a GPU that torch cannot compute on is only watched"),
]


@pytest.mark.parametrize(("keys", "expected", "why"), PRIMARY)
def test_the_primary_device(keys, expected, why):
    devices = [DeviceInfo(key, "cpu" if key == "cpu" else "cuda") for key in keys]
    assert make([ScriptedProbe(device) for device in devices]).primary_device() == expected, why


def test_health_names_what_is_wrong():
    supervisor = make(history=MemoryHistory(problem="the disk is full"))
    supervisor.record(make_sample(error="GPU is lost"))
    supervisor.record(make_sample(device=CPU))
    health = supervisor.health()
    assert health["history_problem"] == "the disk is full"
    assert health["probe_errors"] == {"cuda:0": "GPU is lost"}
    assert health["running"] is False


def test_the_hosts_poll_runs_after_each_sample_and_never_twice_at_once():
    polls, inside, go_on = [], threading.Event(), threading.Event()

    def poll():
        polls.append(threading.current_thread().name)
        inside.set()
        assert go_on.wait(PATIENCE_S)

    supervisor = make(on_sample=poll)
    slow = threading.Thread(target=supervisor.record, args=(make_sample(),), name="slow")
    slow.start()
    assert inside.wait(PATIENCE_S)
    supervisor.record(make_sample(device=CPU))
    assert polls == ["slow"], "the second sample did not poll again, nor wait"
    go_on.set()
    slow.join()
    supervisor.record(make_sample())
    assert len(polls) == 2


def test_an_old_sample_does_not_replace_a_newer_one():
    supervisor = make()
    supervisor.record(make_sample(2.0, used_bytes=2))
    supervisor.record(make_sample(1.0, used_bytes=1))
    assert supervisor.latest()["cuda:0"].reading.used_bytes == 2


def count_objects():
    gc.collect()
    kinds = (Sample, Event, JobRecord)
    return sum(type(each) in kinds for each in gc.get_objects())


def test_a_day_of_samples_and_jobs_holds_no_more_than_half_a_day():
    clock = StillClock()
    supervisor = make(history=MemoryHistory(8), clock=clock, ring_capacity=512)
    supervisor.open_stream(None, nothing)
    held = {}
    for second in range(24 * 3600):
        clock.now_s = float(second)
        if second % 60 == 0:
            supervisor.jobs.start_job(str(second))
            supervisor.jobs.enter_node("1", "Node")
        supervisor.record(replace(make_sample(clock.now_s, used_bytes=second), time_s=EPOCH_S))
        if second % 60 == 50:
            supervisor.jobs.end_job("success")
        if second + 1 in {12 * 3600, 24 * 3600}:
            held[second + 1] = count_objects()
    assert held[24 * 3600] == held[12 * 3600]
    assert supervisor.peaks.open_watches == 0
    supervisor.stop()


def test_the_standard_supervisor_runs_here(tmp_path):
    path = tmp_path / "user" / "history.sqlite"
    with started(build_supervisor(path)) as supervisor:
        assert supervisor.devices[-1].key == "cpu"
        follower = Follower(supervisor)
        events = follower.until(
            lambda event: event.kind == "telemetry" and event.payload.device.key == "cpu"
        )
        reading = next(e for e in events if e.payload.device.key == "cpu").payload.reading
        assert 0 < reading.process_bytes < reading.total_bytes
        assert reading.error is None
        supervisor.jobs.start_job("a")
        supervisor.jobs.end_job("success")
    assert path.is_file()
    assert [record.job_id for record in supervisor.history.jobs(10)] == ["a"]
    supervisor.history.close()
