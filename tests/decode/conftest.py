import pytest

torch = pytest.importorskip("torch")

from support.faulty_programs import CASES, World  # noqa: E402


class SmallDecoder:
    """Cheap and exactly local: each pixel sums its 3x3 neighbourhood and its frame's past.

    Its arithmetic is on small whole numbers, so results are equal to the bit however cut.
    """

    spatial_scale = 2
    temporal_scale = 2
    halo = 1

    def __init__(self):
        self.calls = []

    def mid(self, latent):
        self.calls.append("mid")
        return latent + 1

    def open_cache(self):
        return {}

    def up(self, features, cache, *, first):
        self.calls.append(tuple(features.shape))
        pooled = torch.nn.functional.avg_pool3d(
            features.mean(1, keepdim=True) * 16, (1, 3, 3), 1, (0, 1, 1), divisor_override=1
        )
        past = 0 if cache is None else cache.get("sum", 0)
        sums = pooled.cumsum(dim=2) + past
        if cache is not None:
            cache["sum"] = sums[:, :, -1:]
        frames = sums.repeat_interleave(2, dim=2).repeat_interleave(2, 3).repeat_interleave(2, 4)
        frames = frames[:, :, 1:] if first else frames
        return frames.repeat(1, 3, 1, 1, 1)


@pytest.fixture
def small_decoder():
    return SmallDecoder()


@pytest.fixture
def latent():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 16, (1, 4, 4, 11, 17), generator=generator).float()


# The engine in trouble.


@pytest.fixture(params=sorted(CASES))
def case(request):
    return CASES[request.param]


@pytest.fixture(params=[0, 1 << 11], ids=["parked", "mixed"])
def resident_bytes(request):
    return request.param


@pytest.fixture
def world(case, resident_bytes):
    return World(case, resident_bytes)
