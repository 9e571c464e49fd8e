import json
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.nn import functional  # noqa: E402

from vram_supervisor.supervisor.planning.architecture import (  # noqa: E402
    architecture_hash,
    code_hash,
)
from vram_supervisor.supervisor.planning.dry_run import (  # noqa: E402
    TensorSpec,
    dry_run_peak,
    trace_decode,
)
from vram_supervisor.supervisor.planning.fake_module import fake_copy  # noqa: E402
from vram_supervisor.supervisor.planning.live_bytes import LiveBytes  # noqa: E402
from vram_supervisor.supervisor.planning.trace import (  # noqa: E402
    Step,
    Trace,
    could_be_peak,
    trace_from_json,
)
from vram_supervisor.supervisor.planning.workspace import (  # noqa: E402
    CUDNN_LAYOUT,
    NO_WORKSPACE,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(64, 256)
        self.outer = nn.Linear(256, 64)
        self.register_buffer("offset", torch.ones(64))

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x))) + self.offset


def measured(net, x):
    with torch.inference_mode(), LiveBytes("cpu") as counter:
        result = net(x)
    assert result.shape == x.shape
    return counter.peak_bytes


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_a_dry_run_gives_what_the_real_run_measures(rows):
    net = Net()
    assert dry_run_peak(net, Net.forward, TensorSpec((rows, 64))) == measured(
        net, torch.randn(rows, 64)
    )


