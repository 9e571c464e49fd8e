"""The autoencoders of LTX-Video 0.9 to LTX-2.3, and the encoder of LTX-2.4."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import torch

from ..program import Phase, Program, Stage
from ._ltx_layers import PIECE, Stream, Timing, reach_of
from ._ltx_noise import Noise, host_limit
from ._ltx_shape import is_decoder, is_encoder, is_ltx
from ._ltx_steps import down_steps, frames_of_latent, patched, up_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from torch import Tensor, nn

    from ..program import Carry, Place
    from ._ltx_layers import Step

    Chunks: TypeAlias = Callable[[int], Sequence[int]]

NAME: Final = "LTX"
UP_HALO: Final = 7
"""Pixels of a stage's input; fewer where the stage does not reach so far. Relative L2 at 4 / 5 /
6 / 7 of the way up from twice the latent's size, measured with random weights and tiles of six
latents: 0.9.0 1.6e-3 / 1.5e-4 / 9e-6 (it reaches 8), LTX-2 5e-5 / 2e-6 (it reaches 10), LTX-2.3
5e-3 / - / 1.5e-4 / 2e-5 (it reaches 15). The way up to there reaches 3 to 8."""
UP_FAST: Final = Fraction(5, 7)
DOWN_HALOS: Final = (96, 10)
"""The same for the way down from pixels, and for the one from a sixteenth of them. Relative L2
with tiles of six latents, the first at 48 / 64 / 80 / 96 / 112: 0.9.0 4e-3 / 5e-4 / 4e-5 / 1e-6
(it reaches 124), LTX-2 - / 3e-4 / 4e-5 / - / 7e-7 (it reaches 268); the second at 4 / 6 / 8 / 10:
0.9.0 2e-2 / 2e-3 / 1e-4 / 6e-7 (it reaches 10), LTX-2 3e-4 / 4e-7 (it reaches 6)."""
DOWN_FAST: Final = Fraction(3, 5)
LATENT_PIECE: Final = 48
"""Frames at the latent's resolution that run at once. What layers keep there between pieces is
some 30 frames, so that shorter ones would save nothing."""
CHUNK: Final = 4
"""Frames that the way up is given at once; they double at its first layer."""
FRAMES_OF_LATENT: Final = 8
"""But for the first, which stands for one."""


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, t, h, w]`` to ``[1, 3, 8 * t - 7, 32 * h, 32 * w]``."""
    if not is_ltx(model) or not is_decoder(model):
        return None
    network: Any = model.decoder
    steps, blocks = up_steps(network)
    grow = _changes(steps)
    if not grow:
        return None
    share = _Shared(model, Noise(blocks, host_limit(network)))
    phases = [_latents_to_features(share, steps[: grow[0]])]
    if len(grow) > 1:
        inner = steps[grow[0] : grow[1]]
        phases.append(_features_to_pixels(share, inner, steps[grow[1]].scale))
    rest = steps[grow[1] if len(grow) > 1 else grow[0] :]
    phases.append(_features_to_pixels(share, rest, steps[-1].scale * network.patch_size))
    return Program(tuple(phases), fast_halo=UP_FAST)


def encoder(model: nn.Module) -> Program | None:
    """From ``[1, 3, t, H, W]`` to ``[1, C, (t + 7) // 8, H // 32, W // 32]``."""
    if not is_ltx(model) or not is_encoder(model):
        return None
    network: Any = model.encoder
    steps = down_steps(network)
    shrink = _changes(steps)
    if not shrink or frames_of_latent(network.down_blocks) != FRAMES_OF_LATENT:
        return None
    timing = Timing(network)
    near, far = DOWN_HALOS
    first, *more = (index + 1 for index in shrink[-2:])
    pixels = partial(patched, size=network.patch_size)
    phases = [
        _way_down(timing, steps[:first], steps[first], near, _one_and_latents, prepare=pixels)
    ]
    phases += [
        _way_down(timing, steps[first:last], steps[last], far, _one_and_pieces) for last in more
    ]
    phases.append(_features_to_latents(model, timing, steps[shrink[-1] + 1 :]))
    return Program(tuple(phases), fast_halo=DOWN_FAST)


def _changes(steps: Sequence[Step]) -> list[int]:
    """Steps whose results are of another size than what they are given."""
    scales = [step.scale for step in steps]
    return [index for index, (one, next_) in enumerate(pairwise(scales)) if one != next_]


