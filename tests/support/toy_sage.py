"""SageAttention's arithmetic on a CPU: 8-bit queries and keys by blocks, keys less their mean."""

import torch

from vram_supervisor.nodes.attention.kernels import FP16_TRITON, SAGE, Kernel

MOST_BATCHES = 2**15
"""PyTorch's attention fails on CUDA with more than its grids hold: ComfyUI splits at so many."""

ON_CPU = Kernel(
    FP16_TRITON,
    SAGE,
    "sageattn",
    kinds=frozenset({"cpu"}),
    dtypes=frozenset({"float16", "bfloat16", "float32"}),
    head_dims=frozenset({64, 96, 128}),
    unmasked_block=64,
    takes_grouped=True,
    changes_k=True,
    device_type="cpu",
)
"""Like 1.0.6 in all but where it computes."""


def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, smooth_k=True, **_any):
    """As 1.0.6: keys change in place, a mask is ignored without a word, and what the last block
    of 64 keys lacks is counted as keys of score 0."""
    assert q.shape[-1] in {64, 96, 128}
    assert not is_causal
    tokens = 1 if tensor_layout == "NHD" else 2
    if smooth_k:
        k -= k.mean(dim=tokens, keepdim=True)
    if tensor_layout == "NHD":
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    shared = q.shape[1] // k.shape[1]
    k, v = (each.repeat_interleave(shared, 1).float() for each in (k, v))
    k, v = (torch.nn.functional.pad(each, (0, 0, 0, -each.shape[2] % 64)) for each in (k, v))
    scores = eight_bits(q.float(), 128) @ eight_bits(k, 64).transpose(-1, -2)
    scale = q.shape[-1] ** -0.5 if sm_scale is None else sm_scale
    out = ((scores * scale).softmax(-1) @ v).to(q.dtype)
    return out.transpose(1, 2) if tensor_layout == "NHD" else out


def eight_bits(x, block):
    """[batch, heads, tokens, head_dim] rounded to 127 steps of each block's largest."""
    padded = torch.nn.functional.pad(x, (0, 0, 0, -x.shape[2] % block)).unflatten(2, (-1, block))
    step = padded.abs().amax((-1, -2), keepdim=True).clamp_min(1e-12) / 127
    return ((padded / step).round() * step).flatten(2, 3)[:, :, : x.shape[2]]


class FakePackages:
    """Installed packages: functions by module; what is not named is not installed."""

    def __init__(self, versions=None, **modules):
        self.modules, self.versions = modules, versions or {}

    def problem(self, module):
        found = self.modules.get(module)
        if found is None:
            return f"{module} is not installed"
        return found if isinstance(found, str) else None

    def function(self, module, name):
        return self.modules[module].get(name)

    def version(self, module):
        return self.versions.get(module)


def host(q, k, v, heads, mask=None, attn_precision=None, skip_reshape=False,
         skip_output_reshape=False, **more):  # fmt: skip
    """Exact attention with the arguments of ComfyUI's functions."""
    if not skip_reshape:
        size = q.shape[-1] // heads
        q, k, v = (each.unflatten(-1, (-1, size)).transpose(1, 2) for each in (q, k, v))
    if mask is not None:
        mask = mask[None] if mask.ndim == 2 else mask
        mask = mask[:, None] if mask.ndim == 3 else mask
    shared = q.shape[1] // k.shape[1]
    k, v = (each.repeat_interleave(shared, 1) for each in (k, v))
    attention, parts = torch.nn.functional.scaled_dot_product_attention, []
    for i in range(0, max(1, len(q)), MOST_BATCHES):
        of = slice(i, i + MOST_BATCHES)
        masked = mask[of] if mask is not None and mask.shape[0] > 1 else mask
        parts.append(attention(q[of], k[of], v[of], attn_mask=masked, scale=more.get("scale")))
    out = torch.cat(parts)
    return out if skip_output_reshape else out.transpose(1, 2).flatten(2)
