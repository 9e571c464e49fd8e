"""Measures cells of ``bench.py decode``. ComfyUI must have been entered before."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import torch
from _bench_decode_ballast import Emulation
from _bench_decode_cases import CASES, GIB, OURS, REAL
from _bench_decode_host import Host, Pack, real_vae
from _bench_decode_measure import difference, timed
from _bench_decode_photos import photo
from _bench_decode_rows import Cell, Setting, Whole
from _bench_decode_ways import Card, decode, whole
from _host_vaes import latent, load

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from _bench_decode_cases import Way
    from _bench_decode_measure import Took
    from _bench_decode_ways import Told

WHOLES: Final = 2
SEED: Final = 7
"""LTX draws noise as it decodes: every decode begins with the same generator."""
TORCH: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass
class Outcome:
    """One decode: pictures, or why there are none."""

    took: Took
    images: torch.Tensor | None = None
    told: Told | None = None
    out_of_memory: bool = False
    note: str = ""


@dataclass
class Bench:
    """One case, ready to be decoded.

    Attributes:
        photo: what the pictures should look like, None for random weights.
    """

    setting: Setting
    host: Host
    pack: Pack
    vae: Any
    latent: torch.Tensor
    photo: torch.Tensor | None
    emulation: Emulation | None
    asked: argparse.Namespace
    _reference: torch.Tensor | None = None
    _whole_s: float | None = None

    @classmethod
    def prepared(cls, asked: argparse.Namespace, setting: Setting, base: Path) -> Bench:
        """Load the VAE, make the latent, start the ballast."""
        host = Host.entered()
        if setting.dtype == "fp32":
            # Else convolutions round to 10 bits, and each choice of kernel differently.
            torch.backends.cudnn.allow_tf32 = False
        vae, sample, picture = _subject(asked, setting, base)
        host.clean()
        emulation = None
        if host.device.type == "cuda":
            emulation = Emulation.start(lambda: torch.cuda.mem_get_info(host.device))
        pack = Pack(base)
        pack.forget()
        return cls(setting, host, pack, vae, sample, picture, emulation, asked)

    @property
    def reference(self) -> torch.Tensor:
        """Pictures of the first whole decode, on the CPU."""
        if self._reference is None:
            raise RuntimeError("Nothing to compare with yet: whole() comes before any cell.")
        return self._reference

    def end(self) -> None:
        """Let the ballast process end."""
        if self.emulation is not None:
            self.emulation.end()

    def whole(self) -> Whole:
        """Core's whole decode, before the ballast holds anything; its pictures are kept."""
        outcomes: list[Outcome] = []
        spread = 0.0
        for _ in range(WHOLES):
            self.host.clean()
            self.host.management.load_models_gpu([self.vae.patcher])
            outcome = self._decode(lambda: whole(self.vae, {"samples": self.latent}))
            if outcome.images is None:
                raise RuntimeError(f"The whole decode failed: {outcome.note}. Nothing was kept.")
            if self._reference is None:
                self._reference = outcome.images.cpu()
            else:
                spread = difference(outcome.images.cpu(), self._reference).relative
            outcome.images = None
            outcomes.append(outcome)
        seconds = [outcome.took.seconds for outcome in outcomes]
        self._whole_s = min(seconds)
        reference = self.reference
        return Whole(
            self.setting,
            seconds,
            [outcome.took.peak_bytes for outcome in outcomes],
            spread,
            self._psnr(reference),
            reference.numel() * reference.element_size(),
            list(reference.shape),
            "; ".join(outcome.told.plan for outcome in outcomes if outcome.told),
            machine(self.host),
        )

    def cell(self, way: Way, card_gib: float) -> Cell:
        """One way on one card; ours twice, for the first time has costs of its own."""
        if way not in OURS:
            return self._once(way, card_gib)
        if self.asked.cold:
            self.pack.forget()
        first = self._once(way, card_gib)
        if self.asked.once or first.state != "ok":
            first.is_cold = self.asked.cold
            return first
        cell = self._once(way, card_gib)
        cell.cold_seconds, cell.is_cold = first.seconds, self.asked.cold
        # Memory pinned by the first may be kept for the second, which then adds nothing.
        cell.ram_bytes = max(cell.ram_bytes or 0, first.ram_bytes or 0)
        return cell

    def _once(self, way: Way, card_gib: float) -> Cell:
        on_cpu = self.host.device.type == "cpu"
        card = Card(card_gib, card_gib if on_cpu else 0.0)
        cell = Cell(self.setting, card_gib, way, "ok", whole_s=self._whole_s)
        self.host.clean()
        if self.emulation is not None:
            beside = self.setting.beside_held
            size = int(card_gib * GIB)
            _, cell.held_bytes = self.emulation.become(size, beside_held=beside)
        cell.resident_bytes = self.host.load_resident(int(card_gib * GIB / 2))
        cell.free_bytes = int(self.host.management.get_free_memory(self.host.device))
        told_total = self.asked.told_total and not on_cpu
        if way in OURS:
            self.pack.job_begins()
        with self.host.total(int(card_gib * GIB)) if told_total else nullcontext():
            outcome = self._decode(lambda: decode(way, self.vae, self.latent, card, self.host))
        self._fill(cell, outcome)
        del outcome
        self.host.clean()
        if way in OURS:
            self.pack.job_ends()
        return cell

    def _decode(self, work: Any) -> Outcome:  # noqa: ANN401
        """Run it as a node runs; an error is noted and left behind with all it refers to."""
        made: list[tuple[torch.Tensor, Told]] = []
        failure: tuple[bool, str] | None = None

        def run() -> None:
            nonlocal failure
            try:
                with torch.inference_mode():
                    made.append(work())
            except Exception as problem:  # noqa: BLE001 - what came of it is the cell
                said = str(problem).strip().partition("\n")[0]
                failure = self.host.is_oom(problem), f"{type(problem).__name__}: {said}"[:300]

        torch.manual_seed(SEED)
        took = timed(self.host, run)
        if failure is not None:
            gc.collect()
            return Outcome(took, out_of_memory=failure[0], note=failure[1])
        images, told = made.pop()
        return Outcome(took, images, told)

    def _fill(self, cell: Cell, outcome: Outcome) -> None:
        took = outcome.took
        cell.seconds, cell.torch_bytes = took.seconds, took.peak_bytes
        cell.ram_bytes, cell.note = took.ram_bytes, outcome.note
        if outcome.images is None or outcome.told is None:
            cell.state = "OOM" if outcome.out_of_memory else "error"
            return
        cell.plan, cell.report = outcome.told.plan, outcome.told.report
        cell.budget_bytes = cell.report.get("budget_bytes")
        exact = cell.report.get("measured_peak_bytes")
        least = (cell.report.get("measured_peak_range_bytes") or [None])[0]
        cell.peak_bytes, cell.peak_is_exact = exact or least, exact is not None
        self._compare(cell, outcome.images)

    def _compare(self, cell: Cell, images: torch.Tensor) -> None:
        reference = self.reference
        if images.shape != reference.shape:
            cell.state = "error"
            cell.note = f"shape {list(images.shape)}, not {list(reference.shape)}"
            return
        if not bool(torch.isfinite(images).all()):
            cell.state, cell.note = "error", "not all values are finite"
            return
        images = images.cpu()
        found = difference(images, reference)
        cell.relative, cell.largest = found.relative, found.largest
        cell.psnr_db = self._psnr(images)
        cell.output_bytes = images.numel() * images.element_size()

    def _psnr(self, images: torch.Tensor) -> float | None:
        return None if self.photo is None else difference(images, self.photo).psnr_db


