"""One attention call: read as the host makes it, put to a kernel as the kernel takes it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .kernels import Kernel

MASK: Final = "mask"
HEAD_DIM: Final = "head_dim"
DTYPE: Final = "dtype"
DEVICE: Final = "device"
SHAPE: Final = "shape"
SCALE: Final = "scale"
SIZE: Final = "size"
SHORT: Final = "short"
TAIL: Final = "tail of keys"
PRECISION: Final = "precision"
"""Why a call is left to the host. Size: more than a kernel's 32-bit indices or grid hold; tail:
keys that do not fill the last block of a kernel without a mask for it; precision: the model asks
for full precision in this call."""

_NAMES: Final = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
}
_FAR: Final = 2**31
_GRID: Final = 65535
_TAIL_SHARE: Final = 0.01
"""Of a kernel's keys may be made-up ones of score 0: an error of so much at most, for the kernels
take the keys' mean off, which leaves real scores with a mean of 0 and so at least that weight.
Their 8 bits cost more. 77 keys of text would be off by a third, 16 frames by two thirds."""


class Call(NamedTuple):
    """Tensors of four dimensions, [batch, heads, tokens, head_dim] or, as most models store
    them, [batch, tokens, heads, head_dim].

    Attributes:
        heads_first: which of the two.
        scale: of the scores, None for the usual 1/sqrt(head_dim).
        keeps_heads: the answer is [batch, heads, tokens, head_dim], else [batch, tokens, all].
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    heads_first: bool
    mask: torch.Tensor | None
    scale: float | None
    keeps_heads: bool

    @property
    def heads_at(self) -> int:
        """The dimension of the heads."""
        return 1 if self.heads_first else 2

    @property
    def tokens_at(self) -> int:
        """The dimension of the tokens."""
        return 2 if self.heads_first else 1


class Ready(NamedTuple):
    """A kernel that is installed here, with the keyword arguments of its calls."""

    kernel: Kernel
    function: Callable[..., Any]
    options: Mapping[str, object]


def read_call(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
    attn_precision: torch.dtype | None = None,
    skip_reshape: bool = False,  # noqa: FBT001
    skip_output_reshape: bool = False,  # noqa: FBT001
    **more: Any,
) -> Call | str:
    """Arguments as ComfyUI's attention functions take them; the reason where the host must.

    ``attn_precision`` asks for scores in float32. PyTorch's attention, ComfyUI's usual one, does
    not heed it, and these kernels keep their scores in 32 bits.
    """
    del attn_precision
    if more.get("low_precision_attention", True) is False:
        return PRECISION
    if not skip_reshape:
        parts = _in_heads(q, k, v, heads, grouped=bool(more.get("enable_gqa", False)))
        if parts is None:
            return SHAPE
        q, k, v = parts
    call = Call(q, k, v, skip_reshape, mask, more.get("scale"), skip_output_reshape)
    if not _agree(call, heads, grouped=bool(more.get("enable_gqa", False))):
        return SHAPE
    return call


def refusal(kernel: Kernel, call: Call) -> str | None:
    """Why this kernel must not take this call, None where it may."""
    q, k, v = call.q, call.k, call.v
    name = _NAMES.get(q.dtype)
    reasons = (
        (MASK, call.mask is not None and not kernel.takes_mask),
        (HEAD_DIM, q.shape[-1] not in kernel.head_dims),
        (DTYPE, not q.dtype == k.dtype == v.dtype or name not in kernel.dtypes | {"float32"}),
        (DEVICE, q.device.type != kernel.device_type or not q.device == k.device == v.device),
        (SCALE, call.scale is not None and not kernel.takes_scale),
        (SHORT, q.shape[call.tokens_at] < kernel.least_tokens),
        (SIZE, _too_large(call)),
        (TAIL, _tail_share(kernel, k.shape[call.tokens_at]) > _TAIL_SHARE),
    )
    return next((reason for reason, holds in reasons if holds), None)


