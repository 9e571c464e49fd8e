"""Runs a program part by part, so that the result is what the whole would have been.

A phase of one stage runs tile by tile, each through all of time. A phase of several runs chunk
by chunk of time and stage by stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .assembly import Assembly
from .running import Hooks, Running
from .stagewise import Stagewise
from .store import Clip
from .tilewise import Tilewise

if TYPE_CHECKING:
    from torch import Tensor

    from .parking import HostPages, Parking
    from .program import Phase, Program
    from .running import Output, Sizer


class Engine:
    """One run of one program.

    Args:
        program: what to run; used up by it.
        sizer: decides how large parts are.
        device: where the work runs.
        hooks: what the caller wants to hear.
        pages: host memory to park in, kept by the caller; None: of its own.
    """

    def __init__(
        self,
        program: Program,
        sizer: Sizer,
        device: torch.device,
        hooks: Hooks | None = None,
        pages: HostPages | None = None,
    ) -> None:
        self._program = program
        self._running = Running(sizer, device, hooks or Hooks(), pages)

    @property
    def parking(self) -> Parking:
        """What waits, and where."""
        return self._running.parking

    def run(self, source: Tensor, output: Output | None = None) -> Tensor | None:
        """Run everything.

        Args:
            source: ``[1, C, (t,) h, w]`` on the device.
            output: takes what the last phase makes; None: it is returned, on the device.

        Raises:
            PartDoesNotFitError: the smallest part ran out of memory.
        """
        clip = Clip(self.parking)
        try:
            with torch.inference_mode():
                clip.put(source)
                for index, phase in enumerate(self._program.phases):
                    is_last = index == len(self._program.phases) - 1
                    clip = self._phase(index, phase, clip, output if is_last else None)
                return clip.whole() if output is None else None
        finally:
            clip.close()
            self.parking.close()

    def _phase(self, index: int, phase: Phase, clip: Clip, output: Output | None) -> Clip:
        made = Clip(self.parking)
        target = output or Assembly(made)
        if len(phase.stages) == 1 and not phase.stages[0].whole:
            Tilewise(self._running, index, phase, clip, target).run()
        else:
            Stagewise(self._running, index, phase, clip, target).run()
        if isinstance(target, Assembly):
            self._running.attempt_or_fail(f"result of {phase.stages[-1].name}", target.finish)
        clip.close()
        return made
