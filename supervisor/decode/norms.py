"""Group normalisation over a picture that is only seen in parts.

``F.group_norm`` takes mean and variance over all of space. Run on a part it would take the
part's own. Inside ``PooledNorms`` it is done in two steps instead: parts are observed, then, with
the statistics of all parts together, each is normalised as the whole would have been.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from .tiles import Rect

NORMS: Final = frozenset({functional.group_norm, torch.group_norm})
COSTLY: Final[frozenset[Any]] = frozenset(
    {
        torch.conv1d,
        torch.conv2d,
        torch.conv3d,
        torch.conv_transpose2d,
        torch.conv_transpose3d,
        torch.cudnn_convolution,
        functional.linear,
        functional.pad,
        functional.interpolate,
        functional.scaled_dot_product_attention,
        torch.cat,
        torch.matmul,
        torch.bmm,
    }
)
"""What is not worth doing once a norm was met whose statistics are not known yet."""


class Observed(Exception):  # noqa: N818
    """A part was run as far as the statistics known so far allow."""


@dataclass(slots=True)
class Moments:
    """Count, mean and sum of squared deviations, float64, for each item and group ``[N, G]``.

    Parts are combined as in Chan, Golub and LeVeque (1983), which keeps its digits where the
    mean is far from zero.
    """

    count: int = 0
    mean: Tensor | None = None
    squares: Tensor | None = None
    folded: Folded | None = None
    """With what the norm learned; made when it is first applied, which is when all is known."""

    def add(self, part: Tensor, groups: int) -> None:
        """Take in a part ``[N, C, ...]``."""
        items, channels = part.shape[:2]
        size = part[0, 0].numel()
        mean, variance = _channel_moments(part)
        self._merge_groups(
            size, mean.view(items, groups, -1), variance.view(items, groups, -1), channels // groups
        )

    def _merge_groups(self, size: int, mean: Tensor, variance: Tensor, per_group: int) -> None:
        """Channels of a group are parts of equal size."""
        group_mean = mean.mean(dim=2)
        spread = (mean - group_mean.unsqueeze(2)).square().sum(dim=2) * size
        self._merge(size * per_group, group_mean, variance.sum(dim=2) * size + spread)

    def _merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.count = total

    def scales(self, eps: float, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        """Mean and 1 / standard deviation, rounded to ``dtype`` where one is given."""
        if self.mean is None or self.squares is None:
            message = "no part was observed"
            raise RuntimeError(message)
        rstd = (self.squares / self.count + eps).rsqrt()
        if dtype is None:
            return self.mean, rstd
        return self.mean.to(dtype).double(), rstd.to(dtype).double()


def _channel_moments(part: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of each item, float64 ``[N * C]``."""
    flat = part.flatten(2).flatten(0, 1)
    if part.is_cuda:
        # One fused pass with float32 sums; it gives 1 / sqrt(var + eps).
        mean, inverse = torch.batch_norm_stats(flat.unsqueeze(0), _TINY)
        variance = inverse.double().pow(-2) - _TINY
        return mean.double(), variance.clamp_(min=0.0)
    variance, mean = torch.var_mean(flat.to(_full(part.dtype)), dim=1, correction=0)
    return mean.double(), variance.double()


def _full(dtype: torch.dtype) -> torch.dtype:
    """What statistics of a type are kept in."""
    return torch.promote_types(dtype, torch.float32)


_TINY: Final = 1e-20


@dataclass(slots=True)
class Statistics:
    """The norms of one stage in the order they are called, over all its parts.

    Attributes:
        known: how many of the calls have all parts in.
        moments: of each call met so far.
    """

    known: int = 0
    moments: list[Moments] = field(default_factory=list[Moments])

    def copy(self) -> Statistics:
        """The same, to go on from."""
        return Statistics(self.known, [replace(each) for each in self.moments])

    def settle(self) -> None:
        """All parts were observed: what was met is known from now on."""
        self.known = len(self.moments)


