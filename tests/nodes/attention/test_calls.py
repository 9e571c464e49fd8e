"""Every way ComfyUI calls attention comes out as the host's own answer, inputs untouched."""

from dataclasses import replace

import pytest
from support.toy_sage import ON_CPU, host, sageattn

torch = pytest.importorskip("torch")

from vram_supervisor.nodes.attention.calls import Ready, read_call, refusal, run, shaped  # noqa: E402

READY = Ready(ON_CPU, sageattn, {})
EIGHT_BITS = 0.03


def made(
    heads=4, keys=4, size=64, queries=70, batch=2, tokens=128, dtype=torch.float32, flat=False
):
    """Queries, keys (with a mean for the kernel to take off) and values."""
    random = torch.Generator().manual_seed(3)

    def tensor(count, of):
        found = torch.randn(batch, count, of, size, generator=random).to(dtype)
        return found.transpose(1, 2).flatten(2) if flat else found

    return tensor(heads, queries), tensor(keys, tokens) + 2, tensor(keys, tokens)


def error(ours, theirs):
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("sentence", "shapes", "more"),
    [
        ("self-attention", {"queries": 128}, {}),
        ("cross-attention", {}, {}),
        ("a scale of its own", {}, {"scale": 0.3}),
        ("heads of 128", {"size": 128}, {}),
        ("heads that share keys", {"keys": 2}, {"enable_gqa": True}),
        ("half precision", {"dtype": torch.float16}, {}),
        ("bfloat16", {"dtype": torch.bfloat16}, {}),
    ],
)
def test_a_call_comes_out_as_the_hosts(sentence, shapes, more, split, keeps):
    tensors = made(**shapes, flat=not split)
    before = [each.clone() for each in tensors]
    how = {"skip_reshape": split, "skip_output_reshape": keeps, **more}
    if "enable_gqa" in more and not split:
        expected = host(*made(**shapes), 4, **{**how, "skip_reshape": True})
    else:
        expected = host(*tensors, 4, **how)
    call = read_call(*tensors, 4, **how)
    assert refusal(ON_CPU, call) is None
    out = shaped(run(READY, call), call)
    assert out.shape == expected.shape, sentence
    assert out.dtype == tensors[0].dtype
    assert error(out, expected) < EIGHT_BITS, sentence
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True)), sentence


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("sentence", "changes", "shapes"),
    [
        ("heads first only", {"heads_first": True}, {}),
        ("no shared keys", {"takes_grouped": False}, {"keys": 2}),
        ("both", {"heads_first": True, "takes_grouped": False}, {"keys": 2}),
        ("float32 is cast", {"dtypes": frozenset({"float16", "bfloat16"})}, {}),
        ("a kernel that leaves keys alone", {"changes_k": False}, {}),
    ],
)
def test_a_kernel_that_takes_less_gives_the_same(sentence, changes, shapes, split):
    seen = []

    def watching(q, k, v, **options):
        seen.append((q, k, v, options))
        return sageattn(q, k, v, smooth_k=changes.get("changes_k", True), **options)

    kernel = replace(ON_CPU, **changes)
    tensors = made(**shapes, flat=not split)
    before = [each.clone() for each in tensors]
    call = read_call(*tensors, 4, skip_reshape=split, enable_gqa=True)
    assert refusal(kernel, call) is None
    out = shaped(run(Ready(kernel, watching, {}), call), call)
    whole = made(**shapes)
    expected = host(*whole, 4, skip_reshape=True)
    assert out.dtype == torch.float32
    assert error(out, expected) < EIGHT_BITS, sentence
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True)), sentence
    ((q, k, _v, options),) = seen
    heads_at = 1 if split or kernel.heads_first else 2
    assert q.shape[heads_at] == 4
    assert k.shape[heads_at] == (2 if kernel.takes_grouped and shapes else 4)
    assert ("tensor_layout" in options) is not kernel.heads_first
    assert q.dtype == (torch.float32 if "float32" in kernel.dtypes else torch.float16)


@pytest.mark.parametrize(
    ("sentence", "changes_k", "dtype", "copied"),
    [
        ("a kernel that writes gets a copy", True, torch.float32, True),
        ("a kernel that only reads gets the caller's", False, torch.float32, False),
        ("what was cast is a copy already", True, torch.float16, True),
    ],
)
def test_keys_are_copied_only_where_they_must_be(sentence, changes_k, dtype, copied):
    given = []

    def kernel(q, k, v, **_options):
        given.append(k)
        return q

    cast = frozenset({"float32"}) if dtype == torch.float32 else frozenset({"float16"})
    call = read_call(*made(), 4, skip_reshape=True)
    run(Ready(replace(ON_CPU, changes_k=changes_k, dtypes=cast), kernel, {}), call)
    assert (given[0].data_ptr() != call.k.data_ptr()) is copied, sentence


def test_a_last_dimension_with_gaps_is_made_dense():
    q, k, v = (torch.cat([each, each], -1)[..., ::2] for each in made())
    given = []

    def kernel(q, k, v, **_options):
        given.extend([q, k, v])
        return q

    run(Ready(ON_CPU, kernel, {}), read_call(q, k, v, 4, skip_reshape=True))
    assert all(each.stride(-1) == 1 for each in given)


