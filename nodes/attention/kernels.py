"""SageAttention's kernels: what each needs, and what it does with its inputs.

Facts are read from the packages' sources: sageattention 1.0.6 (PyPI), 2.0 to 2.2 and sageattn3
(built from source). Errors are relative L2 against exact attention. The limits are several times
what the number formats cost on normally distributed inputs (int8 with fp16 0.013, int8 with fp8
0.038, fp4 0.19, computed in float32 with the same blocks and scales): a layer with outliers stays
below, a kernel that computes something else does not (zeros are off by 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

Capability: TypeAlias = tuple[int, int]

SAGE: Final = "sageattention"
SAGE_3: Final = "sageattn3"
FP16_CUDA: Final = "sageattn_qk_int8_pv_fp16_cuda"
FP16_TRITON: Final = "sageattn_qk_int8_pv_fp16_triton"
FP8_CUDA: Final = "sageattn_qk_int8_pv_fp8_cuda"
FP8_CUDA_FAST: Final = "sageattn_qk_int8_pv_fp8_cuda++"
FP4: Final = "sageattn3"
FP4_BLOCK_MEAN: Final = "sageattn3_per_block_mean"

HALVES: Final = frozenset({"float16", "bfloat16"})
AMPERE: Final = (8, 0)
ADA: Final = (8, 9)
HOPPER: Final = (9, 0)
BLACKWELL: Final = (10, 0)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One function of one package.

    Attributes:
        mode: the widget's word that asks for it.
        module: what is imported.
        function: its name in the module.
        options: keyword arguments of every call.
        lowest: smallest CUDA compute capability it computes on.
        only: where given, the capabilities it is built for.
        kinds: devices by ``DeviceInfo.kind``.
        newer_than: a function whose absence tells this package from its successor.
        least_version: of the distribution; older ones take the options and do something else.
        triton: runs a Triton kernel, which is compiled at its first call.
        triton_quantises: a CUDA kernel whose default quantisation is a Triton kernel; with
            ``qk_quant_gran="per_warp"`` it is not.
        dtypes: what it computes in, by torch's names; float32 is cast where it is not among it.
        head_dims: sizes of a head it takes.
        least_tokens: queries from which on it is meant to be used.
        unmasked_block: keys it takes at a time, where it counts what the last block lacks of
            them as keys of score 0.
        heads_first: takes [batch, heads, tokens, head_dim] only.
        takes_scale: has ``sm_scale``.
        takes_mask: has a correct ``attn_mask``.
        takes_grouped: queries may have more heads than keys.
        changes_k: writes into the keys it is given.
        device_type: where its tensors lie.
        error_limit: relative L2 beyond which it is not what it says it is.
    """

    mode: str
    module: str
    function: str
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    lowest: Capability = AMPERE
    only: frozenset[Capability] | None = None
    kinds: frozenset[str] = frozenset({"cuda"})
    newer_than: str | None = None
    least_version: tuple[int, ...] | None = None
    triton: bool = False
    triton_quantises: bool = False
    dtypes: frozenset[str] = HALVES
    head_dims: Container[int] = range(1, 129)
    least_tokens: int = 1
    unmasked_block: int = 1
    heads_first: bool = False
    takes_scale: bool = True
    takes_mask: bool = False
    takes_grouped: bool = False
    changes_k: bool = False
    device_type: str = "cuda"
    error_limit: float = 0.15


KERNELS: Final = (
    Kernel(
        FP16_CUDA,
        SAGE,
        "sageattn_qk_int8_pv_fp16_cuda",
        options={"pv_accum_dtype": "fp32"},
        triton_quantises=True,
    ),
    Kernel(
        # 2.0 and 2.1 mask the last block of keys as little as 1.0.6 does; 2.2.0 does in some of
        # the builds of that number.
        FP16_TRITON,
        SAGE,
        "sageattn_qk_int8_pv_fp16_triton",
        triton=True,
        unmasked_block=64,
    ),
    Kernel(
        # 1.0.6 takes any keyword and so ignores a mask without a word; it subtracts the keys'
        # mean in place, and loads zeros beyond the last key without masking their scores. Its
        # kernels are plain Triton, which AMD's GPUs run too.
        FP16_TRITON,
        SAGE,
        "sageattn",
        kinds=frozenset({"cuda", "hip"}),
        newer_than="sageattn_qk_int8_pv_fp16_triton",
        triton=True,
        dtypes=HALVES | {"float32"},
        head_dims=frozenset({64, 96, 128}),
        unmasked_block=64,
        takes_grouped=True,
        changes_k=True,
    ),
    Kernel(
        FP8_CUDA,
        SAGE,
        "sageattn_qk_int8_pv_fp8_cuda_sm90",
        options={"pv_accum_dtype": "fp32+fp32"},
        only=frozenset({HOPPER}),
        triton_quantises=True,
        error_limit=0.2,
    ),
    Kernel(
        FP8_CUDA,
        SAGE,
        "sageattn_qk_int8_pv_fp8_cuda",
        options={"pv_accum_dtype": "fp32+fp32"},
        lowest=ADA,
        triton_quantises=True,
        error_limit=0.2,
    ),
    Kernel(
        # Before 2.2 this accumulator is unknown, and the output is left as it was allocated.
        FP8_CUDA_FAST,
        SAGE,
        "sageattn_qk_int8_pv_fp8_cuda",
        options={"pv_accum_dtype": "fp32+fp16"},
        lowest=ADA,
        least_version=(2, 2),
        triton_quantises=True,
        error_limit=0.2,
    ),
    *(
        Kernel(
            # Both subtract the keys' mean in place; the mean of blocks of queries is a Triton
            # kernel. ComfyUI's own use of it leaves up to 1024 tokens to PyTorch.
            mode,
            SAGE_3,
            "sageattn3_blackwell",
            options={"per_block_mean": block_mean},
            only=frozenset({(10, 0), (12, 0), (12, 1)}),
            triton=block_mean,
            head_dims=frozenset({64, 128}),
            least_tokens=1025,
            heads_first=True,
            takes_scale=False,
            changes_k=True,
            error_limit=0.5,
        )
        for mode, block_mean in ((FP4, False), (FP4_BLOCK_MEAN, True))
    ),
)

AUTO: Final[Mapping[Capability, tuple[str, ...]]] = MappingProxyType(
    {
        (8, 0): (FP16_CUDA, FP16_TRITON),
        (8, 6): (FP16_TRITON, FP16_CUDA),
        (8, 7): (FP16_CUDA, FP16_TRITON),
        (8, 9): (FP8_CUDA_FAST, FP8_CUDA, FP16_CUDA, FP16_TRITON),
        (9, 0): (FP8_CUDA, FP16_CUDA, FP16_TRITON),
        (12, 0): (FP8_CUDA_FAST, FP8_CUDA, FP16_CUDA),
        (12, 1): (FP8_CUDA_FAST, FP8_CUDA, FP16_CUDA),
    }
)
"""What ``auto`` tries, by compute capability, best first: SageAttention's own choice and, where
that is not installed, what else computes there. FP4 is left to an explicit wish: its error is
several times the others'. Generations nobody named get the host's attention."""
