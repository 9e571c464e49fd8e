"""Bytes are ``int`` inside the program and formatted only at its edge, in binary units."""

from __future__ import annotations

import math
import re
from typing import Final

from .errors import SizeUnreadableError

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30
TiB: Final = 1 << 40

_UNITS: Final = (("TiB", TiB), ("GiB", GiB), ("MiB", MiB), ("KiB", KiB))
_DECIMAL_UNITS: Final = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_BINARY_UNITS: Final = {"b": 1, "kib": KiB, "mib": MiB, "gib": GiB, "tib": TiB}
_SIZE: Final = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)\s*")


def format_bytes(size_bytes: int | None) -> str:
    """Format bytes for people: ``1536`` -> ``"1.5 KiB"``, unknown -> ``"unknown"``."""
    if size_bytes is None:
        return "unknown"
    for name, unit_bytes in _UNITS:
        if abs(size_bytes) >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f} {name}"
    return f"{size_bytes} B"


def parse_bytes(text: str) -> int:
    """Read a size such as ``"11GiB"``, ``"512 MiB"``, ``"8GB"`` (decimal) or plain bytes.

    Raises:
        SizeUnreadableError: the text is not a number followed by a known unit.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise SizeUnreadableError(text)
    unit = match["unit"].lower() or "b"
    factor = _BINARY_UNITS.get(unit) or _DECIMAL_UNITS.get(unit)
    if factor is None:
        raise SizeUnreadableError(text)
    return int(float(match["number"]) * factor)


def to_gib(size_bytes: int | None, digits: int = 2) -> float | None:
    """Bytes as GiB for JSON fields named ``*_gb`` (the public pack's names); unknown stays None."""
    return None if size_bytes is None else round(size_bytes / GiB, digits)


def from_gib(size_gib: float) -> int:
    """GiB as entered in a widget to bytes; NaN and negative values count as 0."""
    if not math.isfinite(size_gib) or size_gib <= 0:
        return 0
    return int(size_gib * GiB)
