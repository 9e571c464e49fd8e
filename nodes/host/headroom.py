"""DynamicVRAM's headroom: the reserve that reaches the weights it streams.

ComfyUI's ``EXTRA_RESERVED_VRAM`` does not. comfy-aimdo keeps one figure for the whole process:
weights leave while what it counts as its own (torch's memory and streamed weights) plus this
headroom exceeds a device's capacity. What others hold must therefore be in it. A new value
counts from the next fault or allocation on; under 256 MiB another limit prevails.

comfy-aimdo 0.5.3 has a getter and a setter. Before, ``control.init`` takes the value, and calling
it again is safe: once its library is loaded it returns after writing what it was given (0.4.10:
the headroom, one 64-bit store; 0.4.13: also whether NVML tells of pressure, off unless told
otherwise, which Linux' library ignores) and touches neither devices, hooks nor allocations.
``init_devices``, which makes those, is another function and is never called here. Older ones
take no headroom at all.
"""

from __future__ import annotations

import ctypes
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from ...supervisor.units import MiB, from_gib

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings import Setting

HEADROOM: Final = "dynamic_vram_headroom"
DEFAULT_BYTES: Final = 256 * MiB
"""What comfy-aimdo starts with, and below which another limit prevails."""
SYMBOL: Final = "simple_vram_headroom"
"""The figure's name in the library; on Linux it can be read there."""
_ARGUMENT: Final = "simple_vram_headroom"
_PRESSURE: Final = "nvml_pressure"
_KNOWN: Final = frozenset({"implementation", _ARGUMENT, _PRESSURE})


@dataclass(frozen=True, slots=True)
class Started:
    """How the host was started, as far as it told comfy-aimdo.

    Attributes:
        reserve_bytes: ``--reserve-vram``, None without it.
        nvml_pressure: False with ``--disable-nvml-pressure``.
    """

    reserve_bytes: int | None = None
    nvml_pressure: bool = True


def started_with(args: Any) -> Started:
    """From the host's command line; older hosts lack the second option."""
    reserve_gb = getattr(args, "reserve_vram", None)
    return Started(
        None if reserve_gb is None else from_gib(float(reserve_gb)),
        not getattr(args, "disable_nvml_pressure", False),
    )


@dataclass(slots=True)
class Headroom:
    """The headroom as a setting, in bytes; of several wishes the largest."""

    get: Callable[[], int | None]
    put: Callable[[int], object]
    known_bytes: int
    """What it is as far as this process knows, where it cannot be read."""
    name: str = field(default=HEADROOM)

    def read(self) -> object:
        """Bytes kept free now."""
        found = self.get()
        return self.known_bytes if found is None else found

    def write(self, value: object) -> None:
        """Keep ``value`` bytes free."""
        wanted_bytes = cast("int", value)
        self.put(wanted_bytes)
        self.known_bytes = wanted_bytes

    def combine(self, wishes: Sequence[object]) -> object:
        """The largest."""
        return max(cast("Sequence[int]", wishes))


def headroom_setting(control: Any, started: Started) -> Headroom | str:
    """The setting, or why DynamicVRAM's headroom cannot be changed while ComfyUI runs.

    ``control`` is ``comfy_aimdo.control`` with its library loaded.
    """
    known_bytes = DEFAULT_BYTES if started.reserve_bytes is None else started.reserve_bytes
    if getattr(control, "lib", None) is None:
        return "comfy-aimdo's library is not loaded"
    setter = getattr(control, "set_simple_vram_headroom", None)
    getter = getattr(control, "get_simple_vram_headroom", None)
    if setter is not None:
        return Headroom(getter or _reader(control.lib), setter, known_bytes)
    init = getattr(control, "init", None)
    taken = frozenset() if init is None else frozenset(inspect.signature(init).parameters)
    if init is None or _ARGUMENT not in taken:
        return "this comfy-aimdo (before 0.4.10) takes a headroom at no time"
    unknown = ", ".join(sorted(taken - _KNOWN))
    if unknown:
        return f"this comfy-aimdo would have to be told {unknown} again, which is not known here"
    others = {_PRESSURE: started.nvml_pressure} if _PRESSURE in taken else {}

    def again(wanted_bytes: int) -> None:
        init(**{_ARGUMENT: wanted_bytes}, **others)

    return Headroom(_reader(control.lib), again, known_bytes)


def settings_of(headroom: Headroom | str | None) -> dict[str, Setting]:
    """The setting by name, empty where there is none."""
    return {headroom.name: headroom} if isinstance(headroom, Headroom) else {}


def host_headroom(args: Any) -> Headroom | str | None:
    """The same for this host; None where DynamicVRAM does not run."""
    import comfy

    memory = getattr(comfy, "memory_management", None)
    if not getattr(memory, "aimdo_enabled", False):
        return None
    from comfy_aimdo import control

    return headroom_setting(control, started_with(args))


def _reader(lib: Any) -> Callable[[], int | None]:
    """Reads the library's own figure; Windows' libraries keep it to themselves."""
    try:
        figure = ctypes.c_int64.in_dll(lib, SYMBOL)
    except (ValueError, AttributeError, TypeError):
        return lambda: None
    return lambda: figure.value
