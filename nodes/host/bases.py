"""Base bytes of pieces of one latent: by dry run, or by what stands in where there is none."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ...supervisor.planning.architecture import architecture_hash, code_hash
from ...supervisor.planning.traced_cost import SMALL_EDGE, TracedCost
from ...supervisor.planning.workspace import MODEL_VERSION
from .traces import CannotBeTraced, DryRun, Found, TakesTooLong
from .vae import piece_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.planning.cost import FamilyCost
    from ...supervisor.planning.trace import Trace
    from ...supervisor.planning.traced_cost import Piece
    from ...supervisor.planning.workspace import Workspace
    from .traces import Allowance, Traces
    from .vae import Vae, VaeFacts

Origin: TypeAlias = Found | Literal["table", "formula"]
"""A dry run from memory, from disk or made now; a family's table; ComfyUI's own formula."""

CHUNK_FRAMES: Final = 12
"""Latent frames that a decoder which cuts time itself is dry-run with: two of its chunks (7 and
5), since it holds the end of one while it decodes the next. More frames need no more."""
CHUNK_EDGE: Final = 28
"""Latent edge of two by two of its own tiles (16, sharing 4)."""
TILE_EDGE: Final = 16
TABLE_ITEMSIZE: Final = 2
"""Bytes of a value in the families' tables."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Base:
    """Tensors and workspace of a piece.

    Attributes:
        is_exact: of this very piece, so that a measurement may be set beside it.
    """

    bytes: int
    origin: Origin
    is_exact: bool

    @property
    def is_traced(self) -> bool:
        """Whether a dry run of this decoder, or the family's, stands behind it."""
        return self.origin != "formula"


@dataclass(frozen=True)
class Decoder:
    """One VAE, and what its dry runs depend on beside the sizes.

    Attributes:
        architecture: hash of how it is built; of its class where it is no module.
        settings: everything else that makes dry runs differ, as JSON-ready values.
    """

    vae: Vae
    facts: VaeFacts
    architecture: str
    dtype: str
    fused_attention: bool
    total_bytes: int | None
    settings: tuple[object, ...]

    @property
    def chunks_itself(self) -> bool:
        """It cuts its latents as it likes, whatever sizes it is asked for (MiniMax H3)."""
        return self.facts.tiles_itself and self.facts.streams_output


def architecture_of(model: Any) -> str:
    """The hash of a module; of anything else its class's name."""
    try:
        return architecture_hash(model)
    except (AttributeError, TypeError):
        return f"{type(model).__module__}.{type(model).__qualname__}"


def code_of(model: Any) -> str | None:
    """The hash of a module's source files; None where it is no module."""
    try:
        return code_hash(model)
    except (AttributeError, TypeError, OSError):
        return None


