"""The function a model carries as ``optimized_attention_override``."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from .calls import Call, Ready, read_call, refusal, run, shaped
from .checking import check, host_attention, is_finite, rehearse, seconds
from .usage import KERNEL_ERROR, NOT_FINITE, OUT_OF_MEMORY, SLOWER, TURNED_OFF, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_log = logging.getLogger(__name__)

MARK: Final = "vram_supervisor_attention"
"""Attribute by which this pack knows its own override on a model."""
_OWN: Final = (
    "q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape",
)  # fmt: skip
"""Arguments that a check gives itself, where a model passes them by name."""


class Attending:
    """Puts each call to the kernel or to whoever computed it before.

    Attributes:
        usage: counts and findings, shared by all clones of the model.
        before: the override the model had, None where the host's function computes.
        races: leave shapes to the host where it is the faster one; for ``auto``.
        clock: how long work takes on a device, in seconds.
    """

    def __init__(
        self,
        ready: Ready,
        usage: Usage,
        before: Callable[..., Any] | None = None,
        *,
        races: bool = False,
        clock: Callable[[torch.device, Callable[[], object]], float] = seconds,
    ) -> None:
        self._ready = ready
        self.usage = usage
        self.before = before
        self._races = races
        self._clock = clock
        self._rehearsed = False

    def attend(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """One call, as the host's ``wrap_attn`` makes it: its function, then its arguments."""
        fallback = partial(self._fallback, function, *args, **more)
        call = read_call(*args, **more)
        reason = self._reason(call)
        if reason is not None or not isinstance(call, Call):
            self.usage.left(reason or TURNED_OFF)
            return fallback()
        shape = shape_class(call)
        out, reason = self._computed(call, shape)
        if out is not None:
            host = host_attention(function, _heads(call), _others(more))
            out, reason = self._believed(out, call, shape, host, fallback)
        if out is None:
            self.usage.left(reason or TURNED_OFF)
            return fallback()
        self.usage.taken()
        return shaped(out, call)

    def traced(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """One call under torch.compile: what its shapes decide, without counts and checks."""
        call = read_call(*args, **more)
        if not isinstance(call, Call) or self._reason(call) is not None:
            return self._fallback(function, *args, **more)
        return shaped(run(self._ready, call, guarded=False), call)

    def rehearse(self, device: torch.device) -> None:
        """Check the kernel on made-up inputs, once: compiled calls cannot be looked at."""
        kernel = self._ready.kernel
        if self._rehearsed or device.type != kernel.device_type or self.usage.turned_off:
            return
        self._rehearsed = True
        for head_dim in (size for size in (64, 128) if size in kernel.head_dims):
            try:
                verdict = rehearse(self._ready, device, head_dim, torch.float16)
            except Exception as problem:  # noqa: BLE001 - Triton and CUDA fail in many ways
                _log.warning("%s failed in its rehearsal", kernel.mode, exc_info=problem)
                self.usage.turn_off(f"it failed ({problem})")
                return
            self.usage.measured(verdict.error)
            complaint = verdict.complaint(kernel.error_limit)
            if complaint is not None:
                self.usage.turn_off(complaint)

    def _reason(self, call: Call | str) -> str | None:
        if isinstance(call, str):
            return call
        return TURNED_OFF if self.usage.turned_off else refusal(self._ready.kernel, call)

    def _fallback(self, function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if self.before is None:
            return function(*args, **more)
        return self.before(function, *args, **more)

    def _computed(self, call: Call, shape: Hashable) -> tuple[torch.Tensor | None, str | None]:
        """The kernel's answer, or why there is none. One that failed at a shape is not asked
        for it again; one that ran out of memory is, for the host's may need less."""
        refused = self.usage.refused(shape)
        if refused is not None:
            return None, refused
        try:
            return run(self._ready, call), None
        except torch.cuda.OutOfMemoryError:
            return None, OUT_OF_MEMORY
        except Exception as problem:  # noqa: BLE001 - Triton and CUDA fail in many ways
            mode = self._ready.kernel.mode
            _log.warning(
                "%s failed at %s; the host's attention computes calls of this shape",
                mode,
                shape,
                exc_info=problem,
            )
            self.usage.refuse(shape, KERNEL_ERROR)
            return None, KERNEL_ERROR

    def _believed(
        self,
        out: torch.Tensor,
        call: Call,
        shape: Hashable,
        host: Callable[..., torch.Tensor],
        fallback: Callable[[], Any],
    ) -> tuple[torch.Tensor | None, str | None]:
        """The answer where it stands up to a check, if one is due; else None and the reason."""
        number = self.usage.next_check(shape)
        if number is None:
            return out, None
        try:
            verdict = check(out, call, host)
        except torch.cuda.OutOfMemoryError:
            return out, None
        self.usage.measured(verdict.error)
        complaint = verdict.complaint(self._ready.kernel.error_limit)
        if complaint is None:
            if number == 0 and self._races:
                self._race(call, shape, fallback)
            return out, None
        if not verdict.finite and not is_finite(fallback()):
            return None, NOT_FINITE
        self.usage.turn_off(complaint)
        return None, TURNED_OFF

    def _race(self, call: Call, shape: Hashable, fallback: Callable[[], Any]) -> None:
        """Time both at a shape, and remember where the host won."""
        try:
            ours_s = self._clock(call.q.device, lambda: run(self._ready, call))
            theirs_s = self._clock(call.q.device, fallback)
        except torch.cuda.OutOfMemoryError:
            return
        if ours_s > theirs_s:
            _log.info(
                "%s takes %.3g ms at %s, the host's attention %.3g ms: the host computes it",
                self._ready.kernel.mode,
                ours_s * 1000,
                shape,
                theirs_s * 1000,
            )
            self.usage.refuse(shape, SLOWER)


def make_override(attending: Attending, *, compiles: bool) -> Callable[..., Any]:
    """A plain function: hosts copy a model's options deeply, and functions are copied as they are.

    Args:
        compiles: torch.compile may trace the kernel. Otherwise a compiled model leaves its graph
            here, which costs speed and not correctness.
    """

    def override(function: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if torch.compiler.is_compiling():
            return attending.traced(function, *args, **more)
        return attending.attend(function, *args, **more)

    carried = override if compiles else torch.compiler.disable(override)
    setattr(carried, MARK, attending)
    return carried


def carried_by(override: object) -> Attending | None:
    """What stands behind an override of this pack; None for anybody else's."""
    return getattr(override, MARK, None)


def shape_class(call: Call) -> tuple[object, ...]:
    """Calls that run the same kernel code at about the same size.

    Token counts and batches go by powers of two, so that growing contexts are not checked at
    each step; whether they fill the kernels' blocks of 128 is told apart.
    """
    queries, keys = call.q.shape[call.tokens_at], call.k.shape[call.tokens_at]
    return (
        str(call.q.dtype).removeprefix("torch."),
        f"head_dim {call.q.shape[-1]}",
        f"heads {call.q.shape[call.heads_at]}/{call.k.shape[call.heads_at]}",
        f"batch < {1 << call.q.shape[0].bit_length()}",
        f"queries < {1 << queries.bit_length()}",
        f"keys < {1 << keys.bit_length()}",
        queries % 128 == 0,
        keys % 128 == 0,
        call.heads_first,
        call.mask is None,
    )


def _heads(call: Call) -> int:
    return call.q.shape[call.heads_at]


def _others(more: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in more.items() if name not in _OWN}
