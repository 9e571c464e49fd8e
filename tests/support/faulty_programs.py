"""Programs of small networks that run into trouble at chosen calls, and a world to run them in."""

from dataclasses import replace

import torch
from support.toy_decoders import (
    Clips,
    Fixed,
    Kl,
    chunks_of,
    noise,
    relative,
)

from vram_supervisor.supervisor.decode.engine import Engine
from vram_supervisor.supervisor.decode.parking import HostPages
from vram_supervisor.supervisor.decode.program import Program
from vram_supervisor.supervisor.decode.running import Hooks

CPU = torch.device("cpu")
MEMORY_RAN_OUT = [
    torch.cuda.OutOfMemoryError("Allocation on device"),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


class Trouble:
    """Raises at chosen calls; counts them all."""

    def __init__(self, *at, error=MEMORY_RAN_OUT[0]):
        self.at, self.error, self.calls = set(at), error, 0

    def strike(self):
        self.calls += 1
        if self.calls - 1 in self.at:
            # A new one: an error keeps alive what its traceback saw.
            raise type(self.error)(*self.error.args)


class Kept:
    """An Output that keeps the last that was written and knows what is final."""

    def __init__(self, trouble=None, commit_trouble=None):
        self.trouble, self.commit_trouble = trouble or Trouble(), commit_trouble or Trouble()
        self.made, self.final = {}, []

    def has(self, rect):
        return False

    def write(self, first_frame, rect, made):
        self.trouble.strike()
        frames = made.shape[2] if made.ndim == 5 else 1
        assert not any(_meet(each, (first_frame, frames, rect)) for each in self.final)
        self.made[first_frame, rect] = made.clone()

    def forget(self, rect):
        """What is not final is written again."""

    def commit(self, first_frame, frames, rect):
        self.commit_trouble.strike()
        self.final.append((first_frame, frames, rect))

    def picture(self, like):
        made = torch.full_like(like, float("nan"))
        for (first, rect), part in self.made.items():
            target = made[..., rect.top : rect.bottom, rect.left : rect.right]
            if part.ndim == 5:
                target = target[:, :, first : first + part.shape[2]]
            target.copy_(part)
        return made


def _meet(one, other):
    """Whether two stretches of frames of two rectangles have a pixel in common."""
    (first, frames, a), (start, length, b) = one, other
    return (
        (first < start + length and start < first + frames)
        and (a.top < b.bottom and b.top < a.bottom)
        and (a.left < b.right and b.left < a.right)
    )


def struck(program, trouble, *, late):
    """A program whose stages strike as they begin, or with their work done."""

    def wrapped(stage):
        def run(x, carry, place):
            if not late:
                trouble.strike()
            made = stage.run(x, carry, place)
            if hasattr(made, "shape"):
                if late:
                    trouble.strike()
                return made
            return _struck_pieces(made, trouble, late=late)

        return replace(stage, run=run)

    phases = [replace(p, stages=tuple(map(wrapped, p.stages))) for p in program.phases]
    return Program(tuple(phases))


def _struck_pieces(pieces, trouble, *, late):
    for piece in pieces:
        yield piece
        if late:
            trouble.strike()


PICTURE, CLIP, STREAM = Kl(widths=(8, 8), blocks=1), Clips(), Clips(normed=False)
CASES = {
    "picture": (PICTURE.program, noise(1, 4, 5, 4), PICTURE.decode),
    "clip": (lambda: CLIP.program(chunks_of(1, 2)), noise(1, 4, 3, 4, 4), CLIP),
    "stream": (lambda: STREAM.streamed(chunks_of(1, 2)), noise(1, 4, 3, 5, 4), STREAM),
}


class World:
    """One case, run again and again with the same parts."""

    def __init__(self, case, resident_bytes=1 << 40):
        self.build, self.source, self.forward = case
        self.resident_bytes = resident_bytes
        self.wanted = self.forward(self.source)
        self.calls = Trouble()
        self.undisturbed = self.run(struck(self.build(), self.calls, late=False))
        assert relative(self.undisturbed, self.wanted) < 1e-6

    def run(self, program=None, output=None, hooks=None, pages=None):
        output = output or Kept()
        sizer = Fixed(2, source=self.source, resident_bytes=self.resident_bytes)
        pages = pages or small_pages()
        engine = Engine(program or self.build(), sizer, CPU, hooks, pages)
        try:
            engine.run(self.source, output)
        finally:
            self.nothing_is_left(engine, pages)
        return output.picture(self.wanted)

    @staticmethod
    def nothing_is_left(engine, pages):
        assert pages.taken == 0
        assert engine.parking.resident_bytes == 0


def small_pages():
    """Of a size that these results fill."""
    return HostPages(512, locks=False)


def quiet(**how):
    return Hooks(empty_cache=lambda: None, **how)
