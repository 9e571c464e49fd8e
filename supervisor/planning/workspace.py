"""What convolution kernels take beside their tensors.

cuDNN's tensor-core convolutions want channels last. Given a dense NCHW or NCDHW tensor they
lay input, weights and output out anew, in workspace that torch takes from its own allocator:
one more copy of each, channels rounded up to eight; an input that is not dense is first made
so, which is another. Convolutions of
one pixel are matrix products and take none, or a copy of their input. Beside that some kernels
take up to 20 MiB to sum in parallel. All of it was read off the allocator around every operation
of real decodes on an H200. Nothing else in a VAE decoder takes workspace worth counting; what
a device adds to this is learned as a ratio by the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .dry_run import Step, Trace


@dataclass(frozen=True, slots=True)
class Workspace:
    """How often a convolution kernel lays out anew what it reads and writes."""

    input_copies: float = 1.0
    output_copies: float = 1.0
    weight_copies: float = 1.0

    def step_bytes(self, step: Step) -> int:
        """Live bytes and workspace while one step runs."""
        extra = (
            step.input_bytes * self.input_copies
            + step.output_bytes * self.output_copies
            + step.weight_bytes * self.weight_copies
        )
        return step.live_bytes + int(extra)

    def peak_bytes(self, trace: Trace) -> int:
        """The most that any step of a decode needs."""
        return max(self.step_bytes(step) for step in trace.steps)


MODEL_VERSION: Final = "1"
"""Goes up whenever the same dry run gives other bytes: ratios measured before do not hold."""

CUDNN_LAYOUT: Final = Workspace()
NO_WORKSPACE: Final = Workspace(0.0, 0.0, 0.0)
"""For the CPU, whose kernels take scratch that torch's allocator does not see."""


def workspace_of(device_type: str) -> Workspace:
    """The model for a torch device type; where nothing was measured, the one that needs most."""
    return NO_WORKSPACE if device_type == "cpu" else CUDNN_LAYOUT
