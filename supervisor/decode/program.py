"""A decoder or encoder taken apart: phases of stages that can run on parts of the picture.

A family file describes a network this way; the engine decides how much of the picture each stage
sees at once, where results wait, and what moves to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, prod
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .tiles import Rect


@dataclass(slots=True)
class Carry:
    """What one stage at one place remembers from one chunk of time for the next.

    Attributes:
        state: tensors in lists, tuples and dicts, as the stage likes; None before the first
            chunk. The engine may keep its tensors in host memory between chunks; they are back
            on the device when the stage runs again. A carry that saw a failure is dropped.
    """

    state: Any = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where in space and time the part lies that a stage is given.

    Attributes:
        context: the part, in pixels of the stage's input.
        height: rows of the whole input.
        width: columns of the whole input.
        first_frame: index of the part's first frame in the phase's input.
        frames: how many of the phase's input frames this chunk holds.
        total_frames: how many the phase's input has.
    """

    context: Rect
    height: int
    width: int
    first_frame: int
    frames: int
    total_frames: int

    @property
    def is_first(self) -> bool:
        """Whether time begins here."""
        return self.first_frame == 0

    @property
    def is_last(self) -> bool:
        """Whether time ends here."""
        return self.first_frame + self.frames >= self.total_frames


Run: TypeAlias = Callable[["Tensor", Carry, Place], "Tensor | Iterator[Tensor]"]
"""From a part ``[1, C, h, w]`` or ``[1, C, t, h, w]`` to what becomes of it, ``scale`` times as
high and wide; or to pieces of that in the order of time."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers that run together on one part of the picture.

    Normalisation over the whole picture (``group_norm``) inside a stage needs no care: the engine
    finds it, sums up the statistics over all parts and runs the stage with those.

    Attributes:
        name: for reports and errors.
        run: see ``Run``. It must not keep tensors but in the carry, and must do the same again
            when it is given the same again.
        halo: pixels of the input around a part that its result depends on; 0 for whole ones.
        scale: pixels of the output per pixel of the input, in each direction of space.
        whole: it needs all of the picture at once (attention over space).
        align: parts begin at multiples of so many input pixels, whose results are whole pixels.
    """

    name: str
    run: Run
    halo: int = 0
    scale: Fraction = Fraction(1)
    whole: bool = False
    align: int = 1


def pieces_of(made: Tensor | Iterator[Tensor]) -> Iterable[Tensor]:
    """What a stage made, piece by piece."""
    return (made,) if hasattr(made, "shape") else made  # pyright: ignore[reportReturnType]


def all_at_once(frames: int) -> Sequence[int]:
    """Time in one chunk."""
    return (frames,)


@dataclass(frozen=True, slots=True)
class Phase:
    """Stages that follow each other within a chunk of time.

    Attributes:
        stages: run one after the other for each chunk. A phase of one stage finishes a part for
            all time before it begins the next, so that only one carry is held; in a phase of
            several, all parts of a chunk are done before time goes on.
        chunks: lengths of the chunks that so many input frames are cut into; images have one.
    """

    stages: tuple[Stage, ...]
    chunks: Callable[[int], Sequence[int]] = all_at_once


@dataclass(frozen=True, slots=True)
class Program:
    """A network as the phases it runs in, for one use: closures may hold what one input needs.

    Attributes:
        phases: in order; each gets what the one before it made, all of time and space.
        fast_halo: halos may be cut to this share of themselves with less than 1 % of error.
        frames: how many frames come of so many; None: as the host's own ratio says.
    """

    phases: tuple[Phase, ...]
    fast_halo: Fraction = Fraction(1)
    notes: tuple[str, ...] = field(default=())
    frames: Callable[[int], int] | None = None

    @property
    def scale(self) -> Fraction:
        """Pixels along one side that come of one of the input."""
        steps = (stage.scale for phase in self.phases for stage in phase.stages)
        return prod(steps, start=Fraction(1))

    def fast(self) -> Program:
        """The same with the halos of tiles cut, for less than 1 % of error."""
        return replace(self, phases=tuple(_cut(phase, self.fast_halo) for phase in self.phases))


def _cut(phase: Phase, share: Fraction) -> Phase:
    """Bands of a phase of several stages keep theirs: those are small as they are."""
    if len(phase.stages) > 1:
        return phase
    stages = (replace(stage, halo=ceil(stage.halo * share)) for stage in phase.stages)
    return replace(phase, stages=tuple(stages))


class Family(Protocol):
    """What is known of one architecture."""

    @property
    def name(self) -> str:
        """As in reports."""
        ...

    def decoder(self, model: nn.Module) -> Program | None:
        """The decoder of a loaded VAE from latent ``[1, C, (T,) h, w]`` to pictures
        ``[1, 3, (T,) H, W]``, what ``model.decode`` gives; None for other architectures."""
        ...

    def encoder(self, model: nn.Module) -> Program | None:
        """From prepared pictures to latents, what ``model.encode`` gives; None where it is
        another architecture or not known."""
        ...