@dataclass
class Bases:
    """Answers for pieces of one latent.

    Attributes:
        latent_shape: [B, C, H, W] or [B, C, T, H, W].
        traces: the process's dry runs.
        later: has a dry run made while no job runs.
        family: the table of this decoder in 16-bit, None where none was shipped or where it
            would not hold.
        untraceable: why it cannot be dry-run, None as far as is known.
        gave_up_on: told once why it cannot, for the next time.
        notes: what the report should tell.
        waited_s: how long dry runs have held up whoever asks.
    """

    decoder: Decoder
    latent_shape: tuple[int, ...]
    traces: Traces
    later: Callable[[DryRun], None]
    workspace: Workspace
    family: FamilyCost | None
    allowance: Allowance
    gave_up_on: Callable[[str], None]
    untraceable: str | None = None
    notes: list[str] = field(default_factory=list[str])
    waited_s: float = 0.0
    _found: dict[Piece, Found] = field(default_factory=dict["Piece", Found])
    _seconds: dict[int | None, float] = field(default_factory=dict["int | None", float])
    _gave_up: bool = False

    def __post_init__(self) -> None:
        self._line = TracedCost(self._traced_bytes, lambda base_bytes, _piece: base_bytes)
        if self.untraceable is not None:
            self._note_untraceable()

    def base(self, piece: Piece, *, exact: bool = False) -> Base:
        """Base bytes; with ``exact`` a dry run of this very piece is made if none is known."""
        piece = self._decoded(piece)
        try:
            if self.untraceable is None and not self._gave_up:
                ask = self._line.exact_bytes if exact else self._line.base_bytes
                return self._of_dry_run(ask(*piece), piece)
            if self.untraceable is None and self._is_known(piece):
                return self._of_dry_run(self._line.exact_bytes(*piece), piece)
        except TakesTooLong:
            self._gave_up = True
            if self.family is None:
                self.notes.append(
                    "no table was shipped for this decoder and its dry run takes a while: it is "
                    "made while no job runs; until then ComfyUI's own formula is used with what "
                    "a small piece really took"
                )
        except CannotBeTraced as problem:
            self.untraceable = str(problem)
            self.gave_up_on(self.untraceable)
            self._note_untraceable()
        if exact and self.can_be_made_exact:
            self._ask_for_later(piece)
        return self._instead(piece)

    def _ask_for_later(self, piece: Piece) -> None:
        """What this piece, and those between it and the whole, rest upon next time."""
        batch, frames, height, width = piece
        edge = min(SMALL_EDGE, height, width)
        for each in (piece, (batch, frames, edge, edge)):
            dry_run = self.dry_run_of(each)
            if self.traces.known(dry_run) is None:
                self.later(dry_run)

    @property
    def can_be_made_exact(self) -> bool:
        """Whether one dry run would give the base of any piece."""
        return self.untraceable is None and not self.decoder.chunks_itself

    def dry_run_of(self, piece: Piece) -> DryRun:
        """What has to be dry-run for a piece."""
        shape, decoder = self._shape(piece), self.decoder
        tiled = shape[2:] != self.latent_shape[2:]
        settings = (
            MODEL_VERSION, decoder.architecture, decoder.dtype, shape, tiled,
            decoder.fused_attention, decoder.total_bytes, *decoder.settings,
        )  # fmt: skip
        text = json.dumps(settings)
        return DryRun(shape, tiled, decoder.fused_attention, decoder.total_bytes, text)

    def _decoded(self, piece: Piece) -> Piece:
        """What is decoded for a piece: of a decoder that cuts by itself always everything."""
        if not self.decoder.chunks_itself:
            return piece
        return (piece[0], *piece_of(self.latent_shape)[1:])

    def _of_dry_run(self, base_bytes: int, piece: Piece) -> Base:
        found = self._found.get(piece)
        if found is None:
            found = next(iter(self._found.values()))
        return Base(base_bytes, found, self._line.is_exact(*piece))

    def _instead(self, piece: Piece) -> Base:
        if self.family is not None:
            wider = self.decoder.vae.vae_dtype.itemsize / TABLE_ITEMSIZE
            return Base(ceil(self.family.base_at(*piece) * wider), "table", is_exact=False)
        return Base(self._formula_bytes(piece), "formula", is_exact=True)

    def _traced_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        piece = (batch, frames, height, width)
        if not self.decoder.chunks_itself:
            return self.workspace.peak_bytes(self._trace(piece, piece))
        return self._chunked_bytes(piece)

    def _chunked_bytes(self, piece: Piece) -> int:
        """Its tiles need always the same and what it collects them in grows with the area."""
        batch, frames, height, width = piece
        frames = None if frames is None else min(frames, CHUNK_FRAMES)

        def traced(rows: int, columns: int) -> int:
            trace = self._trace((batch, frames, rows, columns), piece)
            return self.workspace.peak_bytes(trace)

        if max(height, width) <= CHUNK_EDGE:
            return traced(height, width)
        small, large = traced(TILE_EDGE, TILE_EDGE), traced(CHUNK_EDGE, CHUNK_EDGE)
        slope = max(0, large - small) / (CHUNK_EDGE**2 - TILE_EDGE**2)
        return large + ceil(slope * max(0, height * width - CHUNK_EDGE**2))

    def _trace(self, piece: Piece, asked_for: Piece) -> Trace:
        """A dry run of ``piece``.

        Raises:
            NoDryRun: none is known, and none can be made in time or at all.
        """
        dry_run = self.dry_run_of(piece)
        known = self.traces.known(dry_run)
        if known is not None:
            trace, found = known
        else:
            trace, found = self._made(piece, dry_run), "run"
        if found == "run" or asked_for not in self._found:
            self._found[asked_for] = found
        # How many operations there are hardly depends on the area.
        self._seconds[piece[1]] = max(trace.seconds, self._seconds.get(piece[1], 0.0))
        return trace

    def _made(self, piece: Piece, dry_run: DryRun) -> Trace:
        expected_s = self._seconds.get(piece[1], 0.0)
        try:
            trace = self.traces.make(self.decoder.vae, dry_run, self.allowance, expected_s)
        except TakesTooLong:
            self.later(dry_run)
            raise
        self.waited_s += trace.seconds
        return trace

    def _is_known(self, piece: Piece) -> bool:
        if self.decoder.chunks_itself:
            return self._line.is_exact(*piece)
        return self._line.is_exact(*piece) or self.traces.known(self.dry_run_of(piece)) is not None

    def _formula_bytes(self, piece: Piece) -> int:
        """0 where the formula fails: the bound then knows nothing, and says so."""
        vae = self.decoder.vae
        try:
            size_bytes = float(vae.memory_used_decode(self._shape(piece), vae.vae_dtype))
        except Exception:  # noqa: BLE001 - a foreign VAE's formula must not fail the decode
            _log.info("The VAE's own memory formula failed", exc_info=True)
            return 0
        return int(size_bytes) if isfinite(size_bytes) else 0

    def _note_untraceable(self) -> None:
        instead = (
            "ComfyUI's own formula is used, with a wide margin until decodes have been measured"
            if self.family is None
            else f"the table of {self.family.title} is used"
        )
        self.notes.append(f"this decoder cannot be dry-run ({self.untraceable}): {instead}")

    def _shape(self, piece: Piece) -> tuple[int, ...]:
        batch, frames, height, width = piece
        time_dims = () if frames is None else (frames,)
        return (batch, self.latent_shape[1], *time_dims, height, width)