@pytest.mark.parametrize(
    ("mask", "shape"),
    [
        ((70, 128), (1, 1, 70, 128)),
        ((2, 70, 128), (2, 1, 70, 128)),
        ((2, 1, 70, 128), (2, 1, 70, 128)),
    ],
)
def test_a_kernel_that_takes_masks_gets_them_in_four_dimensions(mask, shape):
    given = []

    def kernel(q, k, v, attn_mask, **_options):
        given.append(attn_mask.shape)
        return q

    taking = replace(ON_CPU, takes_mask=True)
    call = read_call(*made(), 4, torch.zeros(mask), skip_reshape=True)
    assert refusal(taking, call) is None
    run(Ready(taking, kernel, {}), call)
    assert given == [shape]


@pytest.mark.parametrize(
    ("sentence", "shapes", "more", "changes", "reason"),
    [
        ("1.0.6 ignores masks", {}, {"mask": torch.zeros(70, 128)}, {}, "mask"),
        ("40 is no size of its", {"size": 40}, {}, {}, "head_dim"),
        ("256 is too large", {"size": 256}, {}, {"head_dims": range(1, 129)}, "head_dim"),
        ("double precision", {"dtype": torch.float64}, {}, {}, "dtype"),
        ("another device", {}, {}, {"device_type": "cuda"}, "device"),
        ("a kernel without a scale", {}, {"scale": 0.3}, {"takes_scale": False}, "scale"),
        ("fewer queries than it is meant for", {}, {}, {"least_tokens": 71}, "short"),
        ("one key more than a block", {"tokens": 65}, {}, {}, "tail of keys"),
        ("the same, not split", {"tokens": 65, "flat": True}, {}, {}, "tail of keys"),
        ("77 tokens of text", {"tokens": 77}, {}, {}, "tail of keys"),
        ("16 frames", {"tokens": 16}, {}, {}, "tail of keys"),
        ("a tail beyond 1 % of all", {"tokens": 6208 + 1, "queries": 1}, {}, {}, "tail of keys"),
        ("a batch beyond the grid", {"batch": 65536, "queries": 1, "tokens": 1, "heads": 1,
                                     "keys": 1}, {}, {}, "size"),
    ],
)  # fmt: skip
def test_what_a_kernel_does_not_take(sentence, shapes, more, changes, reason):
    split = not shapes.get("flat", False)
    call = read_call(*made(**shapes), shapes.get("heads", 4), skip_reshape=split, **more)
    assert refusal(replace(ON_CPU, **changes), call) == reason, sentence


@pytest.mark.parametrize(
    ("sentence", "tokens", "changes"),
    [
        ("a tail of at most 1 % of all", 6272 + 1, {}),
        ("full blocks of keys, whatever the queries", 128, {}),
        ("a kernel that masks what it lacks", 77, {"unmasked_block": 1}),
    ],
)
def test_short_tails_cost_less_than_eight_bits(sentence, tokens, changes):
    tensors = made(tokens=tokens, queries=7)
    call = read_call(*tensors, 4, skip_reshape=True)
    assert refusal(replace(ON_CPU, **changes), call) is None, sentence


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("tokens", [6273, 6337, 13000])
def test_a_tail_that_is_taken_costs_1_per_cent_at_most(tokens, spread):
    """With flat scores the most, the made-up keys' weight being the largest then."""
    q, k, v = made(heads=1, keys=1, batch=1, queries=32, tokens=tokens)
    filled = [torch.nn.functional.pad(each, (0, 0, 0, -tokens % 64)) for each in (k, v)]
    keys = torch.cat([k - k.mean(2, keepdim=True), filled[0][:, :, tokens:]], 2)
    exact = host(q * spread, k, v, 1, skip_reshape=True)
    out = host(q * spread, keys, filled[1], 1, skip_reshape=True)
    assert error(out, exact) <= 0.01


def test_indices_beyond_31_bits_are_left_to_the_host():
    q = torch.zeros(1, 1, 1, 64).expand(4, 128, 65536, 64)
    call = read_call(q, q, q, 128, skip_reshape=True)
    assert refusal(ON_CPU, call) == "size"


def test_strides_beyond_31_bits_are_packed():
    given = []

    def kernel(q, k, v, **_options):
        given.append(q.stride())
        return q

    kernel_ready = Ready(replace(ON_CPU, changes_k=False), kernel, {})
    with torch.device("meta"):
        whole = torch.empty_strided((1, 2, 2, 64), (1, 64, 2**31, 1))
    call = read_call(whole, whole, whole, 2, skip_reshape=True)
    run(kernel_ready, call)
    assert given == [(256, 128, 64, 1)]


@pytest.mark.parametrize(
    ("sentence", "tensors", "heads", "more", "reason"),
    [
        ("the model wants full precision", made(), 4, {"low_precision_attention": False,
                                                       "skip_reshape": True}, "precision"),
        ("heads that do not divide", made(flat=True), 5, {}, "shape"),
        ("shared keys nobody announced", made(keys=2), 4, {"skip_reshape": True}, "shape"),
        ("the same, not split", made(keys=2, flat=True), 4, {}, "shape"),
        ("five heads on two", made(heads=5, keys=2), 5,
         {"skip_reshape": True, "enable_gqa": True}, "shape"),
        ("values of another size", (*made()[:2], made(size=32)[2]), 4, {"skip_reshape": True},
         "shape"),
        ("one batch for several", (made()[0], *made(batch=1)[1:]), 4, {"skip_reshape": True},
         "shape"),
        ("no queries", made(queries=0), 4, {"skip_reshape": True}, "shape"),
        ("three dimensions where four are said", made(flat=True), 4, {"skip_reshape": True},
         "shape"),
        ("four where three are said", made(), 4, {}, "shape"),
    ],
)  # fmt: skip
def test_calls_no_kernel_takes(sentence, tensors, heads, more, reason):
    assert read_call(*tensors, heads, **more) == reason, sentence
