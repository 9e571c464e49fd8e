"""Stand-ins for live modules: the same structure, with fakes for every tensor.

Only modules and plain containers are copied. Whatever else hangs off a module is shared: a
host's handles on streamed weights free memory when they go, and a copy would free it twice.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch._subclasses.fake_tensor import FakeTensorMode

_DICTS: Final = (dict, OrderedDict)
_SEQUENCES: Final = (list, tuple, set)


def fake_copy(module: nn.Module, fake: FakeTensorMode) -> nn.Module:
    """A copy of ``module`` on the CPU whose tensors are fakes; the module is left as it is.

    No weight is copied and no device is touched; attributes that name a device name the CPU.

    Args:
        module: the live module.
        fake: the mode the fakes belong to.
    """
    with fake:
        return _Copier().copy(module)


class _Copier:
    """One copy; what was copied once is found again, so that ties and cycles stay."""

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}
        # Keeps the originals, so that an address stands for one object only.
        self._originals: list[object] = []

    def copy(self, value: Any) -> Any:
        """The copy of a value, or the value itself."""
        known = self._copies.get(id(value))
        if known is not None:
            return known
        if isinstance(value, torch.Tensor):
            return self._remember(value, _fake(value))
        if isinstance(value, torch.nn.Module):
            return self._module(value)
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if type(value) in _DICTS or type(value) in _SEQUENCES:
            return self._container(value)
        return self._bound(value)

    def _module(self, module: nn.Module) -> nn.Module:
        stand_in = self._remember(module, type(module).__new__(type(module)))
        # Not through setattr, which torch and some modules override.
        for name, value in vars(module).items():
            vars(stand_in)[name] = self.copy(value)
        return stand_in

    def _container(self, value: Any) -> Any:
        if type(value) in _DICTS:
            items = cast("dict[Any, Any]", value)
            made = self._remember(value, type(value)())
            made.update((key, self.copy(each)) for key, each in items.items())
            return made
        if type(value) is list:
            kept: list[Any] = self._remember(value, [])
            kept.extend(self.copy(each) for each in cast("list[Any]", value))
            return kept
        return self._remember(value, type(value)(self.copy(each) for each in value))

    def _bound(self, value: Any) -> Any:
        """Functions bound to a copied module go to its copy; anything else is shared."""
        if isinstance(value, MethodType) and isinstance(value.__self__, torch.nn.Module):
            return MethodType(value.__func__, self.copy(value.__self__))
        if isinstance(value, partial):
            whole = cast("partial[Any]", value)
            arguments = [self.copy(each) for each in whole.args]
            return partial(self.copy(whole.func), *arguments, **self.copy(dict(whole.keywords)))
        return value

    def _remember(self, original: object, copy: Any) -> Any:
        self._originals.append(original)
        self._copies[id(original)] = copy
        return copy


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
