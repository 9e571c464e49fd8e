"""The supporter's line on the console."""

import pytest

from vram_supervisor.nodes.report import Report
from vram_supervisor.nodes.summary import summary_line

ALL = {
    "reserved_vram_gb": 1.25,
    "sage_attention": "sageattn_qk_int8_pv_fp16_triton",
    "torch_compile_mode": "reduce-overhead",
    "fp16_accumulation": True,
    "tf32": False,
    "clean_gpu_before": True,
}


@pytest.mark.parametrize(
    ("applied", "left", "line"),
    [
        (
            ALL,
            ["A"],
            (
                "reserve 1.25 GiB; SageAttention sageattn_qk_int8_pv_fp16_triton; compile "
                "reduce-overhead; fp16 accumulation on; TF32 off; made room first"
            ),
        ),
        (
            dict.fromkeys(ALL),
            [],
            (
                "reserve as ComfyUI has it; SageAttention as it is; compile as it is; fp16 "
                "accumulation as it is; TF32 as it is"
            ),
        ),
        ({"reserved_vram_gb": 0.0, "tf32": True}, None, "reserve 0 GiB; TF32 on"),
    ],
)
def test_the_line_says_what_was_applied(applied, left, line):
    effective = {} if left is None else {"eviction": {"left": left}}
    assert summary_line(Report(applied=applied, effective=effective)) == line
