"""Lets ComfyUI's own decode nodes decode safely, without a change to any workflow.

While it is on, the function of each of the two node classes is replaced by one that hands it
a stand-in for its VAE: the node does all it ever did, and its ``vae.decode`` is a safe one. The
VAE class itself is not touched, since samplers and other packs call it too, and neither is a
call of the node's function from another node.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from ...supervisor.planning.types import PlanRequest
from .events import class_of
from .vae import IMAGE_DIMS, VIDEO_DIMS, read_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from .vae import Vae, VaeFacts

    class SafeDecode(Protocol):
        """Decodes a picture latent safely."""

        def __call__(
            self,
            latent: torch.Tensor,
            vae: Vae,
            request: PlanRequest,
            core: Callable[[], torch.Tensor],
        ) -> torch.Tensor:
            """[B, C, H, W] or [B, C, T, H, W] to images [N, H, W, C]; ``core`` is what the
            host would do, for when nothing can be planned."""
            ...


_log = logging.getLogger(__name__)

NODES: Final = ("VAEDecode", "VAEDecodeTiled")
_OF_A_VAE: Final = ("decode", "decode_tiled", "first_stage_model", "memory_used_decode")
_TILE_SIZES: Final = frozenset({"tile_x", "tile_y", "overlap", "tile_t", "overlap_t"})


class Protection:
    """One switch for the functions of core's decode nodes. Thread-safe.

    Args:
        classes: the host's node classes by id.
        executing: the class of the node that runs in this thread, None outside of one.
    """

    def __init__(
        self,
        classes: Callable[[], Mapping[str, type[Any]]],
        executing: Callable[[], type[Any] | None],
        decode: SafeDecode,
    ) -> None:
        self._classes, self._executing, self._decode = classes, executing, decode
        self._hooks: dict[str, _Hook] = {}
        self._lock = threading.Lock()

    def switch_on(self) -> tuple[str, ...]:
        """Protect; once is enough and twice is the same.

        Returns:
            The ids of the nodes that are protected now. Those that another pack provides or
            that are not there are left alone, and the log says so.
        """
        with self._lock:
            if not self._hooks:
                self._hooks = self._placed()
                _log.info("Safe decode for %s is on.", " and ".join(self._hooks) or "no node")
            return tuple(self._hooks)

    def switch_off(self) -> None:
        """Put back what was there, the very same objects.

        Where another pack has since wrapped ours, its wrapper stays and ours inside it only
        passes calls on.
        """
        with self._lock:
            hooks, self._hooks = self._hooks, {}
            buried = [node_id for node_id, hook in hooks.items() if not hook.remove()]
        if hooks:
            _log.info("Safe decode for %s is off.", " and ".join(hooks))
        if buried:
            _log.warning(
                "Another pack has replaced the function of %s meanwhile. What it put there stays; "
                "safe decode does nothing there any more.",
                " and ".join(buried),
            )

    def _placed(self) -> dict[str, _Hook]:
        classes = self._classes()
        hooks: dict[str, _Hook] = {}
        for node_id in NODES:
            owner = classes.get(node_id)
            name = None if owner is None else hookable(owner)
            if owner is None or name is None:
                _log.warning("%s is not core's own node here: its decode stays.", node_id)
                continue
            hooks[node_id] = _Hook(owner, name, self._executing, self._decode)
        return hooks


class _Hook:
    """One replaced class attribute, in place from the start."""

    def __init__(
        self,
        owner: type[Any],
        name: str,
        executing: Callable[[], type[Any] | None],
        decode: SafeDecode,
    ) -> None:
        self._owner, self._name = owner, name
        self._executing, self._decode = executing, decode
        self._active = True
        self._found = vars(owner)[name]
        self._placed = self._wrapper()
        setattr(owner, name, self._placed)

    def remove(self) -> bool:
        """Pass calls on from now; False where somebody else's attribute is in place."""
        self._active = False
        if vars(self._owner).get(self._name) is not self._placed:
            return False
        setattr(self._owner, self._name, self._found)
        return True

    def _wrapper(self) -> Any:
        """Of the same kind as what was found: a function (V1) or a class method (V3)."""
        of_class = isinstance(self._found, classmethod)
        inner: Any = self._found.__func__ if of_class else self._found

        @functools.wraps(inner)
        def decode_node(node: Any, *args: Any, **inputs: Any) -> Any:
            if not self._applies():
                return inner(node, *args, **inputs)
            swapped = {name: self._swapped(value) for name, value in inputs.items()}
            return inner(node, *map(self._swapped, args), **swapped)

        return classmethod(decode_node) if of_class else decode_node

    def _applies(self) -> bool:
        """Whether it is on and the host runs this very node, not one that borrows its code."""
        if not self._active:
            return False
        try:
            return self._executing() is self._owner
        except Exception:  # noqa: BLE001 - whatever it is, the user's decode goes on
            _log.exception("Which node runs cannot be told; core decodes as ever")
            return False

    def _swapped(self, value: Any) -> Any:
        if not all(hasattr(value, name) for name in _OF_A_VAE):
            return value
        try:
            return stand_in(value, self._decode)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("This VAE cannot be stood in for; core decodes as ever")
            return value


