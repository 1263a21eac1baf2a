"""A short interlaced video whose picture is known, to try a decoder with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_GREY, _TOLERANCE = 200, 8
# Interlaced MPEG-2, three frames of 32 x 32 pixels, all of that grey.
_INTERLACED = bytes.fromhex(
    "000001b302002013ffffe018000001b5148200010000000001b80008004000000100000ffff8000001b58fff"
    "f3000000000101137bca52911694a5222000000102137bca52911694a52220000001000057fffb80000001b5"
    "811ff3000000000101126e6c00000102126e6c000001000097fffb80000001b5811ff3000000000101126e6c"
    "00000102126e6c"
)


@contextmanager
def interlaced_sample() -> Iterator[Path]:
    """Give the video as a file, for as long as the block lasts."""
    import tempfile  # takes its time

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "interlaced.m2v"
        path.write_bytes(_INTERLACED)
        yield path


def shows_sample(image_bgr: NDArray[np.uint8]) -> bool:
    """Whether a decoder gave the picture of the video."""
    return bool(np.abs(image_bgr.astype(int) - _GREY).max() < _TOLERANCE)
