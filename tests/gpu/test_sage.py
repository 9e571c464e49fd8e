"""SageAttention's kernel from PyPI (1.0.6, Triton) on a real GPU, through the override."""

import platform

import pytest
from support.toy_sage import host

torch = pytest.importorskip("torch")
sageattention = pytest.importorskip("sageattention")

from vram_supervisor.nodes.attention.calls import Ready, read_call, run, shaped  # noqa: E402
from vram_supervisor.nodes.attention.checking import is_finite, seconds  # noqa: E402
from vram_supervisor.nodes.attention.choosing import (  # noqa: E402
    InstalledPackages,
    Place,
    choose,
)
from vram_supervisor.nodes.attention.kernels import FP16_TRITON, KERNELS  # noqa: E402
from vram_supervisor.nodes.attention.override import Attending, make_override  # noqa: E402
from vram_supervisor.nodes.attention.usage import Usage  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        hasattr(sageattention, FP16_TRITON), reason="another SageAttention than PyPI's"
    ),
]

CUDA = torch.device("cuda")
KNOWN = 0.03
"""Relative L2 on normally distributed values; 0.013 in arithmetic."""


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def ready():
    place = Place("cuda", torch.cuda.get_device_capability(), platform.system())
    packages = InstalledPackages()
    choice = choose(FP16_TRITON, place, KERNELS, packages)
    assert choice.why is None
    function = packages.function(choice.kernel.module, choice.kernel.function)
    assert function is sageattention.sageattn
    return Ready(choice.kernel, function, choice.options)


def made(heads=8, keys=None, size=64, queries=1024, tokens=None, batch=1, dtype=torch.bfloat16):
    """[batch, heads, tokens, head_dim], the keys with channel means as real ones have."""
    random = torch.Generator(CUDA).manual_seed(size + queries)

    def tensor(count, of):
        return torch.randn((batch, count, of, size), generator=random, device=CUDA)

    keys, tokens = keys or heads, tokens or queries
    bias = 5 * torch.randn(size, generator=random, device=CUDA)
    found = tensor(heads, queries), tensor(keys, tokens) + bias, tensor(keys, tokens)
    return [each.to(dtype) for each in found]


def flat(tensor):
    return tensor.transpose(1, 2).flatten(2)


def error(ours, theirs):
    return ((ours.float() - theirs.float()).norm() / theirs.float().norm()).item()


def exact(tensors, heads, **more):
    return host(*(each.float() for each in tensors), heads, skip_reshape=True, **more)


def told(sentence, made_by, run_of=None, **figures):
    """All that is known, for the message of a failed assertion."""
    known = {**figures, "run": run_of, "turned off": made_by.usage.turned_off}
    return f"{sentence}: " + ", ".join(f"{name} {value}" for name, value in known.items())


def attending(ready, function=None, *, races=False):
    found = ready if function is None else ready._replace(function=function)
    return Attending(found, Usage(ready.kernel.mode), races=races)


def test_the_package_changes_the_keys_it_is_given():
    q, k, v = made()
    before = k.clone()
    sageattention.sageattn(q, k, v, tensor_layout="HND")
    assert not torch.equal(k, before), "else keys need not be copied for it"


def test_the_package_ignores_a_mask():
    q, k, v = made()
    mask = torch.zeros(1024, 1024, dtype=torch.bool, device=CUDA)
    mask[:, :10] = True
    masked = sageattention.sageattn(q, k.clone(), v, tensor_layout="HND", attn_mask=mask)
    plain = sageattention.sageattn(q, k.clone(), v, tensor_layout="HND")
    assert torch.equal(masked, plain), "else masks need not be left to the host"


