"""A lossless video: FFV1 in Matroska, one frame after the other."""

from __future__ import annotations

import importlib.util
from contextlib import suppress
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any, Final

from ...errors import VideoWriterMissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FRAME_RATE: Final = 24
"""Frames per second that the file says; nobody says what it should be."""
PIXEL_FORMATS: Final = {1: ("gray", "gray"), 3: ("rgb24", "bgr0"), 4: ("rgba", "bgra")}
"""By channels: what comes in, and the same values in the codec's order."""
OPTIONS: Final = {"level": "3", "slicecrc": "1"}
"""Version 3 of the format, with a checksum for each slice."""


def check_video_writer() -> None:
    """See that PyAV is there.

    Raises:
        VideoWriterMissingError: it is not.
    """
    if importlib.util.find_spec("av") is None:
        raise VideoWriterMissingError


class VideoFile:
    """Encodes into an open file; everything on one thread.

    Args:
        file: is written from where it stands; stays open.
        height: rows of a frame.
        width: columns of a frame.
        channels: values per pixel.
    """

    def __init__(self, file: IO[bytes], height: int, width: int, channels: int) -> None:
        import av  # noqa: PLC0415 - the host brings it

        self._from, to = PIXEL_FORMATS[channels]
        self._container: Any = av.open(file, "w", format="matroska")
        self._stream: Any = self._container.add_stream("ffv1", rate=FRAME_RATE, options=OPTIONS)
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = to
        # As many slices at once as there are processors: frames themselves come in order.
        self._stream.thread_type, self._stream.thread_count = "SLICE", 0
        self._stream.time_base = Fraction(1, FRAME_RATE)
        self._frames = 0

    def add(self, picture: NDArray[np.uint8]) -> None:
        """The next frame, ``[H, W, C]``."""
        import av  # noqa: PLC0415

        pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
        frame = av.VideoFrame.from_ndarray(pixels, format=self._from)
        frame.pts = self._frames
        self._frames += 1
        self._container.mux(self._stream.encode(frame))

    def abandon(self) -> None:
        """Let go of it, whatever the file will hold."""
        with suppress(OSError):  # it closes the file's last part
            self._container.close()

    def finish(self) -> None:
        """Write what is left."""
        self._container.mux(self._stream.encode())
        self._container.close()
