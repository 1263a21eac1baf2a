"""Frames of PyAV as pictures: the bytes that OpenCV gives, turned and mirrored as a player shows them."""

from __future__ import annotations

import logging
import struct
from contextlib import suppress
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX = struct.Struct("=9i")  # (x, y, 1) of a pixel times its rows is where it is shown
_log = logging.getLogger(__name__)


class Pictures:
    """Turns the frames of one stream into arrays."""

    def __init__(self, av: ModuleType) -> None:
        """Keep what sizes and formats have in common."""
        self._av = av
        _know_all_kinds(av)
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._is_approximate = False

    def to_bgr(self, frame: Any) -> NDArray[np.uint8]:
        """Convert a frame.

        Returns:
            uint8 (H, W, 3), BGR.

        Raises:
            av.FFmpegError, ValueError: Its pixels are of a format that nobody converts.
        """
        try:
            converted = self._convert(frame)
        except self._av.FFmpegError:  # it may be the matrix of its colours
            converted = self._convert(frame, src_colorspace="ITU601")
            if not self._is_approximate:
                _log.warning(
                    "it has colours of a kind that FFmpeg does not convert (colour matrix %s): they are "
                    "read as those of ITU-R 601, and may be wrong",
                    int(frame.colorspace),
                )
            self._is_approximate = True
        return _upright(converted.to_ndarray(), frame)

    def _convert(self, frame: Any, **colours: str) -> Any:
        return self._reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC", **colours)


def _know_all_kinds(av: ModuleType) -> None:
    """Let PyAV tell what stands beside a frame: it refuses all where it lacks the name of one, as of EXIF."""

    def unnamed(kinds: Any, value: int) -> Any:
        kind = object.__new__(kinds)
        kind._name_, kind._value_ = f"UNNAMED_{value}", value
        return kind

    with suppress(AttributeError):  # of another version
        av.sidedata.sidedata.Type._missing_ = classmethod(unnamed)


def _upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror by the quarter that is nearest to what a frame asks for."""
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # it lacks a name all the same: without the mirror
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
    if matrix is None:
        return image
    a, b, _, c, d = _MATRIX.unpack(bytes(matrix))[:5]
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, right, down = image.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])
