"""Makes a large card a small one: a process of its own holds the rest of its memory.

As a script it is that process: it answers each line ``leave <bytes>`` with ``left <free> <held>``
once so much is free on the device, and ends with its input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SLACK_BYTES: Final = 8 << 20
"""How far from what was asked the free memory may be: devices give it out in 2 MiB pages."""
TRIES: Final = 4


class BallastFailedError(Exception):
    """The other process could not hold what it should."""

    def __init__(self, asked_bytes: int, said: str) -> None:
        super().__init__(
            f"The ballast process was to leave {asked_bytes:,} bytes free and said {said!r}. "
            "Cells measured before are kept. See that nothing else runs on the GPU."
        )


class Ballast:
    """The other process, as this one sees it."""

    def __init__(self, command: tuple[str, ...] | None = None) -> None:
        # The plain allocator: it takes what it is told to and gives it back.
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in {"PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"}
        }
        self._process = process = subprocess.Popen(
            command or (sys.executable, str(Path(__file__).resolve())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._asks, self._says = _piped(process.stdin), _piped(process.stdout)
        self.held_bytes = 0
        """What it holds beside its own context."""
        self._answer(0)  # it says that its context is made

    def leave(self, free_bytes: int) -> int:
        """Have so much free on the device; returns what is.

        Raises:
            BallastFailedError: it could not.
        """
        with suppress(BrokenPipeError):  # that it ended shows in its answer
            print("leave", free_bytes, file=self._asks, flush=True)
        left = self._answer(free_bytes)
        if abs(left - free_bytes) > SLACK_BYTES:
            raise BallastFailedError(free_bytes, f"left {left}")
        return left

    def close(self) -> None:
        """Let everything go and wait for its end."""
        with suppress(BrokenPipeError):
            self._asks.close()
        self._process.wait()
        self._says.close()

    def _answer(self, asked_bytes: int) -> int:
        line = self._says.readline()
        word, *figures = line.split() or [""]
        if word != "left":
            self.close()
            raise BallastFailedError(asked_bytes, line.strip() or "nothing: it ended")
        free_bytes, self.held_bytes = map(int, figures)
        return free_bytes


def _piped(stream: IO[str] | None) -> IO[str]:
    """What ``Popen`` gives when it was asked for a pipe."""
    if stream is None:
        raise BallastFailedError(0, "nothing: it has no pipe")
    return stream


@dataclass
class Emulation:
    """A card of any size up to the real one's.

    Attributes:
        memory: free and total bytes of the device, as ``torch.cuda.mem_get_info`` gives them.
    """

    ballast: Ballast
    memory: Callable[[], tuple[int, int]]
    overhead_bytes: int

    @classmethod
    def start(cls, memory: Callable[[], tuple[int, int]]) -> Emulation:
        """Start the other process; what that takes of the device is its context."""
        before, _ = memory()
        ballast = Ballast()
        after, _ = memory()
        return cls(ballast, memory, before - after)

    def become(self, card_bytes: int, *, beside_held: bool = False) -> tuple[int, int]:
        """Leave this process a card of that size.

        Args:
            card_bytes: the card's size.
            beside_held: so much is free; else what this process holds now (its context) is a
                part of it, as on a real card.

        Returns:
            What is free, and what this process holds already.
        """
        free, total = self.memory()
        held = total - free - self.ballast.held_bytes - self.overhead_bytes
        self.ballast.leave(card_bytes if beside_held else card_bytes - held)
        return self.memory()[0], held

    def end(self) -> None:
        """Give everything back."""
        self.ballast.close()


def _hold() -> int:
    """The other process."""
    import torch  # noqa: PLC0415

    device = torch.device("cuda")
    torch.cuda.init()
    torch.zeros(1, device=device)
    torch.cuda.empty_cache()
    blocks: list[torch.Tensor] = []
    print("left", torch.cuda.mem_get_info()[0], 0, flush=True)
    for line in sys.stdin:
        asked = int(line.split()[1])
        blocks.clear()
        torch.cuda.empty_cache()
        for _ in range(TRIES):
            excess = torch.cuda.mem_get_info()[0] - asked
            if excess <= SLACK_BYTES // 2:
                break
            blocks.append(torch.empty(excess, dtype=torch.uint8, device=device))
        held = torch.cuda.memory_reserved()
        print("left", torch.cuda.mem_get_info()[0], held, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_hold())
