"""What a supporter node did, in one line for the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .report import Report

_NAMES: Final = {
    "sage_attention": "SageAttention",
    "torch_compile_mode": "compile",
    "fp16_accumulation": "fp16 accumulation",
    "tf32": "TF32",
}


def summary_line(report: Report) -> str:
    """``reserve 1.25 GiB; SageAttention off; compile off; fp16 accumulation on; TF32 on``."""
    parts = [_reserve(report.applied.get("reserved_vram_gb"))]
    named = ((name, title) for name, title in _NAMES.items() if name in report.applied)
    parts += [f"{title} {_setting(report.applied[name])}" for name, title in named]
    if (report.effective.get("eviction") or {}).get("left"):
        parts.append("made room first")
    return "; ".join(parts)


def _reserve(gib: object) -> str:
    return f"reserve {gib:g} GiB" if isinstance(gib, int | float) else "reserve as ComfyUI has it"


def _setting(value: Any) -> str:
    """None is what was left alone."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "as it is" if value is None else str(value)
