"""TAESD, tiny autoencoders: convolutions and ReLU, hardly any norm.

All at the latent's resolution is run whole; some have group norms there. The rest goes up or
down in tiles whose halos are all that convolutions see. The step next to the latent is apart:
what lies between is small, and halos are, too.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from torch.nn import functional

from ..program import Phase, Program, Stage
from ._residual_shape import has_parts
from ._taesd_shape import (
    STEP,
    changes_of,
    grows,
    is_block,
    is_decoder,
    is_encoder,
    is_pooled,
    packs,
    shrinks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from ..program import Carry, Place

    Change: TypeAlias = Callable[[Tensor], Tensor]

NAME: Final = "TAESD"
PACKED: Final = 2
"""Pixels along one side that one of Flux 2's latent stands for."""
BLOCK_REACH: Final = 3
"""Three convolutions of three pixels."""
FAST: Final = Fraction(1, 2)
"""Relative L2 with half of the halos and trained weights: 0.0037 down to pixels, 0.0012 back; with
a quarter 0.014."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, h, w]`` to ``[1, 3, 8 * h, 8 * w]``, twice that for Flux 2."""
    if not _is_taesd(model):
        return None
    network: Any = model.taesd_decoder
    if not is_decoder(network):
        return None
    layers = list(network)
    first, second, *_ = changes_of(layers)
    near, step, far = layers[:first], layers[first:second], layers[second:]
    if not _are(step, grows) or not _are(far, grows):
        return None
    packed = PACKED if packs(network) else 1
    enter = partial(_run, near, before=partial(_enter, model, packed))
    leave = partial(_run, far, after=_to_range)
    phases = (
        _phase("latent blocks", enter, 0, Fraction(packed), whole=True),
        _phase("first step up", partial(_run, step), reach_of(step), Fraction(STEP)),
        _phase("up path", leave, reach_of(far), Fraction(STEP ** len(changes_of(far)))),
    )
    return Program(phases, fast_halo=FAST)


def encoder(model: nn.Module) -> Program | None:
    """From ``[1, 3, H, W]`` to ``[1, C, H / 8, W / 8]``, half that for Flux 2."""
    if not _is_taesd(model):
        return None
    network: Any = model.taesd_encoder
    if not is_encoder(network):
        return None
    layers = list(network)
    *_, second, first = changes_of(layers)
    far, step, near = layers[: second + 1], layers[second + 1 : first + 1], layers[first + 1 :]
    if not _are(far, shrinks) or not _are(step, shrinks):
        return None
    packed = PACKED if packs(network) else 1
    enter = partial(_run, far, before=_from_range)
    leave = partial(_run, near, after=partial(_leave, model, packed))
    smaller = STEP ** len(changes_of(far))
    phases = (
        _phase("down path", enter, reach_of(far), Fraction(1, smaller)),
        _phase("last step down", partial(_run, step), reach_of(step), Fraction(1, STEP)),
        _phase("latent blocks", leave, 0, Fraction(1, packed), whole=True),
    )
    return Program(phases, fast_halo=FAST)


def _is_taesd(model: Any) -> bool:
    return (
        has_parts(model, ("taesd_encoder", "taesd_decoder"))
        and isinstance(getattr(model, "vae_scale", None), torch.Tensor)
        and isinstance(getattr(model, "vae_shift", None), torch.Tensor)
    )


def _are(layers: Sequence[Any], changes: Callable[[Any], bool]) -> bool:
    """Whether the size changes one way only, and no norm sees the whole picture."""
    return not any(map(is_pooled, layers)) and all(
        changes(layers[index]) for index in changes_of(layers)
    )


def reach_of(layers: Sequence[Any]) -> int:
    """How many pixels of the input around a part its result depends on."""
    reach = 0
    for layer in reversed(layers):
        if grows(layer):
            reach = -(-reach // STEP)
        elif shrinks(layer):
            reach = reach * STEP + 1
        else:
            reach += BLOCK_REACH if is_block(layer) else 1
    return reach


def _phase(name: str, run: Change, halo: int, scale: Fraction, *, whole: bool = False) -> Phase:
    def on_part(x: Tensor, carry: Carry, place: Place) -> Tensor:
        del carry, place
        return run(x)

    return Phase((Stage(name, on_part, halo, scale, whole, align=scale.denominator),))


def _same(x: Tensor) -> Tensor:
    return x


def _run(
    layers: Sequence[Any], x: Tensor, *, before: Change = _same, after: Change = _same
) -> Tensor:
    x = before(x)
    for layer in layers:
        x = layer(x)
    return after(x)


def _enter(model: Any, packed: int, x: Tensor) -> Tensor:
    return functional.pixel_shuffle((x - model.vae_shift) * model.vae_scale, packed)


def _leave(model: Any, packed: int, x: Tensor) -> Tensor:
    return functional.pixel_unshuffle(x, packed) / model.vae_scale + model.vae_shift


def _to_range(x: Tensor) -> Tensor:
    return x.sub(0.5).mul(2)


def _from_range(x: Tensor) -> Tensor:
    return x * 0.5 + 0.5
