"""What was found out about VAEs at some cost, kept for this process and the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...supervisor.decode.proof import Proof, proof_from_json
from ...supervisor.decode.survey import Survey, survey_from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...supervisor.decode.parking import HostPages
    from .traces import Found, TextCache


@dataclass
class Exacts:
    """What all runs in exact parts of this process share.

    Attributes:
        cache: keeps surveys, proofs and needs for the next process.
        pages: host memory that results wait in.
    """

    cache: TextCache
    pages: HostPages
    _surveys: dict[str, Survey] = field(default_factory=dict[str, Survey])
    _proofs: dict[str, Proof] = field(default_factory=dict[str, Proof])

    _needs: dict[str, int] = field(default_factory=dict[str, int])

    def survey(self, key: str, make: Callable[[], Survey]) -> Survey:
        """One that was made before, or a new one."""
        known = self._surveys.get(key)
        if known is None:
            text = self.cache.cached("survey", key)
            known = None if text is None else survey_from_json(text)
        if known is None:
            known = make()
            self.cache.remember("survey", key, known.to_json())
        self._surveys[key] = known
        return known

    def proof(self, key: str, make: Callable[[], Proof]) -> Proof:
        """The same for proofs."""
        known = self._proofs.get(key)
        if known is None:
            text = self.cache.cached("proof", key)
            known = None if text is None else proof_from_json(text)
        if known is None:
            known = make()
            if known.error is None:
                # It did not get as far as figures: next time it may.
                return known
            self.cache.remember("proof", key, known.to_json())
        self._proofs[key] = known
        return known

    def need_bytes(self, key: str, make: Callable[[], int]) -> tuple[int, Found]:
        """What a dry run gave, and where that comes from."""
        if key in self._needs:
            return self._needs[key], "memory"
        text = self.cache.cached("need", key)
        if text is not None and text.isdecimal():
            self._needs[key] = int(text)
            return self._needs[key], "disk"
        self._needs[key] = make()
        self.cache.remember("need", key, str(self._needs[key]))
        return self._needs[key], "run"
