"""The dry run: a decoder under fake tensors, and the moments that could be its peak.

No weight is copied and no byte is allocated on the device: parameters are mapped to fakes,
operations only compute shapes. What is recorded is the storages alive after each operation
and, for kernels that take workspace, the sizes that the workspace follows from.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typing_extensions import override

from .fake_module import fake_copy
from .live_bytes import LiveBytes
from .trace import Step, Trace, could_be_peak

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn
    from torch._ops import OpOverload as Operation

CHANNELS_STEP: Final = 8
CHECK_EVERY: Final = 64
"""Operations between two questions whether to go on: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, dtype and device of an input that a dry run makes up.

    ``device`` is where the real one lies; the made-up one lies on the CPU.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


class Tracer(LiveBytes):
    """Live bytes, and the steps of a decode with their kernels.

    Args:
        ignore: tensors that lie elsewhere or are there anyway (weights, host buffers).
        fused_attention: attention runs in one kernel that keeps no scores (as on CUDA);
            False: as torch does it for the tensors' device.
        check: called now and then; may raise to stop the run.
    """

    def __init__(
        self,
        ignore: Iterable[Tensor] = (),
        *,
        fused_attention: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        super().__init__("cpu", ignore)
        self.steps: list[Step] = []
        self._fused_attention = fused_attention
        self._check = check

    @override
    def run(self, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Run one operation and note its step."""
        if self._check is not None and self.operations % CHECK_EVERY == 0:
            self._check()
        if self._fused_attention and func is _ATTENTION and _is_fused(args, kwargs):
            self.operations += 1
            result = _attention_output(args[0], args[2])
            self.count(result, (args, kwargs))
            return result
        result = super().run(func, args, kwargs)
        if func is _CONVOLUTION and isinstance(result, torch.Tensor):
            self._note_convolution(args, result)
        return result

    def _note_convolution(self, args: Sequence[Any], output: Tensor) -> None:
        image, weight = args[0], args[1]
        kernel = f"conv{image.ndim - 2}d"
        # Torch makes a scattered input dense before the kernel lays it out its own way.
        dense_bytes = 0 if image.is_contiguous() else _bytes(image)
        if any(extent > 1 for extent in weight.shape[2:]):
            input_bytes = _laid_out_bytes(image) + dense_bytes
            step = Step(
                self.live_bytes, kernel, input_bytes, _laid_out_bytes(output), _bytes(weight)
            )
        else:  # a matrix product; in two dimensions it takes the input as it lies
            laid_out = 0 if kernel == "conv2d" else _bytes(image)
            step = Step(self.live_bytes, kernel, max(laid_out, dense_bytes))
        self.steps.append(step)


_ATTENTION: Final = torch.ops.aten.scaled_dot_product_attention.default
_CONVOLUTION: Final = torch.ops.aten.convolution.default


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _laid_out_bytes(tensor: Tensor) -> int:
    """What it takes channels last: kernels want channels in multiples of eight."""
    channels = tensor.shape[1]
    return _bytes(tensor) // channels * (-(-channels // CHANNELS_STEP) * CHANNELS_STEP)


def _is_fused(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether one of CUDA's fused kernels takes these: each needs the last dimension dense."""
    del kwargs
    return all(tensor.stride(-1) == 1 for tensor in args[:3])


def _attention_output(query: Tensor, value: Tensor) -> Tensor:
    """As the fused kernels lay it out: [..., L, heads, E] seen as [..., heads, L, E]."""
    *lead, heads, length, _ = query.shape
    laid_out = torch.empty(
        (*lead, length, heads, value.shape[-1]), dtype=query.dtype, device=query.device
    )
    return laid_out.transpose(-2, -3)


def trace_decode(
    module: nn.Module,
    run: Callable[..., object],
    *inputs: TensorSpec,
    fused_attention: bool = False,
    check: Callable[[], None] | None = None,
) -> Trace:
    """Dry-run ``run(module, *inputs)``.

    Args:
        module: the live module; a copy with fake parameters stands in for it.
        run: what to dry-run, called with that copy and fake inputs, which do not count.
        inputs: the inputs. Everything is laid on the CPU: no device is touched.
        fused_attention: see ``Tracer``.
        check: called now and then; may raise to stop the run.
    """
    started_s = time.perf_counter()
    fake = FakeTensorMode()
    stand_in = fake_copy(module, fake)
    with fake, torch.inference_mode():
        tensors = [torch.empty(i.shape, dtype=i.dtype) for i in inputs]
        held = [*tensors, *stand_in.parameters(), *stand_in.buffers()]
        with Tracer(held, fused_attention=fused_attention, check=check) as tracer:
            result = run(stand_in, *tensors)
            del result
    steps = could_be_peak([Step(tracer.peak_bytes), *tracer.steps])
    seconds = time.perf_counter() - started_s
    return Trace(tracer.peak_bytes, steps, tracer.operations, seconds)


def dry_run_peak(module: nn.Module, run: Callable[..., object], *inputs: TensorSpec) -> int:
    """Peak bytes of the tensors that ``run(module, *inputs)`` makes, allocating none of them.

    Returns:
        What ``LiveBytes`` would measure for the real call on the CPU. Parameters and buffers
        do not count, nor do the inputs, and kernel workspace is not in it.
    """
    return trace_decode(module, run, *inputs).tensor_peak_bytes