class PooledNorms(TorchFunctionMode):
    """Runs a part with the statistics of the whole.

    Args:
        statistics: known norms are applied; the first unknown ones are observed, and then
            ``Observed`` is raised before anything costly.
        owned: which rectangle of the part counts, and the part's height and width; norms may see
            it enlarged.
        height: of the part.
        width: of the part.
        peek: raise before anything costly even where no unknown norm was met.
    """

    def __init__(
        self,
        statistics: Statistics,
        owned: Rect,
        height: int,
        width: int,
        *,
        peek: bool = False,
    ) -> None:
        super().__init__()
        self._statistics, self._peek = statistics, peek
        self._owned, self._height, self._width = owned, height, width
        self._calls = 0
        self._input: torch.UntypedStorage | None = None
        """Of the first unknown norm; held, so that its address is nobody else's."""
        self.observed = False

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in NORMS:
            return self._norm(*args, **(kwargs or {}))
        if (self.observed or self._peek) and func in COSTLY:
            raise Observed
        return func(*args, **(kwargs or {}))

    def _norm(  # noqa: PLR0917 - torch's own signature
        self,
        input: Tensor,  # noqa: A002 - named as torch names it
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,  # noqa: FBT001
    ) -> Tensor:
        del cudnn_enabled
        call, self._calls = self._calls, self._calls + 1
        statistics = self._statistics
        if call < statistics.known:
            return _apply(input, num_groups, weight, bias, eps, statistics.moments[call])
        if self.observed and not self._is_known(input):
            # It may be made of what an unknown norm gave, whose values mean nothing.
            raise Observed
        if call == len(statistics.moments):
            statistics.moments.append(Moments())
        statistics.moments[call].add(self._owned_of(input), num_groups)
        self.observed, self._input = True, input.untyped_storage()
        # Shape and type are those of the result; the values are never used.
        return input.clone()

    def _is_known(self, x: Tensor) -> bool:
        """Whether it lies where the input of the first unknown norm does: some networks
        normalise a tensor a few frames at a time."""
        known = self._input
        return known is not None and known.data_ptr() == x.untyped_storage().data_ptr()

    def _owned_of(self, x: Tensor) -> Tensor:
        """The owned rectangle of what a norm is given, which may be finer than the part."""
        finer, rest = divmod(x.shape[-1], self._width)
        if rest or x.shape[-2] != self._height * finer:
            message = (
                f"a norm sees {tuple(x.shape)} where the part is {self._height} x {self._width}"
            )
            raise ValueError(message)
        owned = self._owned.scaled(finer)
        return x[..., owned.top : owned.bottom, owned.left : owned.right]


def _apply(  # noqa: PLR0917 - as torch's
    x: Tensor,
    groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    moments: Moments,
) -> Tensor:
    """Normalise ``[N, C, ...]`` with given moments, in one fused kernel."""
    items, channels = x.shape[:2]
    if moments.folded is None or moments.folded.place != (x.device, x.dtype):
        moments.folded = _fold(moments, x, channels // groups, weight, bias, eps)
    flat = x.reshape(1, items * channels, *x.shape[2:])
    return moments.folded.run(flat, eps).view_as(x)


def _fold(  # noqa: PLR0917
    moments: Moments,
    x: Tensor,
    per_group: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Folded:
    """Statistics and what was learned, for every channel of every item."""
    # torch keeps statistics in the parameters' type on a GPU, and in full on a CPU.
    rounded = x.dtype if weight is None else weight.dtype
    both = moments.scales(eps, rounded if x.is_cuda else None)
    mean, rstd = (each.repeat_interleave(per_group, dim=1).flatten() for each in both)
    full, items = _full(x.dtype), x.shape[0]
    weight, bias = (
        None if each is None else each.to(full).repeat(items) for each in (weight, bias)
    )
    if not x.is_cuda:
        # A batch norm at rest takes a variance and adds eps of its own, which must be positive.
        return Folded(
            (x.device, x.dtype), mean.to(full), (rstd.pow(-2) - eps).to(full), weight, bias
        )
    mean, rstd = mean.to(full), rstd.to(full)
    if weight is None and bias is None:
        return Folded((x.device, x.dtype), mean, rstd)
    # In torch's order, so that a part has the bits of the whole (`group_norm_kernel.cu`): scale
    # and shift first, then one multiply-add for a value. That is what ``1 * (x - 0) * scale +
    # shift`` comes to below.
    scale = rstd if weight is None else rstd * weight
    shift = -(scale * mean) if bias is None else bias - scale * mean
    return Folded((x.device, x.dtype), torch.zeros_like(mean), scale, None, shift)


@dataclass(frozen=True, slots=True)
class Folded:
    """A norm whose statistics are known, as a batch norm ``[N * C]`` in full.

    Attributes:
        place: device and type of what it is for.
        spread: 1 / standard deviation on a GPU, the variance elsewhere.
    """

    place: tuple[torch.device, torch.dtype]
    mean: Tensor
    spread: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None

    def run(self, x: Tensor, eps: float) -> Tensor:
        """Normalise ``[1, N * C, ...]``."""
        if x.is_cuda:
            return torch.batch_norm_elemt(x, self.weight, self.bias, self.mean, self.spread, eps)
        return functional.batch_norm(
            x,
            self.mean,
            self.spread,
            self.weight,
            self.bias,
            training=False,
            momentum=0.0,
            eps=eps,
        )
