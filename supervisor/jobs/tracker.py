"""Which job and which node run, as the host reports them.

Hosts report from several threads, late, twice or not at all, so nothing here is an error:
what makes no sense is ignored, and a job that is still open when the next one starts ends as
interrupted.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from ..types import JobChange, JobPosition, JobRecord, NodeRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, TypeAlias

    from ..ports import Clock
    from ..types import DecodeSummary, JobStatus, Peak

    _Phase: TypeAlias = Literal["start", "node", "end"]

REMEMBERED_JOBS: Final = 256
REMEMBERED_NODES: Final = 4096
"""Node runs kept per job; a job that loops further keeps its newest ones."""

_NO_POSITION: Final = JobPosition()


class Watch(Protocol):
    """A stretch of work being watched."""

    def end(self) -> tuple[Peak, ...]:
        """Stop watching and give the peaks."""
        ...


class PeakKeeper(Protocol):
    """Whatever measures peaks; ``PeakBook`` does."""

    def watch(self) -> Watch:
        """Begin to watch a stretch of work."""
        ...


@dataclass(slots=True)
class _RunningNode:
    node_id: str
    node_type: str | None
    started_s: float
    watch: Watch

    def record(self, ended_s: float | None, peaks: tuple[Peak, ...] = ()) -> NodeRecord:
        return NodeRecord(self.node_id, self.node_type, self.started_s, ended_s, peaks)


@dataclass(slots=True)
class _RunningJob:
    job_id: str
    started_s: float
    watch: Watch
    running: dict[str, _RunningNode] = field(default_factory=dict[str, _RunningNode])
    """By node id, in the order they were entered."""
    finished: deque[NodeRecord] = field(default_factory=lambda: deque(maxlen=REMEMBERED_NODES))

    def position(self) -> JobPosition:
        if not self.running:
            return JobPosition(self.job_id)
        node = self.running[next(reversed(self.running))]
        return JobPosition(self.job_id, node.node_id, node.node_type)

    def record(self) -> JobRecord:
        running = tuple(node.record(None) for node in self.running.values())
        return JobRecord(self.job_id, self.started_s, nodes=(*self.finished, *running))


def _none(_job_id: str) -> tuple[DecodeSummary, ...]:
    """Where decodes are not followed."""
    return ()


class JobTracker:
    """Follows one job at a time. Every method may be called on any thread.

    ``listener`` is told of each change on the thread that reported it, in order, and must
    neither block nor call back into the tracker's reporting methods. ``decodes_of`` gives the
    decodes of a job that ends.

    Two locks, taken in this order: ``_reports`` lets one report through at a time and may be
    held while peaks are read; ``_state`` guards the records and is never held for long, so
    the reading methods are safe on an event loop.
    """

    def __init__(
        self,
        clock: Clock,
        listener: Callable[[JobChange], None],
        peaks: PeakKeeper,
        decodes_of: Callable[[str], tuple[DecodeSummary, ...]] = _none,
    ) -> None:
        self._clock = clock
        self._decodes_of = decodes_of
        self._listener = listener
        self._peaks = peaks
        self._reports = threading.RLock()
        self._state = threading.Lock()
        self._job: _RunningJob | None = None
        self._position = _NO_POSITION
        self._recent: deque[JobRecord] = deque(maxlen=REMEMBERED_JOBS)

    def position(self) -> JobPosition:
        """The job and the latest entered node that still runs; all None between jobs."""
        return self._position

    def current(self) -> JobRecord | None:
        """The running job so far, its open nodes without peaks; None between jobs."""
        with self._state:
            return None if self._job is None else self._job.record()

    def recent(self, limit: int) -> list[JobRecord]:
        """Finished jobs, newest first."""
        with self._state:
            newest_first = list(reversed(self._recent))
        return newest_first[: max(0, limit)]

    def start_job(self, job_id: str) -> None:
        """A job begins. Told again of the running job, nothing changes."""
        with self._reports:
            if self._job is not None:
                if self._job.job_id == job_id:
                    return
                self.end_job("interrupted")
            job = _RunningJob(job_id, self._clock.time_s(), self._peaks.watch())
            with self._state:
                self._job = job
            self._announce("start")

    def enter_node(self, node_id: str, node_type: str | None = None) -> None:
        """A node of the running job begins; ignored between jobs or if it runs already."""
        with self._reports:
            job = self._job
            if job is None or node_id in job.running:
                return
            node = _RunningNode(node_id, node_type, self._clock.time_s(), self._peaks.watch())
            with self._state:
                job.running[node_id] = node
            self._announce("node")

    def leave_node(self, node_id: str) -> None:
        """A node of the running job ends; ignored if it is not known to run."""
        with self._reports:
            job = self._job
            if job is None or node_id not in job.running:
                return
            self._finish_node(job, node_id)
            self._announce("node")

    def end_job(self, status: JobStatus) -> None:
        """The running job ends, and with it its nodes; ignored between jobs."""
        with self._reports:
            job = self._job
            if job is None:
                return
            for node_id in list(job.running):
                self._finish_node(job, node_id)
            record = JobRecord(
                job_id=job.job_id,
                started_s=job.started_s,
                ended_s=self._clock.time_s(),
                status=status,
                nodes=tuple(job.finished),
                peaks=job.watch.end(),
                decodes=self._decodes_of(job.job_id),
            )
            with self._state:
                self._job = None
                self._recent.append(record)
            self._announce("end", record)

    def _finish_node(self, job: _RunningJob, node_id: str) -> None:
        node = job.running[node_id]
        record = node.record(self._clock.time_s(), node.watch.end())
        with self._state:
            del job.running[node_id]
            job.finished.append(record)

    def _announce(self, phase: _Phase, record: JobRecord | None = None) -> None:
        """Tell the listener while no other report can come between."""
        self._position = _NO_POSITION if self._job is None else self._job.position()
        where = self._position if record is None else JobPosition(record.job_id)
        self._listener(JobChange(self._clock.time_s(), phase, where, record))