def test_a_dry_run_allocates_nothing():
    size = 1 << 45  # bytes no machine has
    peak = dry_run_peak(Net(), Net.forward, TensorSpec((size // 256, 64)))
    assert peak > size


def test_a_dry_run_leaves_the_module_alone():
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    dry_run_peak(net, Net.forward, TensorSpec((8, 64)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert type(net.inner.weight) is nn.Parameter
    assert not net.inner.weight.is_meta


class Block(nn.Module):
    """What VAE decoders are made of, small."""

    def __init__(self, dims):
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.norm = nn.GroupNorm(2, 4)
        self.conv = conv(4, 8, 3, padding=1)
        self.out = conv(8, 3, 1)

    def forward(self, x):
        h = self.conv(functional.silu(self.norm(x)))
        h = functional.interpolate(h, scale_factor=2.0, mode="nearest-exact")
        return self.out(h)


@pytest.mark.parametrize(("dims", "shape"), [(2, (1, 4, 9, 7)), (3, (1, 4, 3, 9, 7))])
def test_layers_made_of_several_operations_are_dry_run_like_the_real_ones(dims, shape):
    block, latent = Block(dims), torch.randn(shape)
    with torch.inference_mode(), LiveBytes() as counter:
        block(latent)
    assert dry_run_peak(block, Block.forward, TensorSpec(shape)) == counter.peak_bytes


def attend(module, x):
    return functional.scaled_dot_product_attention(x, x, x)


class Empty(nn.Module):
    pass


def test_attention_is_dry_run_like_the_real_one():
    x = torch.randn(1, 2, 96, 32)
    with torch.inference_mode(), LiveBytes() as counter:
        attend(None, x)
    assert dry_run_peak(Empty(), attend, TensorSpec(tuple(x.shape))) == counter.peak_bytes


def test_fused_attention_keeps_no_scores():
    spec = TensorSpec((1, 1, 4096, 512), torch.bfloat16)
    trace = trace_decode(Empty(), attend, spec, fused_attention=True)
    assert trace.tensor_peak_bytes == 4096 * 512 * 2


def scattered(module, x):
    return functional.scaled_dot_product_attention(*[x.transpose(-1, -2)] * 3)


def test_attention_over_scattered_rows_is_not_fused():
    spec = TensorSpec((1, 1, 512, 4096), torch.bfloat16)
    trace = trace_decode(Empty(), scattered, spec, fused_attention=True)
    assert trace.tensor_peak_bytes >= 4096 * 4096 * 2


def test_a_convolution_is_a_step_with_what_it_reads_and_writes():
    trace = trace_decode(Block(2), Block.forward, TensorSpec((1, 4, 16, 16)))
    conv = next(step for step in trace.steps if step.output_bytes == 4 * 8 * 16 * 16)
    assert conv.kernel == "conv2d"
    assert conv.input_bytes == 4 * 8 * 16 * 16
    assert conv.weight_bytes == 4 * 8 * 4 * 9


def test_workspace_is_one_more_copy_of_what_a_convolution_touches():
    steps = (Step(1000), Step(900, "conv2d", 100, 200, 7))
    trace = Trace(1000, steps, 2, 0.0)
    assert NO_WORKSPACE.peak_bytes(trace) == 1000
    assert CUDNN_LAYOUT.peak_bytes(trace) == 900 + 100 + 200 + 7


class Stop(Exception):
    pass


def test_a_dry_run_can_be_stopped():
    def stop():
        raise Stop

    with pytest.raises(Stop):
        trace_decode(Net(), Net.forward, TensorSpec((8, 64)), check=stop)


def test_steps_that_another_exceeds_in_every_figure_are_left_out():
    high, wide = Step(10, "conv2d", 1, 1, 1), Step(5, "conv2d", 9, 9, 1)
    steps = [Step(4, "conv2d", 1, 1, 1), high, wide, Step(10, "conv2d", 1, 0, 1), Step(10)]
    assert set(could_be_peak(steps)) == {high, wide, Step(10)}


def test_a_trace_survives_the_cache():
    trace = trace_decode(Block(3), Block.forward, TensorSpec((1, 4, 2, 8, 8)))
    assert trace_from_json(trace.to_json()) == trace


@pytest.mark.parametrize(
    "text", ["", "{}", "[1, 2, 3]", "[1, 2, 0.1, []]", "[1, 2, NaN, [[1]]]", "[-1, 1, 0, [[1]]]"]
)
def test_what_is_no_trace_is_not_taken_for_one(text):
    assert trace_from_json(text) is None


def test_a_step_needs_all_its_figures_in_the_cache():
    trace = Trace(5, (Step(5),), 1, 0.0)
    rows = json.loads(trace.to_json())
    rows[3][0].append(1)
    assert trace_from_json(json.dumps(rows)) is None
    assert trace_from_json(replace(trace, steps=(Step(6),)).to_json()).steps == (Step(6),)


def test_the_architecture_is_classes_and_shapes_not_weights():
    assert architecture_hash(Net()) == architecture_hash(Net().to(torch.float16))
    assert architecture_hash(Block(2)) != architecture_hash(Block(3))
    wider = Block(2)
    wider.out = nn.Conv2d(8, 4, 1)
    assert architecture_hash(wider) != architecture_hash(Block(2))


def test_the_code_hash_follows_the_files_of_the_classes():
    assert code_hash(Net()) == code_hash(Block(2))
    assert code_hash(Net()) != code_hash(nn.Linear(1, 1))


def step_of(module, x):
    trace = trace_decode(module, lambda m, x: m(x), x)
    return next(step for step in trace.steps if step.kernel != "other")


def test_channels_are_laid_out_in_eights():
    step = step_of(nn.Conv2d(3, 13, 3, bias=False), TensorSpec((1, 3, 16, 16)))
    assert (step.input_bytes, step.output_bytes) == (4 * 8 * 16 * 16, 4 * 16 * 14 * 14)


class Turned(nn.Module):
    def __init__(self, kernel):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, kernel, bias=False)

    def forward(self, x):
        return self.conv(x.transpose(-1, -2))


def test_a_scattered_input_is_copied_once_more():
    step = step_of(Turned(3), TensorSpec((1, 8, 16, 16)))
    assert step.input_bytes == 2 * 4 * 8 * 16 * 16


@pytest.mark.parametrize(
    ("module", "shape", "input_bytes"),
    [
        (Turned(1), (1, 8, 16, 16), 4 * 8 * 16 * 16),
        (nn.Conv3d(8, 8, 1), (1, 8, 2, 16, 16), 4 * 8 * 2 * 16 * 16),
    ],
)
def test_convolutions_of_one_pixel_copy_their_input_at_most(module, shape, input_bytes):
    step = step_of(module, TensorSpec(shape))
    assert (step.input_bytes, step.output_bytes, step.weight_bytes) == (input_bytes, 0, 0)


def test_a_dense_convolution_of_one_pixel_takes_no_workspace():
    trace = trace_decode(nn.Conv2d(8, 8, 1), lambda m, x: m(x), TensorSpec((1, 8, 16, 16)))
    assert CUDNN_LAYOUT.peak_bytes(trace) == NO_WORKSPACE.peak_bytes(trace)


class Chunked(nn.Module):
    """Keeps a constant as a plain attribute, and its results elsewhere."""

    def __init__(self):
        super().__init__()
        self.scale = torch.full((4,), 2.0)
        self.place = torch.device("cpu")

    def forward(self, x):
        parts = [(x[i] * self.scale).to("meta") for i in range(len(x))]
        return torch.stack(parts)


def test_what_leaves_the_device_does_not_count():
    trace = trace_decode(Chunked(), lambda m, x: m(x), TensorSpec((64, 1024, 4)))
    assert trace.tensor_peak_bytes == 4 * 1024 * 4


def test_a_module_on_another_device_is_dry_run_without_touching_it():
    with torch.device("meta"):
        module = Block(2)
    assert dry_run_peak(module, Block.forward, TensorSpec((1, 4, 9, 7))) == dry_run_peak(
        Block(2), Block.forward, TensorSpec((1, 4, 9, 7))
    )


class Hidden(nn.Module):
    """Keeps modules where torch does not look for them."""

    def __init__(self):
        super().__init__()
        self.parts = [nn.Linear(8, 8), {"last": nn.Linear(8, 8)}]

    def forward(self, x):
        return self.parts[1]["last"](self.parts[0](x))


def test_modules_in_plain_lists_are_faked_too():
    assert dry_run_peak(Hidden(), Hidden.forward, TensorSpec((4, 8))) == 2 * 4 * 8 * 4


@pytest.mark.parametrize(
    "text",
    [
        "[Infinity, 1, 1, []]",
        '[100000, 1, 1, [[-5, "other", 0, 0, 0]]]',
        '[100000, 1, 1, [[5, "other", 0, 0, 0]]]',
        "[" * 100_000,
    ],
)
def test_damaged_figures_are_no_trace(text):
    assert trace_from_json(text) is None


class Handle:
    """A host's grip on memory, which a copy would free twice."""

    def __deepcopy__(self, memo):
        raise AssertionError("copied")


class Bound(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.tied = self.layer
        self._v = Handle()
        self.decode = self.run

    def run(self, x):
        return self.layer(x) + self.tied.weight.sum()


def test_only_modules_containers_and_tensors_are_copied():
    bound = Bound()
    fake = FakeTensorMode()
    stand_in = fake_copy(bound, fake)
    assert stand_in._v is bound._v
    assert stand_in.tied is stand_in.layer is not bound.layer
    assert stand_in.decode.__self__ is stand_in
    assert [type(each) is nn.Parameter for each in bound.parameters()] == [True, True]
    assert dry_run_peak(bound, lambda module, x: module.decode(x), TensorSpec((4, 8))) > 0