def test_the_package_counts_what_the_last_block_of_keys_lacks_as_keys():
    q, k, v = made(tokens=77)
    out = sageattention.sageattn(q, k.clone(), v, tensor_layout="HND")
    keys = torch.cat([k - k.mean(2, keepdim=True), torch.zeros_like(k[:, :, : 128 - 77])], 2)
    values = torch.cat([v, torch.zeros_like(v[:, :, : 128 - 77])], 2)
    from_exact = error(flat(out), exact([q, k, v], 8))
    from_filled = error(flat(out), exact([q, keys, values], 8))
    assert from_filled < KNOWN < 0.2 < from_exact, (
        f"{from_filled} off zeros, {from_exact} off attention: else tails need not be left"
    )


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [64, 96, 128])
def test_every_layout_dtype_and_head(ready, size, dtype, split):
    tensors = made(size=size, dtype=dtype, batch=2)
    given = tensors if split else [flat(each) for each in tensors]
    before = [each.clone() for each in given]
    made_by = attending(ready)
    out = made_by.attend(host, *given, 8, skip_reshape=split)
    run_of, off = made_by.usage.end(), error(out, exact(tensors, 8))
    why = told("every layout", made_by, run_of, error=off)
    assert run_of.fallbacks == {}, why
    assert out.dtype == dtype
    assert 0 < off < KNOWN, why
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True)), why


@pytest.mark.parametrize(
    ("sentence", "shapes", "more"),
    [
        ("one query more than blocks", {"queries": 1025, "tokens": 1024}, {}),
        ("a tail of just under 1 %", {"queries": 6273, "heads": 2}, {}),
        ("few queries, many keys", {"queries": 3, "tokens": 32760}, {}),
        ("32768 tokens", {"queries": 32768, "heads": 4}, {}),
        ("many short ones", {"batch": 4096, "queries": 64, "heads": 4}, {}),
        ("shared keys", {"keys": 2}, {"enable_gqa": True}),
        ("a scale of its own", {}, {"scale": 0.05}),
    ],
)
def test_shapes_of_real_models(ready, sentence, shapes, more):
    tensors = made(**shapes)
    before = [each.clone() for each in tensors]
    heads = shapes.get("heads", 8)
    made_by = attending(ready)
    out = made_by.attend(host, *tensors, heads, skip_reshape=True, **more)
    run_of, off = made_by.usage.end(), error(out, exact(tensors, heads, **more))
    why = told(sentence, made_by, run_of, error=off)
    assert run_of.fallbacks == {}, why
    assert off < KNOWN, why
    assert run_of.largest_error < KNOWN, why
    assert all(torch.equal(*pair) for pair in zip(tensors, before, strict=True)), why


def test_views_into_one_tensor_stay_as_they_are(ready):
    packed = torch.randn(1, 1024, 3, 8, 64, device=CUDA, dtype=torch.float16)
    before = packed.clone()
    q, k, v = packed.unbind(2)
    call = read_call(*(each.transpose(1, 2) for each in (q, k, v)), 8, skip_reshape=True)
    out = shaped(run(ready, call), call)
    assert error(out, exact([each.transpose(1, 2) for each in (q, k, v)], 8)) < KNOWN
    assert torch.equal(packed, before)


@pytest.mark.parametrize(
    ("sentence", "shapes", "more", "reason"),
    [
        ("a mask", {}, {"mask": torch.zeros(1024, 1024, dtype=torch.bfloat16)}, "mask"),
        ("heads of 256", {"size": 256}, {}, "head_dim"),
        ("heads of 40", {"size": 40}, {}, "head_dim"),
        ("full precision", {}, {"low_precision_attention": False}, "precision"),
        ("one key more than blocks", {"queries": 1025}, {}, "tail of keys"),
        ("text of 77 tokens", {"tokens": 77}, {}, "tail of keys"),
        ("16 frames", {"batch": 4096, "queries": 16, "heads": 4}, {}, "tail of keys"),
        ("batches beyond the grid", {"batch": 70000, "queries": 1, "heads": 1}, {}, "size"),
    ],
)
def test_what_it_does_not_take_is_the_hosts_to_the_bit(ready, sentence, shapes, more, reason):
    tensors, heads = made(**shapes), shapes.get("heads", 8)
    more = {name: getattr(each, "cuda", lambda each=each: each)() for name, each in more.items()}
    made_by = attending(ready)
    out = made_by.attend(host, *tensors, heads, skip_reshape=True, **more)
    run_of, theirs = made_by.usage.end(), host(*tensors, heads, skip_reshape=True, **more)
    why = told(sentence, made_by, run_of, error=error(out, theirs), shape=tuple(out.shape))
    assert run_of.fallbacks == {reason: 1}, why
    assert torch.equal(out, theirs), why


