"""What reads a video file, whichever library does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.packet_ring import PacketRing


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded frame."""

    image_bgr: NDArray[np.uint8]  # (H, W, 3)
    stream_s: float | None  # the stream's own time, from wherever it counts; None: it has none
    is_whole: bool = True  # False: it is not, or may not be, what the stream holds


class Film(Protocol):
    """An opened video file, read once by one thread."""

    fps: float | None  # as announced, if that can be true
    num_frames: int | None  # likewise
    may_jump: bool  # whether recordings may be joined in it, whose times have nothing in common
    damaged: int  # packets so far that could not be read or decoded as a whole
    is_cut: bool  # whether its end is missing, as far as that is known by now
    num_videos: int  # in the file, of which it is the first
    is_encrypted: bool  # whether packets were met that only a key opens
    ring: PacketRing | None  # its packets, where they are kept

    def read(self) -> Picture | None:
        """Decode the next frame; None at the end. Goes on behind what is damaged."""
        ...

    def missing_s(self) -> float:
        """Seconds at the end that it announces and does not hold; once it was read."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...