class _Shared:
    """What all parts and phases of one decode have in common: what is drawn at random.

    The noise that is mixed into the latent is drawn at once for all of it, as the host does, and
    so is the noise that layers draw for themselves: the same seed gives the host's picture, and a
    part that is tried again comes out the same.
    """

    def __init__(self, model: Any, noise: Noise) -> None:
        self._model, self.noise = model, noise
        self._mixed: Tensor | None = None

    def timing(self) -> Timing:
        """For one chunk of one part."""
        return Timing(self._model.decoder, self._model.decode_timestep)

    def prepared(self, x: Tensor, place: Place) -> Tensor:
        """Latents as the decoder wants them."""
        model = self._model
        if model.timestep_conditioning:
            scale = model.decode_noise_scale
            x = self._mixture(x, place) * scale + (1.0 - scale) * x
        self.noise.draw(x, place.total_frames)
        return model.per_channel_statistics.un_normalize(x)

    def _mixture(self, x: Tensor, place: Place) -> Tensor:
        if self._mixed is None:
            whole = (*x.shape[:2], place.total_frames, *x.shape[3:])
            self._mixed = torch.randn(whole, dtype=x.dtype, device=x.device)
        return self._mixed[:, :, place.first_frame : place.first_frame + place.frames]


def _latents_to_features(share: _Shared, steps: Sequence[Step]) -> Phase:
    """Everything at the latent's resolution: it reaches far, and is cheap to run whole."""

    def run(x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
        stream = Stream(steps, share.timing(), share.noise, carry, place)
        return stream.run(share.prepared(x, place), ended=place.is_last, piece=None)

    return Phase((Stage("latent blocks", run, whole=True),), _in_pieces_of(LATENT_PIECE))


def _features_to_pixels(share: _Shared, steps: Sequence[Step], end: Fraction) -> Phase:
    """From one change of size to before another, or to the pixels, in tiles."""

    def run(x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
        stream = Stream(steps, share.timing(), share.noise, carry, place)
        return stream.run(x, ended=place.is_last)

    begin = steps[0].scale
    halo = min(UP_HALO, ceil(reach_of(steps) * begin))
    stage = Stage(f"up path from {begin}x", run, halo=halo, scale=end / begin)
    return Phase((stage,), _in_pieces_of(CHUNK))


def _way_down(
    timing: Timing,
    steps: Sequence[Step],
    following: Step,
    halo: int,
    chunks: Chunks,
    *,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Phase:
    """From pixels, which ``prepare`` makes features of, or features to smaller ones, in tiles.

    Time ends nowhere: these convolutions look back only, and owe nothing.
    """
    begin = steps[0].scale if prepare is None else Fraction(1)

    def run(x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
        stream = Stream(steps, timing, Noise(), carry, place)
        return stream.run(x if prepare is None else prepare(x), ended=False)

    align = int(begin / following.scale)
    halo = min(halo, ceil(reach_of(steps) * begin))
    name = f"down path from 1/{1 / begin}"
    stage = Stage(name, run, halo=halo, scale=Fraction(1, align), align=align)
    return Phase((stage,), chunks)


def _features_to_latents(model: Any, timing: Timing, steps: Sequence[Step]) -> Phase:
    """Everything at the latent's resolution."""

    def run(x: Tensor, carry: Carry, place: Place) -> Iterator[Tensor]:
        stream = Stream(steps, timing, Noise(), carry, place)
        made = stream.run(x, ended=False, piece=None)
        return map(model.per_channel_statistics.normalize, made)

    return Phase((Stage("latent blocks", run, whole=True),), _in_pieces_of(LATENT_PIECE))


def _in_pieces_of(length: int) -> Chunks:
    def chunks(frames: int) -> tuple[int, ...]:
        full, rest = divmod(frames, length)
        return (*[length] * full, *([rest] if rest else []))

    return chunks


def _one_and_pieces(frames: int) -> tuple[int, ...]:
    """The first frame alone, for layers that halve time want an even number after it."""
    return (1, *_in_pieces_of(PIECE)(frames - 1))


def _one_and_latents(frames: int) -> tuple[int, ...]:
    """The same for pictures; what does not fill a latent frame is dropped, as by the host."""
    return (1, *[FRAMES_OF_LATENT] * ((frames - 1) // FRAMES_OF_LATENT))
