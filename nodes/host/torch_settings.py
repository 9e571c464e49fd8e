"""The process-wide values this pack may change: ComfyUI's reserve and torch's matmul flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .settings import Setting

RESERVE: Final = "reserved_vram"
FP16_ACCUMULATION: Final = "fp16_accumulation"
TF32: Final = "tf32"


@dataclass(frozen=True, slots=True)
class Reserve:
    """``EXTRA_RESERVED_VRAM`` of ComfyUI's memory manager, in bytes.

    ``load_models_gpu`` reads the module's number each time, so a new value counts from the
    next load on. While several nodes ask, the largest reserve wins: it is the safe one.
    """

    management: Any
    name: str = RESERVE

    def read(self) -> object:
        """Bytes kept free now."""
        return self.management.EXTRA_RESERVED_VRAM

    def write(self, value: object) -> None:
        """Keep ``value`` bytes free."""
        self.management.EXTRA_RESERVED_VRAM = value

    def combine(self, wishes: Sequence[object]) -> object:
        """The largest."""
        return max(cast("Sequence[int]", wishes))


@dataclass(frozen=True, slots=True)
class TorchFlag:
    """Torch flags read and written together; of several wishes the newest wins."""

    name: str
    get: Callable[[], object]
    put: Callable[[object], None]

    def read(self) -> object:
        """The flags now, as ``put`` takes them back."""
        return self.get()

    def write(self, value: object) -> None:
        """True or False for all flags, or what ``read`` gave."""
        self.put(value)

    def combine(self, wishes: Sequence[object]) -> object:
        """The newest."""
        return wishes[-1]


def fp16_accumulation_flag() -> TorchFlag | None:
    """``allow_fp16_accumulation``, None where this torch (before 2.7) has none."""
    import torch

    matmul = torch.backends.cuda.matmul
    try:
        matmul.allow_fp16_accumulation  # noqa: B018
    except AttributeError:
        return None

    def put(value: object) -> None:
        matmul.allow_fp16_accumulation = bool(value)

    return TorchFlag(FP16_ACCUMULATION, lambda: matmul.allow_fp16_accumulation, put)


def tf32_flag() -> TorchFlag:
    """TF32 in cuBLAS matmuls and in cuDNN.

    Torch 2.9 has a newer API beside the old one and refuses to read the old one after
    somebody mixed them. Here the old one is used as long as it can be read, because other
    packs read it; what it leaves different in the new one is put back too.
    """
    return TorchFlag(TF32, _read_tf32, _write_tf32)


_PRECISION: Final = ("cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn")


def _part(path: str) -> object:
    import torch

    found: object = torch.backends
    for name in path.split("."):
        found = getattr(found, name, None)
    return found


def _precisions() -> dict[str, str]:
    """The new API's words by part, empty on a torch without it."""
    read = {path: getattr(_part(path), "fp32_precision", None) for path in _PRECISION}
    return {path: word for path, word in read.items() if isinstance(word, str)}


def _legacy() -> tuple[bool, bool] | None:
    """(matmul, cuDNN), None once somebody mixed the two APIs."""
    import torch

    try:
        return bool(torch.backends.cuda.matmul.allow_tf32), bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


def _read_tf32() -> object:
    return {"legacy": _legacy(), "precision": _precisions()}


def _write_tf32(value: object) -> None:
    if isinstance(value, bool):
        _switch_tf32(on=value)
        return
    before = cast("Mapping[str, object]", value)
    legacy = cast("tuple[bool, bool] | None", before["legacy"])
    if legacy is not None and _legacy() is not None:
        _set_legacy(*legacy)
    _set_precisions(cast("Mapping[str, str]", before["precision"]))


def _switch_tf32(*, on: bool) -> None:
    if _legacy() is not None:
        _set_legacy(on, on)
    else:
        word = "tf32" if on else "ieee"
        _set_precisions(dict.fromkeys(("cuda.matmul", "cudnn.conv", "cudnn.rnn"), word))


def _set_legacy(matmul: bool, cudnn: bool) -> None:  # noqa: FBT001
    import torch

    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn


def _set_precisions(words: Mapping[str, str]) -> None:
    """Write only what differs: writing one part may set others."""
    for path, word in words.items():
        part = _part(path)
        if getattr(part, "fp32_precision", None) != word:
            setattr(part, "fp32_precision", word)  # noqa: B010


def host_settings(management: Any) -> dict[str, Setting]:
    """All settings this host has, by name."""
    found: list[Setting] = [tf32_flag()]
    if hasattr(management, "EXTRA_RESERVED_VRAM"):
        found.append(Reserve(management))
    accumulation = fp16_accumulation_flag()
    if accumulation is not None:
        found.append(accumulation)
    return {setting.name: setting for setting in found}
