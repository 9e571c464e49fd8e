"""The autoencoders of HunyuanImage 2.1 and of its refiner: group norms over the whole picture.

The refiner's works on clips, and for a picture keeps the last of the frames it makes of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..program import Phase, Program, Stage
from ._hunyuan_shape import is_clip_upsample, is_decoder, is_picture_upsample
from ._kl_shape import is_engine
from ._residual_shape import DEEP, FLAT
from ._residual_stages import (
    first_stage,
    head,
    level_stages,
    middle_stages,
    plain,
    upsample_stage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from ..program import Carry, Place

NAME: Final = "HunyuanImage"


def decoder(model: nn.Module) -> Program | None:
    """From ``[1, C, h, w]`` to ``[1, 3, 32 * h, 32 * w]``; the refiner's from ``[1, C, t, h, w]``
    to ``[1, 3, 4 * t, 16 * h, 16 * w]``, or one frame of one."""
    if not is_engine(model):
        return None
    network: Any = model.decoder
    if not _is_for_pictures(network) and not _is_for_clips(network):
        return None
    first = first_stage("latents", partial(enter, network, plain), network.mid.block_1, plain)
    stages = (first, *middle_stages(network.mid), *_up_stages(network))
    return Program((Phase(stages),), frames=pixel_frames)


def pixel_frames(latent_frames: int) -> int:
    """Frames that the refiner makes of so many; ComfyUI tells three too few of several."""
    return 1 if latent_frames == 1 else 4 * latent_frames


def _is_for_pictures(network: Any) -> bool:
    return is_decoder(network, FLAT, partial(is_picture_upsample, kind=FLAT))


def _is_for_clips(network: Any) -> bool:
    if getattr(network, "refiner_vae", None) is not False:
        return False
    return is_decoder(network, DEEP, partial(is_clip_upsample, kind=DEEP, refiner=False))


def enter(network: Any, convolve: Any, x: Tensor, carry: Carry) -> Tensor:
    """The first convolution and the way around it."""
    around = x.repeat_interleave(network.block_out_channels[0] // network.z_channels, dim=1)
    return convolve(network.conv_in, x, carry) + around


def _up_stages(network: Any) -> Iterator[Stage]:
    for index, level in enumerate(network.up):
        yield from level_stages(f"level {index}", level, plain)
        if hasattr(level, "upsample"):
            yield upsample_stage(f"level {index} upsampling", level.upsample, plain)

    def run(x: Tensor, carry: Carry, place: Place) -> Tensor:
        made = head(network, x, carry, call=plain)
        is_picture = x.ndim > _PICTURE_DIMS and place.total_frames == 1
        return made[:, :, -1:] if is_picture else made

    yield Stage("pixels", run, halo=1)


_PICTURE_DIMS: Final = 4
