"""What attempts to decode and encode ask of a forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..supervisor.planning.traced_cost import Piece
    from .host.forecast import Outcome, Prediction


class Expectation(Protocol):
    """What attempts ask of a forecast; a test can stand in for it."""

    @property
    def allocator(self) -> str | None:
        """Which one serves the VAE's device."""
        ...

    @property
    def notes(self) -> list[str]:
        """What the report should tell."""
        ...

    def need_bytes(self, batch: int, frames: int | None, height: int, width: int) -> int:
        """Predicted peak of a piece, in latents."""
        ...

    def hungriest(self, pieces: Iterable[Piece], *, exact: bool = False) -> Prediction:
        """The prediction of the piece that needs most."""
        ...

    def learn(self, piece: Piece, outcome: Outcome) -> None:
        """Keep what a piece took."""
        ...

    def learn_exact(self, base_bytes: int, outcome: Outcome) -> None:
        """Keep what a run in exact parts took."""
        ...
