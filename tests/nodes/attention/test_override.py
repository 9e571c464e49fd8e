"""What a model's attention calls become: the kernel's, the host's, and what is counted."""

import copy
import logging
import threading
from dataclasses import replace

import pytest
from support.toy_sage import ON_CPU, host, sageattn

torch = pytest.importorskip("torch")

from vram_supervisor.nodes.attention.calls import Ready  # noqa: E402
from vram_supervisor.nodes.attention.override import (  # noqa: E402
    Attending,
    carried_by,
    make_override,
)
from vram_supervisor.nodes.attention.usage import CHECKED_CALLS, Usage  # noqa: E402

NEAR = 0.03


class Counting:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0
        self.__name__ = getattr(function, "__name__", "counting")

    def __call__(self, *args, **more):
        self.calls += 1
        return self.function(*args, **more)


def tensors(queries=256, heads=2, size=64, batch=1, dtype=torch.float32):
    random = torch.Generator().manual_seed(queries)
    shape = (batch, heads, queries, size)
    return [torch.randn(shape, generator=random).to(dtype) for _ in range(3)]


def attending(function=sageattn, before=None, *, races=False, seconds=None, **changes):
    """An ``Attending`` of a toy kernel; ``seconds`` are what its clock says, in turn."""
    times = iter(seconds or ())

    def clock(_device, work):
        work()
        return next(times)

    kernel = replace(ON_CPU, **changes)
    made = Attending(
        Ready(kernel, function, {}), Usage(kernel.mode), before, races=races, clock=clock
    )
    made.usage.begin()
    return made


def call(made, function=host, given=None, **more):
    given = given or tensors()
    return made.attend(function, *given, given[0].shape[1], skip_reshape=True, **more)


def error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def run_of(made):
    return made.usage.end()


def test_the_kernel_computes_and_is_counted():
    made = attending()
    out = call(made)
    exact = host(*tensors(), 2, skip_reshape=True)
    assert 0 < error(out, exact) < NEAR
    run = run_of(made)
    assert (run.calls, run.fallbacks, run.turned_off) == (1, {}, None)
    assert run.largest_error == pytest.approx(error(out, exact), rel=0.2)


@pytest.mark.parametrize(
    ("sentence", "given", "more", "reason"),
    [
        ("a mask", {}, {"mask": torch.zeros(256, 256)}, "mask"),
        ("a head of 40", {"size": 40}, {}, "head_dim"),
        ("double precision", {"dtype": torch.float64}, {}, "dtype"),
        ("full precision asked for", {}, {"low_precision_attention": False}, "precision"),
    ],
)
def test_what_the_kernel_does_not_take_is_the_hosts_to_the_bit(sentence, given, more, reason):
    made = attending(Counting(sageattn))
    out = call(made, given=tensors(**given), **more)
    assert torch.equal(out, host(*tensors(**given), 2, skip_reshape=True, **more)), sentence
    assert made._ready.function.calls == 0
    assert run_of(made).fallbacks == {reason: 1}


def test_text_of_77_tokens_is_the_hosts_and_turns_nothing_off():
    """Unmasked, its last block would be off by a third, and the model lose its kernel for it."""
    made = attending()
    q, (_, k, v) = tensors()[0], tensors(queries=77)
    out = call(made, given=[q, k, v])
    assert torch.equal(out, host(q, k, v, 2, skip_reshape=True))
    call(made)
    run = run_of(made)
    assert (run.calls, run.fallbacks, run.turned_off) == (2, {"tail of keys": 1}, None)


def test_the_host_gets_its_arguments_as_they_came():
    seen = []

    def recording(*args, **more):
        seen.append((args, more))
        return host(*args, **more)

    made = attending()
    q, k, v = tensors()
    mask = torch.zeros(256, 256)
    options = {"optimized_attention_override": None}
    made.attend(recording, q, k, v, 2, mask, None, True, transformer_options=options, extra=1)
    ((args, more),) = seen
    assert args[0] is q
    assert args[3:] == (2, mask, None, True)
    assert more == {"transformer_options": options, "extra": 1}


def test_every_argument_may_come_by_name():
    made = attending()
    q, k, v = tensors()
    named = {"q": q, "k": k, "v": v, "heads": 2, "mask": None, "attn_precision": None}
    out = made.attend(host, skip_reshape=True, skip_output_reshape=False, **named)
    assert error(out, host(q, k, v, 2, skip_reshape=True)) < NEAR
    assert run_of(made).fallbacks == {}


def test_an_override_that_was_there_computes_what_the_kernel_leaves():
    seen = []

    def theirs(function, *args, **more):
        seen.append(function)
        return function(*args, **more) * 2

    made = attending(before=theirs)
    mask = torch.zeros(256, 256)
    out = call(made, mask=mask)
    assert torch.equal(out, host(*tensors(), 2, mask, skip_reshape=True) * 2)
    assert seen == [host]
    assert error(call(made), host(*tensors(), 2, skip_reshape=True)) < NEAR
    assert seen == [host], "what the kernel takes it computes itself"


def zeros(q, k, v, **_options):
    return torch.zeros_like(q)


