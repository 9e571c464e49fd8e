"""The sampler's rate, order and independence, on a clock the test moves."""

import asyncio
import threading
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from support.clock import EPOCH_S, FakeClock
from support.instruments import CPU, CUDA, FixedPosition, ScriptedProbe, StuckProbe

from vram_supervisor.supervisor.telemetry.sampler import Sampler, latest_due_s
from vram_supervisor.supervisor.types import JobPosition, Reading


class Samples:
    """Collects samples on the worker threads and lets the test wait for their number."""

    def __init__(self):
        self.taken = []
        self._change = anyio.Event()
        self._loop = asyncio.get_running_loop()

    def sink(self, sample):
        """Never waits for the loop: a released probe may deliver after the test has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add, sample)

    def _add(self, sample):
        self.taken.append(sample)
        change, self._change = self._change, anyio.Event()
        change.set()

    async def count(self, number, device=None):
        while len(self.of(device)) < number:
            await self._change.wait()
        return self.of(device)

    def of(self, device=None):
        return [each for each in self.taken if device in {None, each.device}]


class World:
    def __init__(self, probes, secondary=()):
        self.clock = FakeClock()
        self.samples = Samples()
        self.position = FixedPosition()
        self.busy = False
        self.sampler = Sampler(
            probes,
            self.clock,
            self.position,
            self.samples.sink,
            lambda: self.busy,
            secondary=secondary,
            wait=self.clock.wait,
            rest=self.clock.rest,
        )

    async def at_rest(self, sleepers=1):
        """Until so many threads wait for their next moment, and the watch for its own."""
        await self.clock.asleep(sleepers)
        await self.clock.resting()


@asynccontextmanager
async def running(*probes, secondary=()):
    world = World(probes, secondary)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(world.sampler.run)
            try:
                yield world
            finally:
                group.cancel_scope.cancel()


DUE = [
    # (last due, now, interval, newest moment due, why)
    (0.0, 0.1, 0.1, 0.1, "right on time"),
    (0.0, 0.15, 0.1, 0.1, "a little late keeps to the grid"),
    (0.0, 0.75, 0.1, 0.7, "what was missed is skipped"),
    (5.0, 5.05, 0.1, 5.0, "not due yet"),
    (5.0, 4.0, 1.0, 5.0, "a clock that seems to go back changes nothing"),
]


@pytest.mark.parametrize(("due", "now", "interval", "expected", "why"), DUE)
def test_when_a_sample_is_due(due, now, interval, expected, why):
    assert latest_due_s(due, now, interval) == pytest.approx(expected), why


async def test_idle_it_samples_once_a_second():
    probe = ScriptedProbe()
    async with running(probe) as world:
        for number in range(1, 4):
            await world.samples.count(number)
            await world.at_rest()
            assert world.clock.asked_s[-1] == 1.0
            world.clock.advance(1.0)
        assert [each.monotonic_s for each in await world.samples.count(4)] == [0, 1, 2, 3]


async def test_a_rate_that_changes_applies_at_once():
    async with running(ScriptedProbe()) as world:
        await world.samples.count(1)
        await world.at_rest()
        world.clock.advance(0.55)
        world.busy = True
        await anyio.to_thread.run_sync(world.sampler.wake)
        await world.samples.count(2)
        await world.at_rest()
        assert world.clock.asked_s[-1] == 0.05, "busy samples lie on a grid of 0.1 s"
        world.clock.advance(0.05)
        await world.samples.count(3)
        await world.at_rest()
        world.busy = False
        world.clock.advance(0.1)
        await world.at_rest()
        assert world.clock.asked_s[-1] == 0.9, "idle again, a second after the last sample"
        assert len(world.samples.taken) == 3


async def test_another_busy_rate_applies_at_once():
    async with running(ScriptedProbe()) as world:
        world.busy = True
        await world.samples.count(1)
        await world.at_rest()
        await anyio.to_thread.run_sync(world.sampler.set_busy_interval, 0.5)
        await world.at_rest()
        assert world.sampler.interval_s == 0.5
        world.clock.advance(0.5)
        await world.samples.count(2)
        await world.at_rest()
        assert world.clock.asked_s[-1] == 0.5


async def test_busy_a_secondary_device_is_read_every_other_time():
    async with running(ScriptedProbe(CUDA), ScriptedProbe(CPU), secondary=["cpu"]) as world:
        await world.samples.count(1, CUDA)
        await world.at_rest()
        world.busy = True
        waits = len(world.clock.asked_s)
        world.sampler.wake()
        while len(world.clock.asked_s) == waits:
            await anyio.lowlevel.checkpoint()
        for number in range(1, 6):
            await world.samples.count(number, CUDA)
            await world.at_rest()
            world.clock.advance(0.1)
        await world.samples.count(6, CUDA)
        await world.at_rest()
        moments = [each.monotonic_s for each in world.samples.of(CPU)]
        assert moments == pytest.approx([0.0, 0.2, 0.4])


async def test_idle_a_secondary_device_is_read_every_time():
    async with running(ScriptedProbe(CUDA), ScriptedProbe(CPU), secondary=["cpu"]) as world:
        for number in range(1, 4):
            await world.samples.count(number, CUDA)
            await world.at_rest()
            world.clock.advance(1.0)
        assert [each.monotonic_s for each in await world.samples.count(4, CPU)] == [0, 1, 2, 3]


async def test_waking_without_a_change_of_rate_takes_no_sample():
    async with running(ScriptedProbe()) as world:
        await world.samples.count(1)
        await world.at_rest()
        waits = len(world.clock.asked_s)
        world.sampler.wake()
        while len(world.clock.asked_s) == waits:
            await anyio.lowlevel.checkpoint()
        assert len(world.samples.taken) == 1


async def test_a_sample_carries_moment_device_and_position():
    async with running(ScriptedProbe(CUDA, [Reading(used_bytes=5)])) as world:
        world.position.at = JobPosition("job", "3", "KSampler")
        (sample,) = await world.samples.count(1)
        assert (sample.time_s, sample.monotonic_s) == (EPOCH_S, 0.0)
        assert (sample.device, sample.reading.used_bytes) == (CUDA, 5)
        assert sample.position == JobPosition("job", "3", "KSampler")


async def test_a_stuck_driver_is_not_called_again_and_the_others_go_on():
    stuck, healthy = StuckProbe(CUDA), ScriptedProbe(CPU)
    async with running(stuck, healthy) as world:
        try:
            for second in range(1, 4):
                await world.clock.resting()
                world.clock.advance(1.0)
                await world.samples.count(second, CUDA)
                await world.samples.count(second, CPU)
                await world.at_rest()
            unknown = world.samples.of(CUDA)
            assert [each.reading.used_bytes for each in unknown] == [None, None, None]
            assert unknown[-1].reading.error == "the driver has not answered for 3.0 s"
            assert [each.monotonic_s for each in world.samples.of(CPU)] == [1, 2, 3]
            assert stuck.reads == 1
        finally:
            stuck.release.set()
        late, fresh = (await world.samples.count(5, CUDA))[3:]
        assert (late.reading.used_bytes, fresh.reading.used_bytes) == (7, 7)
        await world.at_rest(2)
        assert stuck.reads == 2, "the answer that came late is followed by a new one at once"
        world.clock.advance(1.0)
        await world.samples.count(6, CUDA)
        await world.samples.count(4, CPU)


class SlowProbe(ScriptedProbe):
    """Every read takes a while on the test's clock."""

    clock = None

    def read(self):
        self.clock.now_s = round(self.clock.now_s + 0.2, 6)
        return super().read()


