import io

import pytest

torch = pytest.importorskip("torch")
image = pytest.importorskip("PIL.Image")

from vram_supervisor.supervisor.embedded.latent import random_latent  # noqa: E402
from vram_supervisor.supervisor.embedded.png import encode_png  # noqa: E402


def test_another_decoder_reads_the_same_pixels():
    picture = torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1).repeat(1, 4, 7)
    picture[0, 2, 5] = 1.0
    read = image.open(io.BytesIO(encode_png(picture)))
    assert read.size == (7, 4)
    assert read.getpixel((0, 0)) == (0, 128, 255)
    assert read.getpixel((5, 2)) == (255, 128, 255)


def test_values_out_of_range_are_clipped():
    read = image.open(io.BytesIO(encode_png(torch.full((3, 1, 1), 7.0))))
    assert read.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(1, 16, 1, 1, 1), (1, 16, 4, 16, 40), (2, 4, 13, 9, 7)])
def test_latents_have_their_shape_and_are_finite(shape):
    latent = random_latent(shape, seed=3)
    assert latent.shape == shape
    assert torch.isfinite(latent).all()


def test_latents_have_about_unit_variance_and_follow_the_seed():
    shape = (1, 16, 5, 32, 32)
    latent = random_latent(shape, seed=3)
    assert 0.8 < latent.std() < 1.2
    assert torch.equal(latent, random_latent(shape, seed=3))
    assert not torch.equal(latent, random_latent(shape, seed=4))


def test_neighbours_are_alike_so_that_there_is_something_to_see():
    latent = random_latent((1, 16, 5, 32, 32), seed=3)
    neighbours = (latent[..., 1:] - latent[..., :-1]).square().mean()
    assert neighbours < 1.0  # independent noise would give 2
