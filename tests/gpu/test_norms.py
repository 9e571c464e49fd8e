"""Group norm of parts has the bits of torch's own on a GPU, given torch's own statistics."""

from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

from vram_supervisor.supervisor.decode.norms import Moments, PooledNorms, Statistics  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402

pytestmark = pytest.mark.gpu

GROUPS = 32
EPS = 1e-6
CUDA = torch.device("cuda")


@dataclass
class Given(Moments):
    """Statistics as torch rounded them."""

    rstd: object = None

    def scales(self, eps, dtype=None):
        return self.mean.double(), self.rstd.double()


def made(shape, dtype, seed=0):
    random = torch.Generator(CUDA).manual_seed(seed)
    return torch.randn(shape, generator=random, device=CUDA, dtype=dtype)


def normalised(x, weight, bias, rows=slice(None)):
    """What torch makes of the whole, and what a part makes of torch's statistics."""
    items, channels = x.shape[:2]
    whole, mean, rstd = torch.native_group_norm(
        x, weight, bias, items, channels, x[0, 0].numel(), GROUPS, EPS
    )
    moments = Given(1, mean.view(items, GROUPS), rstd=rstd.view(items, GROUPS))
    part = x[..., rows, :]
    height, width = part.shape[-2:]
    with PooledNorms(Statistics(1, [moments]), Rect(0, height, 0, width), height, width):
        got = torch.group_norm(part, GROUPS, weight, bias, EPS)
    return whole[..., rows, :], got


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 512, 128, 128), (2, 128, 100, 333), (1, 256, 4, 90, 160)])
@pytest.mark.parametrize("learned", ["weight and bias", "weight", "neither"])
def test_a_part_has_the_bits_of_the_whole(dtype, shape, learned):
    weight = made(shape[1], dtype, 1) if "weight" in learned else None
    bias = made(shape[1], dtype, 2) if "bias" in learned else None
    whole, part = normalised(made(shape, dtype) * 2 + 0.3, weight, bias, slice(20, 70))
    assert torch.equal(whole, part)


def test_parts_past_the_range_of_an_int_have_too():
    shape = (1, 64, 5800, 5800)
    if torch.cuda.mem_get_info()[0] < 32 * 2**30:
        pytest.skip("needs 32 GiB")
    x = made(shape, torch.bfloat16)
    assert x.numel() > 2**31
    whole, part = normalised(x, made(64, torch.bfloat16, 1), made(64, torch.bfloat16, 2))
    assert torch.equal(whole, part)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pooled_statistics_are_torchs_but_for_rare_roundings(dtype):
    x = made((1, 512, 512, 512), dtype) * 2 + 0.3
    _, mean, rstd = torch.native_group_norm(x, None, None, 1, 512, 512 * 512, GROUPS, EPS)
    moments = Moments()
    for rows in (slice(0, 100), slice(100, 512)):
        moments.add(x[..., rows, :], GROUPS)
    ours = moments.scales(EPS, dtype)
    for of_parts, of_torch in zip(ours, (mean, rstd), strict=True):
        assert of_parts.flatten().ne(of_torch.double().flatten()).sum() <= 1
