"""Norms over parts that equal the norm over the whole."""

import pytest

torch = pytest.importorskip("torch")

from support.toy_decoders import noise, relative  # noqa: E402
from torch.nn import functional  # noqa: E402

from vram_supervisor.supervisor.decode.norms import Observed, PooledNorms, Statistics  # noqa: E402
from vram_supervisor.supervisor.decode.tiles import Rect  # noqa: E402


def uneven(height, width):
    """Parts of very different sizes that own everything once, some of them a single pixel."""
    middle = width // 3
    return [
        Rect(0, 1, 0, 1),
        Rect(0, 1, 1, width),
        Rect(1, height, 0, middle),
        Rect(1, height, middle, width),
    ]


def normalised(x, parts, norm, halo=0):
    """``norm`` over parts with what is around them, owned rectangles put together."""
    height, width = x.shape[-2:]
    statistics = Statistics()
    made = torch.full_like(x, float("nan"))
    for settled in (False, True):
        for owned in parts:
            context = owned.grown(halo, height, width)
            part = x[..., context.top : context.bottom, context.left : context.right]
            inside = owned.relative_to(context)
            with PooledNorms(statistics, inside, context.height, context.width) as mode:
                result = norm(part)
            assert mode.observed is not settled
            made[..., owned.top : owned.bottom, owned.left : owned.right] = result[
                ..., inside.top : inside.bottom, inside.left : inside.right
            ]
        statistics.settle()
    return made


@pytest.mark.parametrize("halo", [0, 2])
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize(
    "shape",
    [(1, 8, 12, 9), (1, 8, 1, 5), (3, 8, 7, 11), (1, 8, 4, 7, 5), (2, 8, 1, 6, 6)],
    ids=["picture", "one row", "three frames as items", "clip", "two clips"],
)
def test_pooled_over_uneven_parts_equals_the_whole(shape, groups, halo):
    x, weight, bias = noise(*shape), noise(8, seed=2), noise(8, seed=3)
    parts = [rect for rect in uneven(*shape[-2:]) if rect.height and rect.width]

    def norm(part):
        return functional.group_norm(part, groups, weight, bias, 1e-6)

    assert relative(normalised(x, parts, norm, halo), norm(x)) < 1e-6


@pytest.mark.parametrize(
    ("sentence", "mean", "most"),
    [
        ("means near zero", 0.0, 1e-6),
        ("a mean of a hundred deviations", 100.0, 1e-5),
        ("a mean of ten thousand deviations", 1e4, 1e-3),
    ],
)
def test_a_mean_far_from_zero_keeps_its_digits(sentence, mean, most):
    x = noise(1, 8, 31, 17, mean=mean)
    wanted = functional.group_norm(x.double(), 4)
    made = normalised(x, uneven(31, 17), lambda part: functional.group_norm(part, 4))
    assert relative(made, wanted) < most


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("own", [True, False], ids=["half parameters", "full parameters"])
def test_half_types_are_as_near_as_their_rounding(dtype, own):
    x = noise(1, 8, 13, 9, mean=1.0).to(dtype)
    weight = noise(8, seed=2).to(dtype if own else torch.float32)
    wanted = functional.group_norm(x.double(), 4, weight.double())
    made = normalised(x, uneven(13, 9), lambda part: functional.group_norm(part, 4, weight))
    assert made.dtype == dtype
    assert relative(made, wanted) < (4e-3 if dtype == torch.bfloat16 else 6e-4)


def test_double_precision_keeps_more_than_single():
    x = noise(1, 8, 13, 9).double()
    made = normalised(x, uneven(13, 9), lambda part: functional.group_norm(part, 4))
    assert relative(made, functional.group_norm(x, 4)) < 1e-12


def test_a_constant_picture_has_no_deviation_to_divide_by():
    x = torch.full((1, 8, 6, 6), 3.0)
    made = normalised(x, uneven(6, 6), lambda part: functional.group_norm(part, 4))
    assert made.abs().max() < 1e-3


def test_each_item_has_statistics_of_its_own():
    x = torch.cat([noise(1, 8, 6, 6), 7 * noise(1, 8, 6, 6, seed=9, mean=4.0)])
    made = normalised(x, uneven(6, 6), lambda part: functional.group_norm(part, 4))
    assert relative(made, functional.group_norm(x, 4)) < 1e-6


