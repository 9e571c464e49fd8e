"""Whether a kernel computes attention: its answer on real inputs beside the host's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812

from .calls import Call, Ready, of_four_dimensions, run

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: Final = 128
"""Queries compared in each item: spread evenly, the first and the last among them. The host's
attention of so few costs 3 % of one call at 4096 tokens, 0.4 % at 32768."""
HEADS_LIMIT: Final = 0.9
"""A head that is not computed is off by 1; among many it hardly shows in the whole."""
LIGHT: Final = 0.01
"""Heads below this share of the mean head's norm weigh nothing."""
QUANTISED: Final = frozenset({"attention_sage", "attention3_sage", "attention_comfy_kitchen_int8"})
"""The host's own functions that are no yardstick, for they round as these kernels do."""
REHEARSED_TOKENS: Final = 1280
TIMED_RUNS: Final = 3


class Verdict(NamedTuple):
    """What a check found.

    Attributes:
        finite: no NaN and no infinity in the whole answer.
        error: relative L2 of the rows compared; None where the host's are not finite or zero.
        worst_head: the largest of single heads, of those that weigh anything.
    """

    finite: bool
    error: float | None
    worst_head: float | None

    def complaint(self, limit: float) -> str | None:
        """What is wrong with the answer, None where nothing is."""
        if not self.finite:
            return "it returned values that are not finite (NaN or infinity)"
        if self.error is not None and self.error > limit:
            return f"its error of {self.error:.2g} is beyond the {limit:.2g} that is known of it"
        heads = min(HEADS_LIMIT, 4 * limit)
        if self.worst_head is not None and self.worst_head > heads:
            return (
                f"one head is off by {self.worst_head:.2g}, more than the {heads:.2g} of hard ones"
            )
        return None


def check(out: torch.Tensor, call: Call, host: Callable[..., torch.Tensor]) -> Verdict:
    """Compare a kernel's answer, in the call's layout, with the host's attention on some rows of
    the first and the last item. The whole answer is looked through for NaN. Waits for the device.

    Args:
        host: called with queries [batch, heads, rows, head_dim], all keys, all values and the
            rows of the mask, gives an answer of the queries' shape.
    """
    finite = is_finite(out)
    rows = _spread(out.shape[call.tokens_at], out.device)
    ends = slice(None, None, max(1, out.shape[0] - 1))
    picked = (each[ends].index_select(call.tokens_at, rows) for each in (call.q, out))
    q, ours = (_heads_first(each, call) for each in picked)
    k, v = (_heads_first(each[ends], call) for each in (call.k, call.v))
    theirs = host(q, k, v, _picked_mask(call, ends, rows)).float()
    return _verdict(finite, ours.float(), theirs)


def rehearse(ready: Ready, device: torch.device, head_dim: int, dtype: torch.dtype) -> Verdict:
    """Check a kernel on made-up inputs, for calls that cannot be looked at while they run."""
    random = torch.Generator(device).manual_seed(head_dim)
    shape = (1, 2, max(REHEARSED_TOKENS, ready.kernel.least_tokens), head_dim)
    q, k, v = (torch.randn(shape, generator=random, device=device).to(dtype) for _ in range(3))
    call = Call(q, k, v, heads_first=True, mask=None, scale=None, keeps_heads=True)
    return check(run(ready, call), call, torch_attention)


def host_attention(
    function: Callable[..., Any], heads: int, more: dict[str, Any]
) -> Callable[..., torch.Tensor]:
    """The host's function for ``check``; PyTorch's where the host's rounds as the kernels do.

    ``more`` are the keywords of the call that is checked, neither its mask nor its layout.
    """

    def theirs(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        return function(
            q, k, v, heads, mask=mask, skip_reshape=True, skip_output_reshape=True, **more
        )

    def torchs(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        return torch_attention(q, k, v, mask, more.get("scale"))

    return torchs if getattr(function, "__name__", "") in QUANTISED else theirs


def torch_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """PyTorch's, where queries may have more heads than keys."""
    shared = q.shape[1] // k.shape[1]
    if shared > 1:
        k, v = (each.repeat_interleave(shared, 1) for each in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def is_finite(tensor: torch.Tensor) -> bool:
    """Waits for the device; NaN and infinity both show in the extremes, which need no memory."""
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long the work takes on its device once it is warm: the shortest of some runs, for what
    else happens on a machine only ever adds."""
    work()
    timed = _seconds_on_gpu if device.type == "cuda" else _seconds_here
    return min(timed(device, work) for _ in range(TIMED_RUNS))


def _seconds_here(_device: torch.device, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _seconds_on_gpu(device: torch.device, work: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work()
        last.record()
        last.synchronize()
    return first.elapsed_time(last) / 1000


def _spread(count: int, device: torch.device) -> torch.Tensor:
    """Up to ``ROWS`` different indices from the first to the last."""
    if count <= ROWS:
        return torch.arange(count, device=device)
    steps = [round(step * (count - 1) / (ROWS - 1)) for step in range(ROWS)]
    return torch.tensor(steps, device=device)


def _heads_first(tensor: torch.Tensor, call: Call) -> torch.Tensor:
    return tensor if call.heads_first else tensor.transpose(1, 2)


def _picked_mask(call: Call, ends: slice, rows: torch.Tensor) -> torch.Tensor | None:
    """The rows' part of a mask that may be one for all items, heads or rows."""
    if call.mask is None:
        return None
    mask = of_four_dimensions(call.mask)
    mask = mask[ends] if mask.shape[0] > 1 else mask
    return mask.index_select(2, rows) if mask.shape[2] > 1 else mask


def _verdict(finite: bool, ours: torch.Tensor, theirs: torch.Tensor) -> Verdict:  # noqa: FBT001
    """Errors of float32 [items, heads, rows, head_dim]."""
    off, norm = ((each * each).sum((0, 2, 3)) for each in (ours - theirs, theirs))
    whole = float(norm.sum())
    if not 0 < whole < float("inf"):
        return Verdict(finite, None, None)
    weighs = norm > norm.mean() * LIGHT**2
    worst = float((off[weighs] / norm[weighs]).max())
    return Verdict(finite, (float(off.sum()) / whole) ** 0.5, worst**0.5)
