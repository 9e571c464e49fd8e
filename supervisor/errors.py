"""Every error this package raises, named after the situation.

Each message says what happened, what was kept and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class SupervisorError(Exception):
    """Base of every error of this package."""


class SizeUnreadableError(SupervisorError, ValueError):
    """A text is not a size in bytes."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(
            f"{text!r} is not a size. Nothing was changed. Write a number and a unit, "
            "for example 11GiB or 512MiB."
        )


class QueryRejectedError(SupervisorError, ValueError):
    """A query parameter is not acceptable (HTTP 400).

    Attributes:
        field: name of the parameter.
        problem: what is wrong with it, without the field's name.
    """

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        super().__init__(f"{field} {problem}. Nothing was changed; correct {field} and ask again.")


class ForeignOriginError(SupervisorError):
    """A page of another site asks for something to be done (HTTP 403)."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        super().__init__(
            f"A page of {origin} asked for this. Nothing was changed; only pages of this server, "
            "and programs that are no browser, may ask."
        )


class JobRunningError(SupervisorError):
    """Memory cannot be cleaned up under a running job (HTTP 409)."""

    def __init__(self, running: str) -> None:
        super().__init__(
            f"{running}, and models it uses must not be taken from it. Nothing was changed; "
            "ask again when the queue is empty, or put a VRAM Cleanup node into the workflow."
        )


class StreamLimitReachedError(SupervisorError):
    """All event streams are taken (HTTP 503)."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        self.limit = limit
        self.retry_after_s = retry_after_s
        super().__init__(
            f"All {limit} event streams are in use. The running streams were kept; "
            f"close one or ask again in {retry_after_s} s. Plain polling still works."
        )


class ProbeUnavailableError(SupervisorError):
    """A probe cannot serve this machine at all (library missing, no such device)."""

    def __init__(self, probe: str, reason: str) -> None:
        self.probe = probe
        self.reason = reason
        super().__init__(
            f"The {probe} probe is not available: {reason}. "
            "The other probes go on; its figures are reported as unknown."
        )


class StoreUnusableError(SupervisorError):
    """A file that this program keeps things in cannot be used; memory stands in for it.

    Attributes:
        store: what the file is called.
        kept: what goes on in memory, in words.
    """

    store: ClassVar[str] = "store"
    kept: ClassVar[str] = "Work goes on and what is new is kept"

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(
            f"The {self.store} {path} cannot be used: {reason}. {self.kept} in "
            "memory until the process ends. Free or repair the path and restart to keep them."
        )


class HistoryUnusableError(StoreUnusableError):
    """The history file cannot be used; peaks are kept in memory only."""

    store = "history"
    kept = "Jobs go on and peaks are kept"


class CalibrationUnusableError(StoreUnusableError):
    """The calibration store cannot be used; measurements are kept in memory only."""

    store = "calibration store"
    kept = "Decodes go on and measurements are kept"


