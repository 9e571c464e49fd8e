"""Shapes, costs and wishes that plans are made for."""

from vram_supervisor.supervisor.planning.cost import ScaledCost
from vram_supervisor.supervisor.planning.time_model import TimeModel
from vram_supervisor.supervisor.planning.types import Abilities, DecodeShape, PlanRequest
from vram_supervisor.supervisor.units import GiB, MiB

# One latent costs 1 MiB a frame where time counts, 1 MiB in all where it does not.
BY_AREA = ScaledCost(lambda b, _t, h, w: b * h * w * MiB)
BY_VOLUME = ScaledCost(lambda b, t, h, w: b * (t or 1) * h * w * MiB)
PICTURE = DecodeShape(1, 4, None, 64, 64, 8, 1)
WIDE = DecodeShape(1, 16, None, 90, 160, 8, 1)
CLIP = DecodeShape(1, 16, 21, 64, 64, 8, 4)
WHOLE = 64 * 64 * MiB


AUTO = PlanRequest()
ABLE = Abilities()


# One second for each megapixel decoded, one for each GiB evicted or loaded again.
SPEED = TimeModel(
    per_pixel_s=1e-6,
    per_tile_s=0.0,
    per_moved_byte_s=1.0 / GiB,
    evict_per_byte_s=1.0 / GiB,
    reload_per_byte_s=1.0 / GiB,
    cpu_per_pixel_s=1e-4,
)
HALO = Abilities(
    square_tiles=False, streams_time=True, exact_tiles=True, least_overlap_px=96, carves_time=False
)