def stand_in(vae: Vae, decode: SafeDecode) -> Vae:
    """A copy of the object, sharing model and patcher, whose decodes are safe ones.

    What the safe decode does not know (audio, nested latents, options of some decoders) goes to
    the real object as it came.
    """
    facts = read_facts(vae)

    def whole(samples_in: Any, *others: Any, **options: Any) -> Any:
        def core() -> Any:
            return vae.decode(samples_in, *others, **options)

        asks_more = others or any(name != "vae_options" or value for name, value in options.items())
        if asks_more or not is_picture(samples_in, facts):
            return core()
        return decode(samples_in, vae, PlanRequest(), core)

    def tiled(samples: Any, *others: Any, **sizes: Any) -> Any:
        def core() -> Any:
            return vae.decode_tiled(samples, *others, **sizes)

        request = None if others else tiled_request(sizes, facts)
        if request is None or not is_picture(samples, facts):
            return core()
        return decode(samples, vae, request, core)

    standing: Any = copy.copy(vae)
    standing.decode, standing.decode_tiled = whole, tiled
    return standing


def is_picture(latent: Any, facts: VaeFacts) -> bool:
    """Whether this is one tensor that the VAE decodes to pictures."""
    dims = getattr(latent, "ndim", None)
    nested = bool(getattr(latent, "is_nested", False))
    return facts.pictures and not nested and dims in {IMAGE_DIMS, VIDEO_DIMS}


def tiled_request(sizes: Mapping[str, Any], facts: VaeFacts) -> PlanRequest | None:
    """Sizes as core's tiled node hands them over, in latents, as pixels and frames.

    Returns:
        None where they are none that the node would give.
    """
    tile, overlap = sizes.get("tile_x"), sizes.get("overlap")
    square = bool(tile) and sizes.get("tile_y") == tile and sizes.keys() <= _TILE_SIZES
    if tile is None or overlap is None or not square:
        return None
    scale = facts.spatial_scale
    request = PlanRequest(manual=True, tile_size=tile * scale, overlap=overlap * scale)
    if facts.temporal_scale is None:
        return request
    chunk, shared = sizes.get("tile_t"), sizes.get("overlap_t")
    if not chunk or shared is None:
        return None
    frames = facts.temporal_scale
    return replace(request, temporal_size=chunk * frames, temporal_overlap=shared * frames)


def hookable(owner: type[Any]) -> str | None:
    """The attribute of a core node class that runs it; None for another pack's class, or one
    whose function is no plain function of its own."""
    # The host names the module of what it loads; newer classes that it did not load say None.
    module: str = getattr(owner, "RELATIVE_PYTHON_MODULE", None) or "nodes"
    if not module.startswith(("nodes", "comfy_extras")):
        return None
    name: Any = "execute" if hasattr(owner, "GET_SCHEMA") else getattr(owner, "FUNCTION", None)
    found = vars(owner).get(name)
    function = found.__func__ if isinstance(found, classmethod) else found
    plain = inspect.isfunction(function) and not inspect.iscoroutinefunction(function)
    return name if plain else None


def host_classes() -> Mapping[str, type[Any]]:
    """ComfyUI's node classes by id."""
    host_nodes: Any = importlib.import_module("nodes")  # ComfyUI's own module
    return host_nodes.NODE_CLASS_MAPPINGS


def executing_class() -> type[Any] | None:
    """The class of the node that ComfyUI runs in this thread, None outside of one."""
    from comfy_execution.progress import get_progress_state
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    if context is None:
        return None
    return host_classes().get(class_of(get_progress_state(), context.node_id) or "")