async def test_a_device_that_is_slow_again_is_read_on_a_thread_of_its_own():
    slow, healthy = SlowProbe(CUDA), ScriptedProbe(CPU)
    world = World([slow, healthy])
    slow.clock = world.clock
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(world.sampler.run)
            await world.samples.count(1, CPU)
            await world.at_rest()
            assert len(world.sampler._crews) == 1, "a first slow read may load a library"
            world.clock.advance(1.0)
            await world.samples.count(2, CUDA)
            await world.samples.count(2, CPU)
            await world.at_rest(2)
            assert [crew.probes for crew in world.sampler._crews] == [(slow,), (healthy,)]
            group.cancel_scope.cancel()


async def test_a_slow_listener_is_not_mistaken_for_a_stuck_driver():
    listening, go_on = threading.Event(), threading.Event()
    async with running(ScriptedProbe()) as world:
        deliver = world.samples.sink

        def slow(sample):
            listening.set()
            assert go_on.wait(60)
            deliver(sample)

        world.sampler._sink = slow
        await anyio.to_thread.run_sync(listening.wait)
        await world.clock.resting()
        world.clock.advance(1.0)
        await world.clock.resting()
        go_on.set()
        told = await world.samples.count(2)
        assert [sample.reading.error for sample in told] == [None, None]


class RaisingProbe(ScriptedProbe):
    def read(self):
        super().read()
        raise OSError("the cable is out")


async def test_a_probe_that_raises_gives_a_sample_that_says_so():
    async with running(RaisingProbe(), ScriptedProbe(CPU)) as world:
        await world.samples.count(1, CPU)
        (sample,) = await world.samples.count(1, CUDA)
        assert sample.reading == Reading(error="OSError: the cable is out")
        await world.at_rest()
        world.clock.advance(1.0)
        await world.samples.count(2, CUDA)


async def test_a_listener_that_raises_does_not_end_the_sampling(caplog):
    async with running(ScriptedProbe()) as world:
        deliver = world.samples.sink

        def fussy(sample):
            deliver(sample)
            raise LookupError("not this one")

        world.sampler._sink = fussy
        await world.samples.count(1)
        await world.at_rest()
        world.clock.advance(1.0)
        await world.samples.count(2)
    assert "could not be delivered" in caplog.text


async def test_probes_close_after_the_run_but_a_stuck_one_stays_open():
    stuck, healthy = StuckProbe(CUDA), ScriptedProbe(CPU)
    try:
        async with running(stuck, healthy) as world:
            await anyio.to_thread.run_sync(stuck.entered.wait)
            await world.clock.resting()
            world.clock.advance(1.0)
            await world.samples.count(1, CPU)
        await anyio.to_thread.run_sync(world.sampler._crews[1].thread.join)
        await anyio.to_thread.run_sync(world.sampler.close_probes, 0.0)
        assert (stuck.closed, healthy.closed) == (0, 1)
    finally:
        stuck.release.set()


async def test_a_driver_that_answers_in_time_is_closed_too():
    stuck = StuckProbe(CUDA)
    async with running(stuck) as world:
        await anyio.to_thread.run_sync(stuck.entered.wait)
    stuck.release.set()
    await anyio.to_thread.run_sync(world.sampler.close_probes, 60.0)
    assert stuck.closed == 1


async def test_waking_a_sampler_that_does_not_run_is_harmless():
    World([]).sampler.wake()
