"""What a node's widgets ask of the process-wide settings, and what a prompt asks at its start.

Pure. A cached node does not run on a second queue, so what must hold for the whole job is
read from the prompt before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ...supervisor.units import from_gib
from .torch_settings import FP16_ACCUMULATION, RESERVE, TF32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SUPPORTER: Final = "IAMCCS_HwSupporter"
SUPPORTER_ANY: Final = "IAMCCS_HwSupporterAny"
SWITCHES: Final = (FP16_ACCUMULATION, TF32)

_MIN_CAPABILITY: Final = {FP16_ACCUMULATION: (7, 0), TF32: (8, 0)}
_WHY: Final = {
    FP16_ACCUMULATION: "needs tensor cores (CUDA capability 7.0 or newer)",
    TF32: "needs an NVIDIA GPU of the Ampere generation (capability 8.0) or newer",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What of the hardware decides whether a switch does anything.

    Attributes:
        kind: ``"cuda"``, ``"hip"``, ``"xpu"``, ``"mps"`` or ``"cpu"``.
        capability: CUDA compute capability, None elsewhere.
        known: names of the settings this torch and host have.
    """

    kind: str
    capability: tuple[int, int] | None
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class Switch:
    """How one auto/on/off widget comes out here.

    Attributes:
        value: what to set, None to leave the flag alone.
        effective: whether the hardware computes that way with this value.
        warning: why a wish comes to nothing, None when it does not.
    """

    value: bool | None
    effective: bool
    warning: str | None = None


def resolve_switch(name: str, wish: str, machine: Machine) -> Switch:
    """Turn auto/on/off into a value.

    ``on`` and ``off`` are set wherever torch has the flag, ``auto`` turns it on only where
    the hardware gains from it. A flag the hardware ignores is said to be without effect.
    """
    if name not in machine.known:
        warning = f"{name} is not available in this PyTorch" if wish == "on" else None
        return Switch(None, effective=False, warning=warning)
    capable = _capable(name, machine)
    if wish == "off":
        return Switch(value=False, effective=False)
    if wish == "on":
        warning = None if capable else f"{name} is set but has no effect here: it {_WHY[name]}"
        return Switch(value=True, effective=capable, warning=warning)
    return Switch(value=True if capable else None, effective=capable)


def _capable(name: str, machine: Machine) -> bool:
    capability = machine.capability
    return machine.kind == "cuda" and capability is not None and capability >= _MIN_CAPABILITY[name]


def reserve_bytes(inputs: Mapping[str, object], profile_gb: Callable[[str], float]) -> int | None:
    """The reserve these widgets ask for; None when they ask for none.

    ``profile_gb`` gives a profile's reserve, which stands in where the widget says 0.
    """
    if inputs.get("apply_reserved_vram", True) is not True:
        return None
    asked_gb = _number(inputs.get("reserved_vram_gb"))
    if asked_gb is None:
        return None
    if asked_gb <= 0:
        asked_gb = profile_gb(str(inputs.get("profile", "auto")))
    return from_gib(asked_gb)


def wishes_of_node(
    class_type: str,
    inputs: Mapping[str, object],
    machine: Machine,
    profile_gb: Callable[[str], float],
) -> dict[str, object]:
    """What one node wants to hold for a whole job.

    HwSupporter's switches are not among it: they ride on its model and hold while that
    model samples.
    """
    wishes: dict[str, object] = {}
    wanted_bytes = reserve_bytes(inputs, profile_gb)
    if wanted_bytes is not None and RESERVE in machine.known:
        wishes[RESERVE] = wanted_bytes
    if class_type == SUPPORTER_ANY:
        for name in SWITCHES:
            value = resolve_switch(name, str(inputs.get(name, "auto")), machine).value
            if value is not None:
                wishes[name] = value
    return wishes


def wishes_of_prompt(
    prompt: Mapping[str, object],
    outputs: Iterable[str],
    machine: Machine,
    profile_gb: Callable[[str], float],
) -> dict[str, dict[str, object]]:
    """What the supporter nodes of a prompt want to hold from its start, by node id.

    Only nodes that lead to ``outputs`` count. A widget fed by a link is unknown until its
    node runs: the node then holds it itself.
    """
    found: dict[str, dict[str, object]] = {}
    for node_id in _leading_to(prompt, outputs):
        class_type, _ = _node(prompt, node_id)
        if class_type not in (SUPPORTER, SUPPORTER_ANY):
            continue
        wishes = wishes_of_node(class_type, inputs_of(prompt, node_id), machine, profile_gb)
        if wishes:
            found[node_id] = wishes
    return found


def inputs_of(prompt: Mapping[str, object], node_id: str) -> dict[str, object]:
    """A node's inputs as far as they are known before it runs: links are left out."""
    inputs = _node(prompt, node_id)[1]
    return {name: value for name, value in inputs.items() if not _is_link(value)}


def _leading_to(prompt: Mapping[str, object], outputs: Iterable[str]) -> list[str]:
    """The outputs and all they depend on, each once."""
    waiting = [node_id for node_id in outputs if node_id in prompt]
    seen = dict.fromkeys(waiting)
    while waiting:
        _, inputs = _node(prompt, waiting.pop())
        for value in inputs.values():
            source = _link_source(value)
            if source is not None and source in prompt and source not in seen:
                seen[source] = None
                waiting.append(source)
    return list(seen)


def _node(prompt: Mapping[str, object], node_id: str) -> tuple[str, Mapping[str, object]]:
    node = prompt[node_id]
    if not isinstance(node, Mapping):
        return "", {}
    inputs = node.get("inputs")
    return str(node.get("class_type", "")), inputs if isinstance(inputs, Mapping) else {}


def _is_link(value: object) -> bool:
    return _link_source(value) is not None


def _link_source(value: object) -> str | None:
    """A link in an API prompt is ``[node id, output index]``."""
    match value:
        case [str() as node_id, int()]:
            return node_id
        case _:
            return None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