@pytest.mark.parametrize(
    "call",
    [
        lambda x: functional.group_norm(x, 4),
        lambda x: functional.group_norm(input=x, num_groups=4, eps=1e-3),
        lambda x: torch.group_norm(x, 4, None, None, 1e-3, False),
        torch.nn.GroupNorm(4, 8),
    ],
    ids=["function", "by keywords", "torch's own", "module"],
)
def test_however_it_is_called(call):
    x = noise(1, 8, 6, 5)
    with torch.no_grad():
        assert relative(normalised(x, uneven(6, 5), call), call(x)) < 1e-6


def test_a_norm_may_see_the_part_enlarged():
    x = noise(1, 8, 6, 5)

    def layer(part):
        return functional.group_norm(part.repeat_interleave(2, -1).repeat_interleave(2, -2), 4)

    statistics = Statistics()
    owned = [Rect(0, 3, 0, 5), Rect(3, 6, 0, 5)]
    for _ in range(2):
        made = []
        for rect in owned:
            context = rect.grown(1, 6, 5)
            inside = rect.relative_to(context)
            with PooledNorms(statistics, inside, context.height, context.width):
                out = layer(x[..., context.top : context.bottom, :])
            made.append(out[..., 2 * inside.top : 2 * inside.bottom, :])
        statistics.settle()
    assert relative(torch.cat(made, -2), layer(x)) < 1e-6


def test_a_norm_that_sees_other_than_the_part_is_refused():
    with (
        pytest.raises(ValueError, match="a norm sees"),
        PooledNorms(Statistics(), Rect(0, 4, 0, 4), 4, 4),
    ):
        functional.group_norm(noise(1, 8, 4, 3), 4)


# What an unknown norm stops.


def observe(work, *, statistics=None, peek=False):
    """How often the work came to its end."""
    with PooledNorms(statistics or Statistics(), Rect(0, 4, 0, 4), 4, 4, peek=peek) as mode:
        work()
    return mode


@pytest.mark.parametrize(
    "costly",
    [
        lambda x: functional.conv2d(x, noise(8, 8, 1, 1)),
        lambda x: functional.pad(x, (1, 1)),
        lambda x: functional.interpolate(x, scale_factor=2),
        lambda x: functional.linear(x, noise(4, 4)),
        lambda x: functional.scaled_dot_product_attention(x, x, x),
        lambda x: torch.cat([x, x]),
        torch.nn.Conv2d(8, 8, 3),
    ],
)
def test_nothing_costly_follows_an_unknown_norm(costly):
    x = noise(1, 8, 4, 4)
    with pytest.raises(Observed):
        observe(lambda: costly(functional.silu(functional.group_norm(x, 4))))
    with pytest.raises(Observed):
        observe(lambda: costly(x), peek=True)
    observe(lambda: costly(x))


def test_of_two_norms_in_a_row_the_second_waits_for_the_first():
    x = noise(1, 8, 9, 7, mean=2.0)

    def twice(part):
        return functional.group_norm(3 * functional.group_norm(part, 4) ** 2, 2)

    statistics, halves = Statistics(), [Rect(0, 4, 0, 7), Rect(4, 9, 0, 7)]
    made = []
    for _ in range(3):
        made.clear()
        for rect in halves:
            part = x[..., rect.top : rect.bottom, :]
            whole = Rect(0, rect.height, 0, 7)
            try:
                with PooledNorms(statistics, whole, rect.height, 7):
                    made.append(twice(part))
            except Observed:
                continue
        statistics.settle()
    assert relative(torch.cat(made, -2), twice(x)) < 1e-6


def test_norms_of_the_same_input_are_seen_in_one_pass():
    x, statistics = noise(1, 8, 4, 4), Statistics()
    observe(
        lambda: (functional.group_norm(x, 4), functional.group_norm(x, 2)), statistics=statistics
    )
    statistics.settle()
    assert statistics.known == 2


def test_copies_go_their_own_way():
    statistics = Statistics()
    x, y = noise(1, 8, 4, 4), noise(1, 8, 4, 4, seed=2)
    observe(lambda: functional.group_norm(x, 4), statistics=statistics)
    mean, rstd = (each.clone() for each in statistics.moments[0].scales(1e-6))
    other = statistics.copy()
    observe(lambda: functional.group_norm(y, 4), statistics=other)
    assert torch.equal(statistics.moments[0].scales(1e-6)[0], mean)
    assert torch.equal(statistics.moments[0].scales(1e-6)[1], rstd)
    assert other.moments[0].count == 2 * statistics.moments[0].count


def test_without_any_part_there_are_no_statistics():
    from vram_supervisor.supervisor.decode.norms import Moments

    with pytest.raises(RuntimeError, match="no part was observed"):
        Moments().scales(1e-6)
