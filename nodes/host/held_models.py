"""Which models ComfyUI's values hold: patchers within VAEs, CLIPs, guiders and conditionings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DEPTH: Final = 6
MOST_VALUES: Final = 4096
"""A conditioning is a list of pairs with dictionaries; nothing real is deeper or longer."""


def patchers_in(value: object) -> list[object]:
    """The patchers a node's output holds, each once, found by what they can do.

    Tensors and what a node made for itself are not looked into.
    """
    found: dict[int, object] = {}
    seen: set[int] = set()
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting and len(seen) < MOST_VALUES:
        each, depth = waiting.pop()
        if id(each) in seen or each is None or isinstance(each, str | bytes | int | float):
            continue
        seen.add(id(each))
        if is_patcher(each):
            found[id(each)] = each
        if depth < MOST_DEPTH:
            waiting += [(part, depth + 1) for part in _parts(each)]
    return list(found.values())


def is_patcher(value: object) -> bool:
    """Whether the host's memory management can load it."""
    return all(hasattr(value, name) for name in ("model", "load_device", "loaded_size"))


def base_of(patcher: object) -> object | None:
    """The weights that a patcher and its clones share."""
    return getattr(patcher, "model", None)


def kind_of(patcher: object) -> str | None:
    """The type of socket a model comes out of, None where its looks do not tell."""
    base = base_of(patcher)
    if hasattr(base, "encode_token_weights"):
        return "CLIP"
    if hasattr(base, "diffusion_model"):
        return "MODEL"
    return "VAE" if hasattr(base, "decode") else None


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value
    else:
        for name in ("patcher", "model_patcher"):
            yield getattr(value, name, None)
        for name in ("get_models", "get_nested_additional_models", "model_patches_models"):
            yield _asked(value, name)


def _asked(value: object, name: str) -> object | None:
    """What a ControlNet or a patcher says it brings along; only the host's own classes are
    asked, for anybody may have a method of that name."""
    method = getattr(value, name, None)
    if not callable(method) or not type(value).__module__.startswith("comfy."):
        return None
    return method()