def not_a_number(q, k, v, **options):
    out = sageattn(q, k, v, **options)
    out[..., -1, 7] = float("nan")
    return out


def one_wrong_head(q, k, v, **options):
    out = sageattn(q, k, v, **options)
    out[:, 1] = out[:, 0]
    return out


def wrong_scale(q, k, v, sm_scale=None, **options):
    return sageattn(q * 20, k, v, sm_scale=sm_scale, **options)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (zeros, "its error of 1 is beyond the 0.15"),
        (not_a_number, "not finite (NaN or infinity)"),
        (one_wrong_head, "its error of 0.99"),
        (wrong_scale, "is beyond the 0.15"),
    ],
)
def test_a_wrong_kernel_is_turned_off_and_its_answer_not_used(function, says, caplog):
    made = attending(Counting(function))
    exact = host(*tensors(), 2, skip_reshape=True)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(call(made), exact)
        assert torch.equal(call(made), exact)
    assert made._ready.function.calls == 1, "it is not asked again"
    assert says in made.usage.turned_off
    assert [says in line for line in caplog.messages] == [True], "it is said once"
    run = run_of(made)
    assert run.fallbacks == {"turned off": 2}
    assert says in run.sentence()


def test_one_wrong_head_among_many_is_found():
    made = attending(one_wrong_head)
    call(made, given=tensors(heads=128, queries=64))
    assert "one head is off by" in made.usage.turned_off


def test_a_head_that_weighs_nothing_is_no_matter():
    q, k, v = tensors(heads=4)
    v[:, 2] *= 1e-4

    def careless(q, k, v, **options):
        out = sageattn(q, k, v, **options)
        out[:, 2] = 0
        return out

    made = attending(careless)
    call(made, given=[q, k, v])
    assert made.usage.turned_off is None


def test_what_a_later_run_finds_stays_found():
    made = attending(zeros)
    call(made)
    run_of(made)
    made.usage.begin()
    call(made)
    assert run_of(made).fallbacks == {"turned off": 1}


def test_a_block_that_goes_wrong_after_others_is_found():
    calls = []

    def later(q, k, v, **options):
        calls.append(q)
        return zeros(q, k, v) if len(calls) == 40 else sageattn(q, k, v, **options)

    made = attending(later)
    for _ in range(40):
        out = call(made)
    assert torch.equal(out, host(*tensors(), 2, skip_reshape=True))
    assert made.usage.turned_off


def test_a_shape_is_checked_so_often_and_no_more():
    function = Counting(host)
    made = attending()
    for _ in range(CHECKED_CALLS + 5):
        call(made, function)
    assert function.calls == CHECKED_CALLS
    call(made, function, given=tensors(queries=1024))
    assert function.calls == CHECKED_CALLS + 1, "another shape is looked at anew"


def test_inputs_that_are_not_finite_are_nobodys_fault():
    q, k, v = tensors()
    v[..., 5] = float("nan")
    made = attending()
    out = call(made, given=[q, k, v])
    assert made.usage.turned_off is None
    assert out.isnan().any()
    assert run_of(made).fallbacks == {"not finite": 1}
    assert error(call(made), host(*tensors(), 2, skip_reshape=True)) < NEAR


def test_a_kernel_that_fails_is_not_asked_for_that_shape_again(caplog):
    def failing(q, k, v, **options):
        if q.shape[2] == 256:
            raise RuntimeError("PTX was not built for this GPU")
        return sageattn(q, k, v, **options)

    made = attending(Counting(failing))
    exact = host(*tensors(), 2, skip_reshape=True)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(call(made), exact)
        assert torch.equal(call(made), exact)
    assert made._ready.function.calls == 1
    assert len(caplog.messages) == 1
    call(made, given=tensors(queries=1024))
    run = run_of(made)
    assert (run.calls, run.fallbacks) == (3, {"kernel error": 2})
    assert run.turned_off is None


def test_out_of_memory_is_asked_again():
    left = [1]

    def short(q, k, v, **options):
        if left:
            left.pop()
            raise torch.cuda.OutOfMemoryError("out of memory, said by the test")
        return sageattn(q, k, v, **options)

    made = attending(short)
    assert torch.equal(call(made), host(*tensors(), 2, skip_reshape=True))
    call(made)
    run = run_of(made)
    assert (run.calls, run.fallbacks) == (2, {"out of memory": 1})


def test_memory_that_ends_while_checking_costs_no_answer():
    def short(*args, **more):
        raise torch.cuda.OutOfMemoryError("out of memory, said by the test")

    made = attending()
    assert error(call(made, short), host(*tensors(), 2, skip_reshape=True)) < NEAR
    assert run_of(made).fallbacks == {}


def test_interrupts_pass():
    class Stopped(BaseException):
        pass

    def interrupted(*_args, **_options):
        raise Stopped

    with pytest.raises(Stopped):
        call(attending(interrupted))


