"""Another program that takes more of the card while a job runs, and gives it back.

As a script it is that program: it answers each line ``hold <bytes> <seconds>`` with
``held <bytes>``, what it has once it has all or those seconds have passed, and ends with its
input. ``--cpu`` holds system memory.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

PIECES: Final = 16
"""It takes memory piece by piece, as programs do, so it may get a part of what it asks for."""
RETRY_S: Final = 0.05
ALLOCATOR: Final = frozenset({"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"})


class NeighbourFailedError(Exception):
    """The other program ended or did not understand."""

    def __init__(self, said: str) -> None:
        super().__init__(
            f"The other program was to hold memory and said {said!r}. Rows before are kept. "
            "See that nothing else runs on the GPU."
        )


class Neighbour:
    """The other program, as this one sees it. It starts while this one goes on."""

    def __init__(self, *, cpu: bool) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), *(["--cpu"] if cpu else [])]
        kept = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
        self.process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept
        )
        self._asks, self._says = _piped(process.stdin), _piped(process.stdout)

    def hold(self, size_bytes: int, patience_s: float = 0.0) -> int:
        """Have it hold so much; what it holds.

        Raises:
            NeighbourFailedError: it ended.
        """
        with suppress(BrokenPipeError):  # that it ended shows in its answer
            print("hold", size_bytes, patience_s, file=self._asks, flush=True)
        return self._answer()

    def end(self) -> None:
        """Have it give everything back, and wait for its end."""
        with suppress(BrokenPipeError):
            self._asks.close()
        self.process.wait()
        self._says.close()

    def _answer(self) -> int:
        word, _, figure = self._says.readline().strip().partition(" ")
        if word != "held":
            self.end()
            raise NeighbourFailedError(word or "nothing: it ended")
        return int(figure)


def _piped(stream: IO[str] | None) -> IO[str]:
    """What ``Popen`` gives when it was asked for a pipe."""
    if stream is None:
        raise NeighbourFailedError("nothing: it has no pipe")
    return stream


class _Pieces:
    """Memory in pieces, newest last."""

    def __init__(self, *, cpu: bool) -> None:
        import torch  # noqa: PLC0415

        self._torch = torch
        self._device = torch.device("cpu" if cpu else "cuda")
        self._held: list[torch.Tensor] = []
        if not cpu:
            torch.zeros(1, device=self._device)

    @property
    def held_bytes(self) -> int:
        """What there is of them."""
        return sum(piece.numel() for piece in self._held)

    def become(self, size_bytes: int, patience_s: float) -> None:
        """More pieces, or fewer."""
        while self._held and self.held_bytes > size_bytes:
            self._held.pop()
        if self._device.type == "cuda":
            self._torch.cuda.empty_cache()
        give_up_s = time.monotonic() + patience_s
        piece_bytes = max(1, (size_bytes - self.held_bytes) // PIECES)
        while (missing := size_bytes - self.held_bytes) > 0:
            shape = (min(piece_bytes, missing),)
            try:
                self._held.append(
                    self._torch.zeros(shape, dtype=self._torch.uint8, device=self._device)
                )
            except self._torch.OutOfMemoryError:
                if time.monotonic() >= give_up_s:
                    return
                time.sleep(RETRY_S)


def _neighbour() -> int:
    pieces = _Pieces(cpu="--cpu" in sys.argv)
    for line in sys.stdin:
        size, patience = line.split()[1:]
        pieces.become(int(size), float(patience))
        print("held", pieces.held_bytes, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_neighbour())
