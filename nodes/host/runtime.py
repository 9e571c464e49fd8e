"""The process-wide supervisor inside ComfyUI: started once when the pack loads."""

from __future__ import annotations

import atexit
import importlib.metadata
import logging
import os
import platform
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...supervisor.decode.parking import HostPages
from ...supervisor.http.routes import HISTORY_PATH, PROBE_PATH, add_routes
from ...supervisor.planning.calibration_store import FILE_NAME, CalibrationStore
from ...supervisor.planning.families import family_of
from ...supervisor.planning.recommend import recommend
from ...supervisor.service import build_supervisor
from ...supervisor.telemetry.clock import SystemClock
from ...supervisor.types import DecodeContext
from ..profiles import profile_reserve_gb
from .cleanup_route import CLEANUP_PATH, Cleaner, JobGate, add_cleanup_route
from .events import HostProgress, connect, harmless
from .exacts import Exacts
from .forecast import Forecaster
from .headroom import host_headroom, settings_of
from .idle import IdleWorker
from .jobs import JobFeed, Progress
from .memory import HostMemory
from .next_use import NextUses, cache_keeps
from .node_types import HostNodeTypes
from .preferences import PREFERENCES_NAME, PreferenceBook
from .queue import has_work
from .queue_watch import QueueWatch
from .reserves import Reserves, this_system
from .settings import SettingsScope
from .settings_route import add_settings_route
from .spilling import SpillWatch, host_step
from .torch_settings import host_settings
from .traces import Traces
from .wishes import Machine, inputs_of, wishes_of_prompt

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from ...supervisor.planning.types import Recommendation
    from ...supervisor.service import Supervisor
    from ...supervisor.types import DeviceInfo, Reading
    from .queue import PromptQueue, QueuedPrompt

_log = logging.getLogger(__name__)

HISTORY_FILE: Final = Path("vram_supervisor") / "history.sqlite"


class Runtime:
    """What the nodes share: supervisor, memory, settings and the feed that follows jobs."""

    def __init__(
        self,
        supervisor: Supervisor,
        memory: HostMemory,
        scope: SettingsScope,
        forecaster: Forecaster,
        uses: NextUses,
        preferences: PreferenceBook,
    ) -> None:
        self.supervisor = supervisor
        self.memory = memory
        self.scope = scope
        self.forecaster = forecaster
        self.uses = uses
        self.preferences = preferences
        streamed, system = memory.outside_torch_bytes, this_system()
        self.spill = SpillWatch(supervisor, streamed, host_step, system)
        self.reserves = Reserves(
            supervisor, scope, streamed, memory.dynamic, system, margin=self.spill.margin_bytes
        )
        self.gate = JobGate()
        self.before_job: Callable[[], None] = _nothing
        """Called when a job starts, before anything else."""
        self.look_at_queue: Callable[[], None] = _nothing
        """Catches up with a host that reports no starts; does nothing on others."""

    def primary(self) -> DeviceInfo | None:
        """The device jobs compute on, None when none is known."""
        key = self.supervisor.primary_device()
        return next((device for device in self.supervisor.devices if device.key == key), None)

    def reading(self, device: str) -> Reading | None:
        """The latest figures of a device, None before its first sample."""
        sample = self.supervisor.latest().get(device)
        return None if sample is None else sample.reading

    def advice(self, context: DecodeContext | None = None) -> Recommendation:
        """The recommendation for the primary device as it is now."""
        device = self.primary()
        reading = None if device is None else self.reading(device.key)
        ram = self.reading("cpu")
        return recommend(
            context or DecodeContext(),
            device,
            reading,
            os_name=platform.system(),
            host_bytes=None if ram is None else ram.free_bytes,
            times=None if context is None else self.supervisor.times.get(context.family or ""),
        )

    def machine(self) -> Machine:
        """What decides whether a torch switch does anything here."""
        device = self.primary()
        capability = None if device is None else _capability(device.capability)
        kind = "cpu" if device is None else device.kind
        return Machine(kind, capability, frozenset(self.scope.settings))

    def tell_state(self) -> None:
        """Tell pages what is kept free for others, and what a user should know now."""
        kept_bytes, why = self.reserves.in_force()
        self.supervisor.tell_state(
            reserve_bytes=kept_bytes,
            reserve_words=why,
            warnings=tuple(self.spill.warnings(self.supervisor.jobs.position().job_id)),
        )

    def profile_gb(self, profile: str) -> float:
        """The reserve of a profile on this machine, in GiB."""
        return profile_reserve_gb(profile, self.advice())

    def prompt_started(self, prompt: QueuedPrompt | None) -> None:
        """Hold what the prompt's supporter nodes ask for, before any of them runs."""
        self.gate.wait()
        self.forecaster.idle.job_started()
        harmless(self.uses.prompt_started)(prompt)
        self.before_job()
        self.scope.release_all()
        if prompt is None:
            return
        machine = self.machine()
        wishes = wishes_of_prompt(prompt.nodes, prompt.outputs, machine, self.profile_gb)
        for node_id, held in wishes.items():
            self.reserves.hold(job_owner(node_id), inputs_of(prompt.nodes, node_id), held)

    def prompt_ended(self) -> None:
        """Put every setting back; what had to wait for the job goes on."""
        try:
            harmless(self.uses.prompt_ended)()
            self.scope.release_all()
        finally:
            self.forecaster.idle.job_ended()


def _nothing() -> None:
    return None


def job_owner(node_id: str) -> str:
    """Under which name a node holds settings for the rest of its job."""
    return f"job:{node_id}"


