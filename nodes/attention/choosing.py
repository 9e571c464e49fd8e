"""Which kernel a mode means on this machine. Pure but for looking into installed packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from .kernels import AUTO, BLACKWELL, FP16_CUDA, SAGE, Kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .kernels import Capability

_log = logging.getLogger(__name__)

DISABLED: Final = "disabled"
AUTOMATIC: Final = "auto"
TRITON_ON_WINDOWS: Final = (
    "Triton on Windows may end ComfyUI without an error (libtriton.pyd, exception 0x80000003). "
    f"That is a crash of Triton, not a lack of memory: choose {FP16_CUDA} or disabled, and "
    "restart ComfyUI."
)


class Packages(Protocol):
    """What is installed; a test can stand in for it."""

    def problem(self, module: str) -> str | None:
        """Why the module cannot be used, None where it can."""
        ...

    def function(self, module: str, name: str) -> Callable[..., Any] | None:
        """A function of a usable module, None where it has none of that name."""
        ...

    def version(self, module: str) -> tuple[int, ...] | None:
        """Of the distribution the module came with; None if unknown."""
        ...


class InstalledPackages:
    """Modules of this interpreter, imported when they are first asked for."""

    def problem(self, module: str) -> str | None:
        """Not installed, or broken."""
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as missing:
            return f"{missing.name} is not installed"
        except Exception as broken:  # noqa: BLE001 - built for another torch, a library missing
            _log.info("%s cannot be imported", module, exc_info=broken)
            return f"{module} is installed but cannot be imported ({broken})"
        return None

    def function(self, module: str, name: str) -> Callable[..., Any] | None:
        """A function of a module that ``problem`` found usable."""
        return getattr(importlib.import_module(module), name, None)

    def version(self, module: str) -> tuple[int, ...] | None:
        """Leading numbers of the version: ``"2.2.0+cu128"`` is (2, 2, 0)."""
        try:
            text = importlib.metadata.version(module)
        except importlib.metadata.PackageNotFoundError:
            return None
        leading = re.match(r"\d+(\.\d+)*", text)
        return None if leading is None else tuple(map(int, leading[0].split(".")))


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernel would run: ``DeviceInfo.kind``, capability, ``platform.system()``."""

    kind: str
    capability: Capability | None
    os_name: str

    @property
    def is_windows(self) -> bool:
        """Whether Triton may crash the process."""
        return self.os_name == "Windows"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a mode comes to.

    Attributes:
        kernel: None: the host's attention stays.
        options: keyword arguments of its calls here.
        why: for the report, where no kernel was found.
        warning: what to know of the kernel that was found.
    """

    kernel: Kernel | None
    options: Mapping[str, object]
    why: str | None = None
    warning: str | None = None


def choose(mode: str, place: Place, table: Iterable[Kernel], packages: Packages) -> Choice:
    """The kernel for a mode of the widget; ``auto`` never gives one that compiles with Triton on
    Windows, where a crash of Triton takes the process with it."""
    table = tuple(table)
    if mode == DISABLED:
        return Choice(None, {})
    modes = _automatic(place) if mode == AUTOMATIC else (mode,)
    problems = [] if modes else [_nothing_known(place)]
    for kernel in (kernel for wanted in modes for kernel in table if kernel.mode == wanted):
        if mode == AUTOMATIC and kernel.triton and place.is_windows:
            problems.append(f"{kernel.mode} is Triton's, which auto leaves alone on Windows")
            continue
        problem = _problem(kernel, place, packages)
        if problem is None:
            return _chosen(kernel, place)
        problems.append(problem)
    return Choice(None, {}, "; ".join(dict.fromkeys(problems)) or f"{mode} is not known")


def _chosen(kernel: Kernel, place: Place) -> Choice:
    options = dict(kernel.options)
    if kernel.triton_quantises and (place.is_windows or _is_blackwell(place)):
        # On these SageAttention's own choice is per_warp too, or Triton does not belong.
        options["qk_quant_gran"] = "per_warp"
    warning = TRITON_ON_WINDOWS if kernel.triton and place.is_windows else None
    return Choice(kernel, options, warning=warning)


def _automatic(place: Place) -> tuple[str, ...]:
    if place.kind != "cuda" or place.capability is None:
        return ()
    return AUTO.get(place.capability, ())


def _nothing_known(place: Place) -> str:
    if place.kind != "cuda" or place.capability is None:
        return f"auto uses SageAttention on NVIDIA GPUs only, jobs run on {place.kind} here"
    return f"auto knows no kernel for CUDA capability {_dotted(place.capability)}"


def _problem(kernel: Kernel, place: Place, packages: Packages) -> str | None:
    """Why a kernel cannot run here; the machine is asked before the package is imported."""
    return _machines_problem(kernel, place) or _packages_problem(kernel, packages)


def _machines_problem(kernel: Kernel, place: Place) -> str | None:
    if place.kind not in kernel.kinds:
        return f"{kernel.mode} does not run on {place.kind}"
    if place.kind != "cuda":
        return None
    if place.capability is None:
        return "the GPU's CUDA capability is unknown"
    here = _dotted(place.capability)
    if kernel.only is not None and place.capability not in kernel.only:
        known = " or ".join(_dotted(each) for each in sorted(kernel.only))
        return f"{kernel.function} is built for CUDA capability {known}, this GPU has {here}"
    if place.capability < kernel.lowest:
        least = _dotted(kernel.lowest)
        return f"{kernel.mode} needs CUDA capability {least} or newer, this GPU has {here}"
    return None


def _packages_problem(kernel: Kernel, packages: Packages) -> str | None:
    problem = packages.problem(kernel.module)
    if problem is not None:
        return problem
    newer = kernel.newer_than
    if newer is not None and packages.function(kernel.module, newer) is not None:
        return f"the installed {kernel.module} has {newer} instead of {kernel.function}"
    if packages.function(kernel.module, kernel.function) is None:
        source = " (it is in version 2, built from source)" if kernel.module == SAGE else ""
        return f"the installed {kernel.module} has no {kernel.function}{source}"
    version, least = packages.version(kernel.module), kernel.least_version
    if version is not None and least is not None and version < least:
        needed, found = (".".join(map(str, each)) for each in (least, version))
        return f"{kernel.mode} needs {kernel.module} {needed} or newer, {found} is installed"
    return None


def _is_blackwell(place: Place) -> bool:
    return place.capability is not None and place.capability >= BLACKWELL


def _dotted(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"