def run(ready: Ready, call: Call, *, guarded: bool = True) -> torch.Tensor:
    """The kernel's answer in the call's layout and dtype; the call's tensors stay as they are.

    ``guarded`` makes the tensors' device the current one meanwhile: Triton launches there, and
    some of the functions leave it changed.
    """
    kernel = ready.kernel
    options = dict(ready.options)
    if kernel.takes_scale:
        options["sm_scale"] = call.scale
    if call.mask is not None:
        options["attn_mask"] = of_four_dimensions(call.mask)
    if not kernel.heads_first:
        options["tensor_layout"] = "HND" if call.heads_first else "NHD"
    q, k, v = _inputs(kernel, call)
    on_device = torch.cuda.device(q.device) if guarded and q.is_cuda else nullcontext()
    with on_device:
        out: torch.Tensor = ready.function(q, k, v, is_causal=False, **options)
    if kernel.heads_first and not call.heads_first:
        out = out.transpose(1, 2)
    return out.to(call.q.dtype)


def shaped(out: torch.Tensor, call: Call) -> torch.Tensor:
    """A kernel's answer in the shape the host's caller expects."""
    if call.keeps_heads:
        return out if call.heads_first else out.transpose(1, 2)
    if call.heads_first:
        out = out.transpose(1, 2)
    return out.reshape(out.shape[0], out.shape[1], -1)


def _in_heads(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    heads: int,
    *,
    grouped: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """[batch, tokens, heads x head_dim] split into heads; None where that does not come out."""
    if q.ndim != 3 or k.ndim != 3 or v.ndim != 3 or q.shape[-1] % heads:  # noqa: PLR2004
        return None
    size = q.shape[-1] // heads
    if k.shape[-1] % size or v.shape[-1] != k.shape[-1]:
        return None
    if not grouped and k.shape[-1] != q.shape[-1]:
        return None
    return q.unflatten(-1, (heads, size)), k.unflatten(-1, (-1, size)), v.unflatten(-1, (-1, size))


def _agree(call: Call, heads: int, *, grouped: bool) -> bool:
    """Four dimensions, one batch, one head_dim, and heads that match or, grouped, divide."""
    q, k, v = call.q, call.k, call.v
    if q.ndim != 4 or k.shape != v.shape or k.ndim != 4:  # noqa: PLR2004
        return False
    own, theirs = q.shape[call.heads_at], k.shape[call.heads_at]
    matches = own == theirs or (grouped and theirs > 0 and own % theirs == 0)
    same = q.shape[0] == k.shape[0] and q.shape[-1] == k.shape[-1]
    return matches and same and own == heads and q.numel() > 0 and k.numel() > 0


def _tail_share(kernel: Kernel, keys: int) -> float:
    """How much of what the kernel takes for keys lies beyond the last one."""
    lacking = -keys % kernel.unmasked_block
    return lacking / (keys + lacking)


def _too_large(call: Call) -> bool:
    """Offsets and counts beyond 31 bits, and grids beyond CUDA's second and third dimension."""
    largest = max(call.q.numel(), call.k.numel())
    return largest >= _FAR or max(call.q.shape[0], call.q.shape[call.heads_at]) > _GRID


def _inputs(kernel: Kernel, call: Call) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The tensors as the kernel reads them; never the caller's where it would write."""
    q, k, v = (_readable(each, kernel) for each in (call.q, call.k, call.v))
    borrowed = k is call.k
    shared = call.q.shape[call.heads_at] // call.k.shape[call.heads_at]
    if shared > 1 and not kernel.takes_grouped:
        k, v = (each.repeat_interleave(shared, call.heads_at) for each in (k, v))
        borrowed = False
    if kernel.heads_first and not call.heads_first:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if kernel.changes_k and borrowed:
        k = k.clone()
    return q, k, v


def _readable(tensor: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """In a dtype the kernel knows, its last dimension dense, within reach of 31-bit offsets.

    float32 becomes float16 and not bfloat16: these kernels turn values into float16 anyway, and
    bfloat16's 8 bits of precision would add to the quantisation of queries and keys.
    """
    if _NAMES.get(tensor.dtype) not in kernel.dtypes:
        tensor = tensor.to(torch.float16)
    reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.contiguous() if tensor.stride(-1) != 1 or reach >= _FAR else tensor


def of_four_dimensions(mask: torch.Tensor) -> torch.Tensor:
    """[tokens, tokens] or [batch, tokens, tokens] with the missing dimensions, as the host adds
    them."""
    if mask.ndim == 2:  # noqa: PLR2004
        mask = mask.unsqueeze(0)
    return mask.unsqueeze(1) if mask.ndim == 3 else mask  # noqa: PLR2004