class NothingFitsError(SupervisorError):
    """No plan fits the budget, not even the smallest one."""

    def __init__(self, budget_bytes: int, smallest_need_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.smallest_need_bytes = smallest_need_bytes
        super().__init__(
            f"The smallest decode needs {smallest_need_bytes} bytes and the budget is "
            f"{budget_bytes} bytes. The latent was kept. Free memory, raise the budget or "
            "decode on the CPU."
        )


class LatentNotDecodableError(SupervisorError, ValueError):
    """A latent is empty or absurdly large: no plan can be made for it."""

    def __init__(self, sizes: str, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"A latent of {sizes} cannot be decoded: {problem}. Nothing was allocated or changed. "
            "Check the sizes of the node that makes the latent."
        )


class MemoryFigureUnusableError(SupervisorError, ValueError):
    """A figure for memory is not a finite number."""

    def __init__(self, name: str, value: float) -> None:
        self.name = name
        super().__init__(
            f"{name} is {value}, which is no amount of memory. Nothing was planned or changed. "
            "Give finite bytes, or leave it out where it is unknown."
        )


class DecodeFailedError(SupervisorError):
    """Every rung of the ladder failed.

    Attributes:
        tried: one line for each attempt.
        latent_path: where the latent was saved, None if it was not.
        began: whether a plan was followed; else it failed before anything was decoded.
    """

    def __init__(
        self, tried: Sequence[str], latent_path: Path | None, *, began: bool = True
    ) -> None:
        self.tried = tuple(tried)
        self.latent_path = latent_path
        self.began = began
        kept = (
            f"The latent was saved to {latent_path}; move it to the input folder and open it with "
            "Load Latent."
            if latent_path is not None
            else "The latent was not saved."
        )
        super().__init__(
            f"The decode failed after {len(self.tried)} attempt(s): {'; '.join(self.tried)}. "
            f"{kept} Close other programs that use the GPU, or decode at a smaller size."
        )


class PicturesNotEncodableError(SupervisorError, ValueError):
    """Pictures are empty, or smaller than what an encoder makes one pixel of."""

    def __init__(self, sizes: str, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"Pictures of {sizes} cannot be encoded: {problem}. Nothing was allocated or changed. "
            "Check the sizes of the node that makes the pictures."
        )


class EncodeFailedError(SupervisorError):
    """Every rung of the ladder failed, or the encoder did.

    Attributes:
        tried: one line for each attempt.
    """

    def __init__(self, tried: Sequence[str]) -> None:
        self.tried = tuple(tried)
        super().__init__(
            f"The encode failed after {len(self.tried)} attempt(s): {'; '.join(self.tried)}. The "
            "pictures are kept as they were: queue it again and only what follows them runs. "
            "Close other programs that use the GPU, or encode at a smaller size."
        )


class PartDoesNotFitError(SupervisorError):
    """Not even the smallest part of a stage fits into the device's memory."""

    def __init__(self, part: str) -> None:
        self.part = part
        super().__init__(
            f"Out of memory at the smallest part ({part}). What was finished is kept. Free "
            "memory on the device, lower the resolution, or decode on the CPU."
        )


class DecodedOtherwiseError(SupervisorError):
    """A decoder makes pictures of another size or number than it said."""

    def __init__(self, made: str, expected: str) -> None:
        super().__init__(
            f"This VAE makes {made} where {expected} was expected; what was finished is kept. "
            "Decode with ComfyUI's own VAE Decode, and please report the VAE."
        )


class DecodeBusyError(SupervisorError):
    """The embedded host decodes one job at a time and one is running (HTTP 409)."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"The decode job {job_id} is still running and was kept. "
            "Wait for it to end, then start the next one."
        )


class DecodeInterruptedError(SupervisorError):
    """Somebody asked a running decode to stop."""

    def __init__(self, done_tiles: int) -> None:
        self.done_tiles = done_tiles
        super().__init__(
            f"The decode was interrupted after {done_tiles} finished tile(s). "
            "Nothing else was changed; start it again when wanted."
        )


class PortTakenError(SupervisorError, OSError):
    """The embedded host cannot listen where it was told to."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"Cannot listen on {host}:{port}: {reason}. Nothing was started. Stop the program "
            "that uses the port, or choose another one with --port (0 takes any free one)."
        )


class SupervisorStoppedError(SupervisorError):
    """A supervisor was started again after it was stopped."""

    def __init__(self) -> None:
        super().__init__(
            "This supervisor was stopped and its devices were released. What it measured "
            "was kept; build a new one to go on."
        )


class FolderRefusedError(SupervisorError, ValueError):
    """Frames may be written below the output folder only."""

    def __init__(self, wanted: str, root: Path) -> None:
        self.wanted = wanted
        self.root = root
        super().__init__(
            f"{wanted!r} is not inside the output folder {root}. Nothing was written. Give a path "
            "relative to it, or an absolute one inside it."
        )


class PrefixRefusedError(SupervisorError, ValueError):
    """A text cannot begin the names of frames."""

    def __init__(self, prefix: str, problem: str) -> None:
        self.prefix = prefix
        super().__init__(
            f"The prefix {prefix!r} {problem}. Nothing was written. Use letters, digits, - and _; "
            "folders go into output_dir."
        )


class VideoWriterMissingError(SupervisorError):
    """PyAV is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "Lossless video needs PyAV (the package av), which this Python lacks. Nothing was "
            "decoded or written. Install av, or choose png, which is lossless too."
        )


class FramesError(SupervisorError):
    """Frames could not be written; what was written is kept.

    Attributes:
        problem: what happened, what was kept and what to do.
        latent_path: where the latent was saved, None if it was not; whoever saves it says so
            here, and the message tells it.
    """

    def __init__(self, problem: str) -> None:
        self.problem = problem
        self.latent_path: Path | None = None
        super().__init__(problem)

    def __str__(self) -> str:
        if self.latent_path is None:
            return self.problem
        return f"{self.problem} The latent was saved to {self.latent_path}."


class FrameTakenError(FramesError):
    """A file that is not this job's has a name that it needs."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(
            f"{path} is there already and is {owner}. It was not touched, and frames written "
            "before are kept. Choose another prefix, folder or start number."
        )


class FramesNotWrittenError(FramesError):
    """Writing failed for another reason than a full disk."""

    def __init__(self, folder: Path, reason: str, kept: str) -> None:
        super().__init__(
            f"Frames cannot be written to {folder}: {reason}. {kept} Remove the cause and queue "
            "it again: the same job goes on where it stopped."
        )


class DiskFullError(FramesError):
    """No space is left where frames are written."""

    def __init__(self, folder: Path, kept: str) -> None:
        super().__init__(
            f"The disk that holds {folder} is full. {kept} Free some space and queue it again: "
            "the same job goes on where it stopped."
        )
