"""Bytes of live tensors and their peak, for real tensors and for fakes.

On the CPU this is the measured peak of a decode (kernel scratch excluded); under fake tensors
it is the dry run: the same figure before anything is allocated.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, dtype and device of an input that a dry run makes up."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"


class LiveBytes(TorchDispatchMode):
    """Counts the storages that tensor operations create while the mode is entered.

    A storage counts once however many views it has, from the operation that made it until
    the last tensor on it is gone. Tensors made before the mode was entered never count.

    Attributes:
        live_bytes: bytes alive now.
        peak_bytes: the most that was alive at once.
    """

    def __init__(self, device_type: str | None = None, ignore: Iterable[Tensor] = ()) -> None:
        """Count on ``device_type`` only (None: everywhere), but never ``ignore``'s storages."""
        super().__init__()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._device_type = device_type
        self._live: dict[int, int] = {}
        # Kept alive, so that their addresses cannot be handed to new storages.
        self._ignored = [tensor.untyped_storage() for tensor in ignore]
        self._ignored_ids = {_key(storage) for storage in self._ignored}

    @override
    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and count the storages of its results."""
        given = self._storage_ids((args, kwargs))
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, given)
        return result

    def _storage_ids(self, tree: object) -> set[int]:
        """Storages an operation was given: results on them are views or in place."""
        leaves = tree_leaves(tree)
        return {_key(t.untyped_storage()) for t in leaves if isinstance(t, torch.Tensor)}

    def _count(self, tensor: Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = _key(storage)
        if key in self._live or key in given or key in self._ignored_ids:
            return
        if self._device_type is not None and tensor.device.type != self._device_type:
            return
        size_bytes = storage.nbytes()
        self._live[key] = size_bytes
        self.live_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        # The finalizer must not keep the mode alive, nor be run at exit.
        weakref.finalize(storage, _forget, weakref.ref(self), key).atexit = False

    def _drop(self, key: int) -> None:
        self.live_bytes -= self._live.pop(key, 0)


def _key(storage: torch.UntypedStorage) -> int:
    """The address of the storage itself; that of its data is 0 for fakes."""
    return storage._cdata  # pyright: ignore[reportPrivateUsage]


def _forget(mode: weakref.ref[LiveBytes], key: int) -> None:
    counter = mode()
    if counter is not None:
        counter._drop(key)  # pyright: ignore[reportPrivateUsage]


def dry_run_peak(module: nn.Module, run: Callable[..., object], *inputs: TensorSpec) -> int:
    """Peak bytes of the tensors that ``run(module, *inputs)`` makes, allocating none of them.

    Args:
        module: the live module; a copy with fake parameters stands in for it.
        run: what to dry-run, called with that copy and fake inputs.
        inputs: the inputs, which do not count: the caller holds them anyway.

    Returns:
        What ``LiveBytes`` would measure for the real call on the inputs' device. Parameters
        and buffers do not count. Kernel workspace is not in it.
    """
    fake = FakeTensorMode()
    stand_in = fake_copy(module, fake)
    with fake, torch.inference_mode():
        tensors = [torch.empty(i.shape, dtype=i.dtype, device=i.device) for i in inputs]
        held = [*tensors, *stand_in.parameters(), *stand_in.buffers()]
        device = inputs[0].device.partition(":")[0] if inputs else None
        with LiveBytes(device, ignore=held) as counter:
            result = run(stand_in, *tensors)
            del result
    return counter.peak_bytes


def fake_copy(module: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy of ``module`` whose parameters and buffers are fakes; no weight is copied."""
    held = (*module.parameters(), *module.buffers())
    memo: dict[int, object] = {id(tensor): fake.from_tensor(tensor) for tensor in held}
    return copy.deepcopy(module, memo)