def test_a_kernel_that_goes_wrong_on_the_device_is_turned_off(ready):
    def spoiled(q, k, v, **options):
        out = ready.function(q, k, v, **options)
        out[..., -1, -1] = float("nan")
        return out

    tensors = made()
    made_by = attending(ready, spoiled)
    out = made_by.attend(host, *tensors, 8, skip_reshape=True)
    assert torch.equal(out, host(*tensors, 8, skip_reshape=True))
    assert "not finite" in made_by.usage.turned_off


def test_values_beyond_float16_are_found(ready):
    """Values are turned into float16 inside: bfloat16 reaches further."""
    q, k, v = made()
    v[..., 0, 0] = 1e5
    made_by = attending(ready)
    out = made_by.attend(host, q, k, v, 8, skip_reshape=True)
    assert is_finite(out)
    assert torch.equal(out, host(q, k, v, 8, skip_reshape=True))
    assert made_by.usage.turned_off is not None


@pytest.mark.parametrize("queries", [4096, 16384])
def test_a_race_is_decided_by_the_device(ready, queries):
    """What the race measured decides; at lengths that keep the device busy, it is what anybody
    measures."""
    measured = []

    def noting(device, work):
        measured.append(seconds(device, work))
        return measured[-1]

    tensors = made(queries=queries)
    made_by = Attending(ready, Usage(ready.kernel.mode), races=True, clock=noting)
    for _ in range(2):
        made_by.attend(host, *tensors, 8, skip_reshape=True)
    run_of = made_by.usage.end()
    call = read_call(*tensors, 8, skip_reshape=True)
    again = [
        seconds(CUDA, lambda: run(ready, call)),
        seconds(CUDA, lambda: host(*tensors, 8, skip_reshape=True)),
    ]
    why = told("a race", made_by, run_of, measured=measured, again=again)
    ours_s, theirs_s = measured
    assert run_of.fallbacks == ({"slower": 1} if ours_s > theirs_s else {}), why
    if queries == 16384:
        assert 1 / 1.5 < (ours_s / theirs_s) / (again[0] / again[1]) < 1.5, why


@pytest.mark.parametrize("compiles", [False, True])
def test_a_compiled_model_gets_the_same(ready, compiles):
    made_by = attending(ready)
    if compiles:
        made_by.rehearse(CUDA)
        assert made_by.usage.turned_off is None
    override = make_override(made_by, compiles=compiles)

    @torch.compile
    def layer(q, k, v):
        return override(host, q * 1.5, k, v, 8, skip_reshape=True) * 2

    torch._dynamo.reset()
    q, k, v = made()
    before = k.clone()
    out = layer(q, k, v)
    off = error(out, exact([q * 1.5, k, v], 8) * 2)
    assert off < KNOWN, told("compiled", made_by, made_by.usage.end(), error=off)
    assert torch.equal(k, before)


def test_the_current_device_is_left_as_it_was(ready):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    other = torch.device("cuda:1")
    tensors = [each.to(other) for each in made()]
    made_by = attending(ready)
    out = made_by.attend(host, *tensors, 8, skip_reshape=True)
    run_of, off = made_by.usage.end(), error(out, exact(tensors, 8))
    why = told("another GPU", made_by, run_of, error=off)
    assert run_of.fallbacks == {}, why
    assert off < KNOWN, why
    assert torch.cuda.current_device() == 0