def _subject(
    asked: argparse.Namespace, setting: Setting, base: Path
) -> tuple[Any, torch.Tensor, torch.Tensor | None]:
    """VAE, latent and photo of a case."""
    case = CASES[setting.case]
    frames, rows, columns = case.latents[setting.size]
    if setting.case != REAL:
        vae = load(case.vae, dtype=TORCH[setting.dtype])
        return vae, latent(case.vae, frames, rows, columns), None
    if asked.data is None:
        raise SystemExit("taef2 needs --data, the folder of its weights; nothing was measured")
    vae = real_vae(base, asked.data)
    # ComfyUI's own idea of this one's scale is half of what it is.
    scale = import_module("vram_supervisor.nodes.host.vae").read_facts(vae).spatial_scale
    picture = photo(asked.photos, rows * scale, columns * scale)
    with torch.inference_mode():
        return vae, vae.encode(picture), picture


def machine(host: Host) -> dict[str, Any]:
    """What the figures depend on."""
    on_gpu = host.device.type == "cuda"
    return {
        "gpu": torch.cuda.get_device_name(host.device) if on_gpu else "CPU",
        "torch": torch.__version__,
        "cudnn": str(torch.backends.cudnn.version()) if on_gpu else None,
        "allocator": torch.cuda.get_allocator_backend() if on_gpu else None,
        "dynamic_vram": host.is_dynamic,
    }