def _capability(text: str | None) -> tuple[int, int] | None:
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """The one runtime of this process, built and started at the first call."""
    import comfy.model_management as management
    import folder_paths
    from comfy.cli_args import args

    uses = NextUses(HostNodeTypes(), HostProgress(), cache_keeps(args))

    def spill_margin(total_bytes: int) -> int:
        return built.spill.margin_bytes(total_bytes)

    memory = HostMemory(management, uses.look, spill_margin=spill_margin)
    history = Path(folder_paths.get_user_directory()) / HISTORY_FILE
    supervisor = build_supervisor(history, outside_torch=memory.outside_torch_bytes)
    forecaster = _forecaster(supervisor, memory, management)
    supervisor.times = forecaster.times
    headroom = host_headroom(args)
    scope = SettingsScope(host_settings(management) | settings_of(headroom))
    preferences = PreferenceBook(history.with_name(PREFERENCES_NAME), os.environ)
    built = Runtime(supervisor, memory, scope, forecaster, uses, preferences)
    built.reserves.no_headroom = headroom if isinstance(headroom, str) else None
    queue = uses.queue = _serve(supervisor)
    if queue is not None:
        feed = connect(partial(_feed, built, queue), uses)
        _serve_cleanup(built, queue, feed)
        supervisor.on_sample = harmless(partial(_after_sample, built, feed, queue))
        if feed.follows_queue:
            built.look_at_queue = harmless(feed.catch_up)
            _watch(queue, feed)
    supervisor.start()
    return built


def _after_sample(built: Runtime, feed: JobFeed, queue: PromptQueue) -> None:
    """What is done now and then: jobs and other programs' memory are followed, and memory nobody
    uses is given back."""
    feed.poll()
    built.reserves.look()
    built.spill.look()
    built.tell_state()
    exacts = built.forecaster.exacts
    if exacts is not None and not has_work(queue):
        exacts.pages.rest()


def _forecaster(supervisor: Supervisor, memory: HostMemory, management: ModuleType) -> Forecaster:
    """Forecasts with one store beside the history. What waits at the end is written then."""
    import folder_paths

    path = Path(folder_paths.get_user_directory()) / HISTORY_FILE.parent / FILE_NAME
    store = CalibrationStore(path, SystemClock())
    atexit.register(store.close)
    idle = IdleWorker(memory.is_interrupt, management.interrupt_current_processing)
    atexit.register(idle.close)
    return Forecaster(
        store,
        Traces(store, memory.raise_if_interrupted, memory.is_interrupt),
        idle,
        lambda: supervisor.devices,
        memory.total_bytes,
        family_of,
        Exacts(store, HostPages(locks=memory.main_device().type == "cuda")),
    )


def _watch(queue: PromptQueue, feed: JobFeed) -> None:
    """Follow the queue closely from each posted prompt on."""
    import server

    watch = QueueWatch(harmless(feed.poll), lambda: has_work(queue))
    server.PromptServer.instance.add_on_prompt_handler(watch.posted)
    watch.start()


def _feed(
    built: Runtime,
    queue: PromptQueue,
    progress: Progress,
    follow: bool,  # noqa: FBT001
) -> JobFeed:
    return JobFeed(
        built.supervisor.jobs,
        queue,
        progress,
        started=built.prompt_started,
        ended=built.prompt_ended,
        follow_queue=follow,
    )


def _serve(supervisor: Supervisor) -> PromptQueue | None:
    """Register the routes on ComfyUI's server and give its queue.

    One clear line where another pack has the routes; None where there is no server.
    """
    import server
    from comfy.cli_args import args

    instance = getattr(server.PromptServer, "instance", None)
    if instance is None:
        _log.warning("No ComfyUI server in this process: no probe, no jobs.")
        return None
    taken = {getattr(route, "path", None) for route in instance.routes}
    if PROBE_PATH in taken or HISTORY_PATH in taken:
        _log.warning("%s is already served by another pack; its answers stay.", PROBE_PATH)
    else:
        cors = getattr(args, "enable_cors_header", None)
        add_routes(instance.routes, supervisor, versions=versions(), cors_origin=cors)
    return instance.prompt_queue


def _serve_cleanup(built: Runtime, queue: PromptQueue, feed: JobFeed) -> None:
    """Where the host reports no starts, only its queue's mutex holds the next job back."""
    import server

    routes = server.PromptServer.instance.routes
    if CLEANUP_PATH in {getattr(route, "path", None) for route in routes}:
        return
    mutex: AbstractContextManager[object] = getattr(queue, "mutex", nullcontext())
    hold = (lambda: mutex) if feed.follows_queue else built.gate.closed
    position = built.supervisor.jobs.position
    add_cleanup_route(routes, Cleaner(built.memory, queue, hold, position))
    add_settings_route(routes, built.preferences)


def versions() -> dict[str, str | None]:
    """Versions of what the figures depend on, for the probe's answer."""
    import torch

    try:
        import comfyui_version

        comfyui: str | None = comfyui_version.__version__
    except ImportError:
        comfyui = None
    return {
        "vram_supervisor": _own_version(),
        "comfyui": comfyui,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "comfy_aimdo": _installed("comfy-aimdo"),
    }


def _own_version() -> str | None:
    """ComfyUI loads the folder, not the installed package: the version is in pyproject."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if not project.is_file():
        return _installed("vram-supervisor")
    for line in project.read_text(encoding="utf-8").splitlines():
        if line.startswith("version"):
            return line.partition("=")[2].strip().strip('"')
    return None


def _installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