@pytest.mark.parametrize(
    ("sentence", "seconds", "fallbacks"),
    [
        ("the kernel wins", (1.0, 2.0), {}),
        ("a tie is the kernel's", (1.0, 1.0), {}),
        ("the host wins: its from the next call on", (2.0, 1.0), {"slower": 2}),
    ],
)
def test_auto_leaves_to_the_host_what_it_does_faster(sentence, seconds, fallbacks):
    made = attending(races=True, seconds=seconds)
    for _ in range(3):
        call(made)
    run = run_of(made)
    assert (run.calls, run.fallbacks) == (3, fallbacks), sentence
    made.usage.begin()
    call(made)
    assert run_of(made).fallbacks == ({"slower": 1} if fallbacks else {}), "and in later runs"


def test_each_shape_has_its_own_race():
    made = attending(races=True, seconds=(2.0, 1.0, 1.0, 2.0))
    for queries in (256, 1024, 256, 1024):
        call(made, given=tensors(queries=queries))
    assert run_of(made).fallbacks == {"slower": 1}


def test_a_wish_is_not_raced():
    made = attending()
    call(made)
    call(made)
    assert run_of(made).fallbacks == {}


def test_an_override_of_the_hosts_own_sage_is_checked_against_exact_attention():
    def attention_sage(*args, **more):
        return torch.zeros_like(args[0])

    made = attending()
    assert error(call(made, attention_sage), host(*tensors(), 2, skip_reshape=True)) < NEAR
    assert made.usage.turned_off is None


def test_a_mask_is_part_of_the_check():
    def masked(q, k, v, attn_mask, **_options):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)

    def ignoring(q, k, v, **_options):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    random = torch.Generator().manual_seed(1)
    mask = (torch.rand((3, 2, 256, 256), generator=random) * 8).round()
    for function, good in ((masked, True), (ignoring, False)):
        for each in (mask, mask[:1], mask[:, :1], mask[0, 0], mask[:1, :, :1]):
            made = attending(function, takes_mask=True)
            call(made, given=tensors(batch=3), mask=each)
            assert (made.usage.turned_off is None) is good


def test_counts_are_right_with_many_threads():
    made = attending()
    call(made)
    made.usage.end()
    small, masked = tensors(queries=64), torch.zeros(64, 64)

    def work():
        for _ in range(20):
            call(made, given=small)
            call(made, given=small, mask=masked)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run = run_of(made)
    assert (run.calls, run.fallbacks) == (320, {"mask": 160})


def test_a_run_without_calls_says_nothing():
    assert run_of(attending()) is None


class TestOverride:
    def test_it_survives_what_hosts_do_to_options(self):
        made = attending()
        options = copy.deepcopy({"override": make_override(made, compiles=False)})
        assert carried_by(options["override"]) is made
        assert carried_by(lambda: None) is None

    @pytest.mark.parametrize("compiles", [True, False])
    def test_it_computes_the_same_under_torch_compile(self, compiles):
        made = attending(traceable)
        override = make_override(made, compiles=compiles)
        graphs = []

        def backend(graph, _inputs):
            graphs.append(graph)
            return graph.forward

        @torch.compile(backend=backend)
        def layer(q, k, v):
            return override(host, q + 1, k, v, 2, skip_reshape=True) * 2

        torch._dynamo.reset()
        q, k, v = tensors()
        with torch.inference_mode():
            out = layer(q, k, v)
            again = layer(q, k, v)
        expected = host(q + 1, k, v, 2, skip_reshape=True) * 2
        assert error(out, expected) < NEAR
        assert torch.equal(out, again)
        assert len(graphs) == (1 if compiles else 2), "one graph, or one before and one behind"
        run = run_of(made)
        assert (None if run is None else run.calls) == (None if compiles else 2)

    def test_compiled_calls_leave_to_the_host_what_the_kernel_does_not_take(self):
        made = attending(zeros)
        override = make_override(made, compiles=True)

        @torch.compile(backend="eager")
        def layer(q, k, v):
            return override(host, q, k, v, 2, skip_reshape=True)

        torch._dynamo.reset()
        given = tensors(size=40)
        assert torch.allclose(layer(*given), host(*given, 2, skip_reshape=True), atol=1e-6)

    @pytest.mark.parametrize(
        ("function", "says"),
        [(sageattn, None), (zeros, "beyond the 0.15"), (not_a_number, "not finite")],
    )
    def test_a_kernel_that_will_be_compiled_is_rehearsed(self, function, says):
        made = attending(Counting(function))
        made.rehearse(torch.device("cpu"))
        found = made.usage.turned_off
        assert found is None if says is None else says in found
        asked = made._ready.function.calls
        made.rehearse(torch.device("cpu"))
        assert made._ready.function.calls == asked, "once"

    def test_a_rehearsal_that_fails_turns_the_kernel_off(self):
        def failing(*_args, **_options):
            raise RuntimeError("no kernel image")

        made = attending(failing)
        made.rehearse(torch.device("cpu"))
        assert "no kernel image" in made.usage.turned_off

    def test_where_the_kernel_does_not_run_nothing_is_rehearsed(self):
        made = attending(Counting(sageattn), device_type="cuda")
        made.rehearse(torch.device("cpu"))
        assert made._ready.function.calls == 0


def traceable(q, k, v, **options):
    return sageattn(q, k, v, **options)
