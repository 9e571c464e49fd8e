"""``bench.py attention``: SageAttention's kernels beside ComfyUI's attention.

Every kernel that is installed and computes on this GPU, at sizes of image and video models: time
of a call, error, memory on top of what the call is given, and what one self-check costs. Prints
a page. Run by ComfyUI's Python; ``--comfyui`` names its folder.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _host_vaes import enter_host

from vram_supervisor.nodes.attention.calls import Call, Ready, read_call, refusal, run, shaped
from vram_supervisor.nodes.attention.checking import check, host_attention, torch_attention
from vram_supervisor.nodes.attention.choosing import InstalledPackages, Place, choose
from vram_supervisor.nodes.attention.kernels import KERNELS
from vram_supervisor.supervisor.units import MiB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HEADS: Final = 24
TOKENS: Final = (4096, 8192, 16384, 32768)
HEAD_DIMS: Final = (64, 128)
DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WARM_CALLS: Final = 3
KEY_BIAS: Final = 5.0
"""Channels of real keys have means several times their spread; kernels take them off."""
HEADINGS: Final = (
    "kernel", "head_dim", "tokens", "dtype", "host ms", "kernel ms", "speed",
    "host's error", "kernel's error", "host MiB", "kernel MiB", "check ms",
)  # fmt: skip


@dataclass(frozen=True)
class Hosts:
    """The host's figures at one size, and its function as a self-check calls it."""

    seconds: float
    peak_bytes: int | None
    error: float
    function: Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Cell:
    """One kernel at one size: seconds, relative L2 against float32, and bytes beyond the inputs
    (None where the device does not count)."""

    kernel: str
    head_dim: int
    tokens: int
    dtype: str
    host_s: float
    kernel_s: float
    host_error: float
    kernel_error: float
    host_bytes: int | None
    kernel_bytes: int | None
    check_s: float

    def row(self) -> tuple[str, ...]:
        """As the table shows it."""
        return (
            self.kernel,
            str(self.head_dim),
            str(self.tokens),
            self.dtype,
            f"{self.host_s * 1000:.2f}",
            f"{self.kernel_s * 1000:.2f}",
            f"{self.host_s / self.kernel_s:.2f}x",
            f"{self.host_error:.4f}",
            f"{self.kernel_error:.4f}",
            _mib(self.host_bytes),
            _mib(self.kernel_bytes),
            f"{self.check_s * 1000:.2f}",
        )


def main() -> int:
    """Measure all that is installed; 1 where no kernel computes here."""
    parser = argparse.ArgumentParser(prog="bench.py attention", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--head-dims", type=int, nargs="+", default=HEAD_DIMS)
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=["bf16", "fp16"])
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device: SageAttention's kernels need one")
    enter_host(options.comfyui)
    from comfy.ldm.modules import attention  # noqa: PLC0415

    kernels = list(installed())
    if not kernels:
        print("No SageAttention kernel is installed that computes on this GPU.")
        return 1
    device, host = torch.device("cuda"), attention.optimized_attention
    name = getattr(host, "__name__", "attention")
    print(heading(name))
    with torch.inference_mode():
        for head_dim in options.head_dims:
            for dtype in options.dtypes:
                for tokens in options.tokens:
                    size = (1, tokens, HEADS * head_dim)
                    inputs = made(size, head_dim, DTYPES[dtype], device)
                    for cell in measured(kernels, host, inputs, HEADS, options.repeats):
                        print(line(cell.row()), flush=True)
                    del inputs
    return 0


def installed() -> Iterable[Ready]:
    """One for each mode that comes to a kernel on this GPU."""
    packages = InstalledPackages()
    place = Place("cuda", torch.cuda.get_device_capability(), platform.system())
    for mode in dict.fromkeys(kernel.mode for kernel in KERNELS):
        choice = choose(mode, place, KERNELS, packages)
        if choice.kernel is None:
            print(f"{mode}: {choice.why}", file=sys.stderr)
            continue
        function = packages.function(choice.kernel.module, choice.kernel.function)
        assert function is not None  # noqa: S101
        yield Ready(choice.kernel, function, choice.options)


def made(
    size: Sequence[int], head_dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values [batch, tokens, heads x head_dim], the keys with channel means."""
    random = torch.Generator(device).manual_seed(head_dim)
    q, k, v = (torch.randn(size, generator=random, device=device) for _ in range(3))
    k += KEY_BIAS * torch.randn(size[-1], generator=random, device=device)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def measured(
    kernels: Iterable[Ready],
    host: Callable[..., Any],
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    heads: int,
    repeats: int,
) -> Iterable[Cell]:
    """Each kernel beside the host's attention on the same inputs."""
    q = inputs[0]
    read = read_call(*inputs, heads)
    assert isinstance(read, Call)  # noqa: S101

    def hosts() -> torch.Tensor:
        return host(*inputs, heads)

    whole = Hosts(
        timed(q.device, hosts, repeats),
        peak_bytes(q.device, hosts),
        exact_error(hosts().unflatten(-1, (heads, -1)), read),
        host_attention(getattr(host, "__wrapped__", host), heads, {}),
    )
    for ready in kernels:
        if refusal(ready.kernel, read) is None:
            yield _cell(ready, read, whole, repeats)


def exact_error(out: torch.Tensor, call: Call) -> float:
    """Relative L2 of the rows a self-check looks at, against attention in float32."""
    exact = call._replace(q=call.q.float(), k=call.k.float(), v=call.v.float())
    error = check(out.float(), exact, torch_attention).error
    return float("nan") if error is None else error


def timed(device: torch.device, work: Callable[[], object], repeats: int) -> float:
    """Median seconds of a warm call."""
    for _ in range(WARM_CALLS):
        work()
    return median(_once(device, work) for _ in range(repeats))


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int | None:
    """What a call holds at most beyond what was held before, its answer included."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def heading(host: str) -> str:
    """What was measured, and the table's first lines."""
    rows = (line(HEADINGS), line(["---"] * len(HEADINGS)))
    facts = f"torch {torch.__version__}, {HEADS} heads, batch 1, host's attention: {host}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return "\n".join((f"{device}, {facts}", "", *rows))


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cell(ready: Ready, call: Call, hosts: Hosts, repeats: int) -> Cell:
    out = run(ready, call)

    def ours() -> torch.Tensor:
        return shaped(run(ready, call), call)

    def checks() -> object:
        return check(out, call, hosts.function)

    return Cell(
        kernel=f"{ready.kernel.module}.{ready.kernel.function}",
        head_dim=call.q.shape[-1],
        tokens=call.q.shape[call.tokens_at],
        dtype=next(name for name, dtype in DTYPES.items() if dtype == call.q.dtype),
        host_s=hosts.seconds,
        kernel_s=timed(call.q.device, ours, repeats),
        host_error=hosts.error,
        kernel_error=exact_error(out, call),
        host_bytes=hosts.peak_bytes,
        kernel_bytes=peak_bytes(call.q.device, ours),
        check_s=timed(call.q.device, checks, repeats),
    )


def _once(device: torch.device, work: Callable[[], object]) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000


def _mib(size_bytes: int | None) -> str:
    return "-" if size_bytes is None else f"{size_bytes / MiB:.0f}"


if __name__ == "__main__":
    sys.exit(main())
