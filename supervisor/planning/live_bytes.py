"""Bytes of live tensors and their peak, for real tensors and for fakes.

On the CPU this is the measured peak of a decode (kernel scratch excluded); under fake tensors
it is the dry run: the same figure before anything is allocated.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor
    from torch._ops import OpOverload as Operation

_COMPOSITE: Final = torch._C.DispatchKey.CompositeImplicitAutograd  # pyright: ignore[reportPrivateUsage]
_has_kernel: Final = torch._C._dispatch_has_kernel_for_dispatch_key  # pyright: ignore[reportPrivateUsage]

_composite: dict[object, bool] = {}
"""Which operations are made of others; asked once each, for the answer is slow."""


class LiveBytes(TorchDispatchMode):
    """Counts the storages that tensor operations create while the mode is entered.

    A storage counts once however many views it has, from the operation that made it until
    the last tensor on it is gone. Tensors made before the mode was entered never count.
    Operations made of others are taken apart, so that what they hold in between counts too.

    Attributes:
        live_bytes: bytes alive now.
        peak_bytes: the most that was alive at once.
        operations: how many operations ran.
    """

    def __init__(self, device_type: str | None = None, ignore: Iterable[Tensor] = ()) -> None:
        """Count on ``device_type`` only (None: everywhere), but never ``ignore``'s storages."""
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self.operations = 0
        self._device_type = device_type
        self._live: dict[int, tuple[int, object]] = {}
        # Kept alive, so that their addresses cannot be handed to new storages.
        self._ignored = [tensor.untyped_storage() for tensor in ignore]
        self._ignored_ids = {_key(storage) for storage in self._ignored}

    @override
    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count the storages of its results."""
        return self.run(func, args, kwargs or {})

    def run(self, func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Run one operation; what a subclass overrides to see more of it."""
        if is_composite(func):
            with self:
                # Not ``decompose``: that prefers Python's own, which are made for tracing and
                # hold more than the kernels do (interpolation).
                return func._op_dk(_COMPOSITE, *args, **kwargs)  # pyright: ignore[reportPrivateUsage]
        self.operations += 1
        result = func(*args, **kwargs)
        self.count(result, (args, kwargs))
        return result

    def count(self, result: object, given: object) -> None:
        """Count the storages of ``result`` that are neither known nor among ``given``."""
        made = _tensors(result)
        for tensor in made:
            self._resized(tensor.untyped_storage())
        fresh = [t for t in made if self._is_new(t)]
        if not fresh:
            return
        before = {_key(t.untyped_storage()) for t in tree_leaves(given) if _is_tensor(t)}
        for tensor in fresh:
            if _key(tensor.untyped_storage()) not in before:
                self._add(tensor.untyped_storage())
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def is_ignored(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on a storage that was passed as ``ignore``."""
        return _key(tensor.untyped_storage()) in self._ignored_ids

    def _resized(self, storage: torch.UntypedStorage) -> None:
        """Operations that write into a given tensor may make its storage larger."""
        key = _key(storage)
        known = self._live.get(key)
        if known is None or known[0] == storage.nbytes():
            return
        self.live_bytes += storage.nbytes() - known[0]
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self._live[key] = (storage.nbytes(), known[1])

    def _is_new(self, tensor: Tensor) -> bool:
        key = _key(tensor.untyped_storage())
        if key in self._live or key in self._ignored_ids:
            return False
        return self._device_type is None or tensor.device.type == self._device_type

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size_bytes = _key(storage), storage.nbytes()
        if key in self._live:  # two results of one operation on one storage
            return
        counter = weakref.ref(self)

        def gone(_reference: object) -> None:
            # The reference must not keep the mode alive.
            mode = counter()
            if mode is not None:
                mode._drop(key)

        self._live[key] = (size_bytes, weakref.ref(storage, gone))
        self.live_bytes += size_bytes

    def _drop(self, key: int) -> None:
        size_bytes, _ = self._live.pop(key, (0, None))
        self.live_bytes -= size_bytes


def is_composite(func: Operation) -> bool:
    """Whether torch runs an operation by running others (convolution layers, attention)."""
    known = _composite.get(func)
    if known is None:
        # TorchScript's own (prim::device) are not in the dispatcher, which then throws.
        known = func.namespace != "prim" and _has_kernel(func.name(), _COMPOSITE)
        _composite[func] = known
    return known


def _tensors(result: object) -> list[Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor)


def _key(storage: torch.UntypedStorage) -> int:
    """The address of the storage itself; that of its data is 0 for fakes."""
    return storage._cdata  # pyright: ignore[reportPrivateUsage]
