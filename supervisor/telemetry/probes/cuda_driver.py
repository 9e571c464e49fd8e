"""What CUDA's driver library says of its devices, asked without waking torch or a device.

``torch.cuda.get_device_properties`` initialises torch's CUDA state, which a monitor must not
do; NVML numbers devices differently. The driver library has the order CUDA uses and the
UUIDs, and none of the calls here creates a context.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from dataclasses import dataclass
from typing import Any, Final

from ...errors import ProbeUnavailableError

_MAJOR: Final = 75
_MINOR: Final = 76
_INTEGRATED: Final = 18
_NAME_BYTES: Final = 256
_UUID_BYTES: Final = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CudaDevice:
    """One CUDA device of this process. All but its place in CUDA's order may be unknown.

    Attributes:
        uuid: plain, without ``GPU-`` or ``MIG-``.
        integrated: the GPU shares the system RAM.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    total_bytes: int | None = None
    capability: str | None = None
    integrated: bool = False


class CudaDriver:
    """The driver library, initialised.

    Raises:
        ProbeUnavailableError: there is none, or it does not initialise.
    """

    def __init__(self, library: Any | None = None) -> None:  # noqa: ANN401 - a ctypes library
        self._library = _load() if library is None else library
        self._call("cuInit", 0)

    def devices(self) -> tuple[CudaDevice, ...]:
        """Every device CUDA leaves to this process.

        Raises:
            ProbeUnavailableError: the driver does not answer.
        """
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        return tuple(self._device(index) for index in range(count.value))

    def has_context(self, index: int) -> bool | None:
        """Whether this process has a context on the device; None if it cannot be told."""
        flags, active = ctypes.c_uint(), ctypes.c_int()
        try:
            self._call(
                "cuDevicePrimaryCtxGetState",
                self._handle(index),
                ctypes.byref(flags),
                ctypes.byref(active),
            )
        except ProbeUnavailableError as error:
            _log.debug("No context state for device %d: %s", index, error)
            return None
        return bool(active.value)

    def _device(self, index: int) -> CudaDevice:
        handle = self._handle(index)
        name = ctypes.create_string_buffer(_NAME_BYTES)
        total = ctypes.c_size_t()
        self._call("cuDeviceGetName", name, _NAME_BYTES, handle)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(total), handle)
        major, minor = self._attribute(_MAJOR, handle), self._attribute(_MINOR, handle)
        return CudaDevice(
            index=index,
            uuid=self._uuid(handle),
            name=name.value.decode(errors="replace"),
            total_bytes=total.value,
            capability=f"{major}.{minor}",
            integrated=bool(self._attribute(_INTEGRATED, handle)),
        )

    def _handle(self, index: int) -> ctypes.c_int:
        handle = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(handle), index)
        return handle

    def _attribute(self, attribute: int, handle: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
        return value.value

    def _uuid(self, handle: ctypes.c_int) -> str:
        """Version 2 names a MIG instance, version 1 the GPU it is on."""
        raw = (ctypes.c_ubyte * _UUID_BYTES)()
        try:
            self._call("cuDeviceGetUuid_v2", raw, handle)
        except ProbeUnavailableError:
            self._call("cuDeviceGetUuid", raw, handle)
        digits = bytes(raw).hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def _call(self, name: str, *arguments: object) -> None:
        function = getattr(self._library, name, None)
        if function is None:
            raise ProbeUnavailableError("CUDA driver", f"it has no {name}")
        code = function(*arguments)
        if code != 0:
            raise ProbeUnavailableError("CUDA driver", f"{name} failed with code {code}")


def _load() -> ctypes.CDLL:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise ProbeUnavailableError("CUDA driver", f"{name} cannot be loaded") from error
