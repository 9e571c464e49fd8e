"""The watch in a host: which job a warning belongs to, and what plans leave free."""

import logging
from types import SimpleNamespace

from vram_supervisor.nodes.host.spilling import SpillWatch
from vram_supervisor.supervisor.types import DeviceInfo, JobPosition, Reading, Sample
from vram_supervisor.supervisor.units import GiB, MiB

CARD = DeviceInfo("cuda:0", "cuda", total_bytes=12 * GiB)


class Host:
    """A card that is full, and a node that does a step a second until it crawls."""

    def __init__(self, system="Windows"):
        self.position, self.step, self.now_s = JobPosition("job 1", "3", "KSampler"), 0, 0.0
        self.jobs = SimpleNamespace(position=lambda: self.position)
        self.watch = SpillWatch(self, lambda device: None, lambda node: self.step, system)
        self.reserved_bytes = 10 * GiB

    def latest(self):
        reading = Reading(
            total_bytes=12 * GiB,
            used_bytes=12 * GiB - MiB,
            torch_reserved_bytes=self.reserved_bytes,
        )
        return {CARD.key: Sample(self.now_s, self.now_s, CARD, reading)}

    def primary_device(self):
        return CARD.key

    def second(self, steps=1):
        self.now_s += 1.0
        self.step += steps
        self.watch.look()


def crawled(system="Windows"):
    host = Host(system)
    for _ in range(8):
        host.second()
    for _ in range(5):
        host.second(steps=0)
    return host


def test_a_crawl_is_told_of_once_with_its_job(caplog):
    with caplog.at_level(logging.WARNING):
        host = crawled()
    (text,) = host.watch.warnings("job 1")
    assert "times as long" in text
    assert host.watch.warnings("job 2") == []
    assert host.watch.warnings() == [text]
    assert [record.message for record in caplog.records] == [text]


def test_memory_that_is_not_on_the_card_is_told_of_between_steps_too():
    host = Host()
    host.position, host.reserved_bytes = JobPosition(), 13 * GiB
    host.second()
    assert "1.0 GiB" in host.watch.warnings()[0]


def test_where_drivers_fail_instead_nothing_is_watched_and_nothing_left_free():
    host = crawled("Linux")
    assert host.watch.warnings() == []
    assert host.watch.margin_bytes(12 * GiB) == 0


def test_plans_leave_more_free_once_it_happened():
    before, after = Host().watch, crawled().watch
    assert after.margin_bytes(24 * GiB) == 2 * before.margin_bytes(24 * GiB) > 0


def test_the_same_sample_counts_once():
    host = Host()
    host.second()
    host.step += 7
    host.watch.look()
    assert host.watch.detector.steps.last_s() is None
