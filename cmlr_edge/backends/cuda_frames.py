"""Images resized on the GPU, by the frame kernel of `cmlr_edge._cuda`. Unverified on hardware."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.base import UnresizedImage
from cmlr_edge.backends.cuda_memory import MirroredArray, Stream
from cmlr_edge.errors import EngineError

VARIABLE = "CMLR_RESIZE"  # in the environment: "cpu" leaves the GPU out
_LARGEST_STAGE = (
    32 * 2**20
)  # bytes, once on the host and once on the device; 4096 x 2160 is 26.5 MB
_LARGEST_SIDE = 1 << 14  # that the kernel takes
_ALIGNED = 256  # bytes: where images begin on the device
_NOT_ASKED = "nobody has asked for it"
_log = logging.getLogger(__name__)


class Resizing:
    """Whether images are resized on the GPU, for all streams of an engine, until one cannot be."""

    def __init__(self, name: str) -> None:
        """Not yet; `name` is the engine's, for the log."""
        self._name, self._lock = name, threading.Lock()
        self._why_not = _NOT_ASKED
        self.operator: Callable[..., None] | None = None

    def start(self) -> None:
        """Look for the kernel, unless the user wants none of it."""
        if os.environ.get(VARIABLE) == "cpu":
            return
        try:
            from cmlr_edge._cuda import resize_frame
        except ImportError:
            self.give_up(
                "this installation has no CUDA kernels: install with "
                "`pip install . -C cmake.define.CMLR_CUDA=ON` on this machine"
            )
            return
        self.operator, self._why_not = resize_frame, ""

    def give_up(self, why: str) -> None:
        """Say why, once; from here on it is the CPU's work."""
        with self._lock:
            first = self._why_not in {"", _NOT_ASKED}
            self.operator, self._why_not = None, self._why_not if not first else why
        if first:
            _log.warning("%s: frames are resized on the CPU: %s", self._name, why)

    def __str__(self) -> str:
        """Where it is done, for people; nothing where nobody asked."""
        if self._why_not == _NOT_ASKED:
            return ""
        return f"frames are resized on the {'CPU' if self.operator is None else 'GPU'}"


@dataclass(frozen=True)
class _Held:
    """An image that is on the device: where it began on the host, where its bytes are now."""

    begin: int
    end: int
    row: int  # bytes from one row to the next, in both places
    place: int  # in the stage


class FrameStage:
    """Where images wait to be resized: pinned on the host, and on the device. For one stream.

    What is put here stays until its place is wanted again; the host waits for the stream before.
    """

    def __init__(self, resizing: Resizing, size_hw: tuple[int, ...], stream: Stream) -> None:
        """Allocate nothing yet: cameras say how large they are with their first frame."""
        self._resizing, self._size_hw, self._stream = resizing, tuple(size_hw[:2]), stream
        self._array: MirroredArray | None = None
        self._used = 0
        self._held: list[_Held] = []

    def begin(self) -> None:
        """Start a batch: the stream was waited for, and the host's images may be others by now."""
        self._used, self._held = 0, []

    def resize(self, image: UnresizedImage, out: int) -> bool:
        """Put the upload and the resize on the stream.

        Args:
            image: Any size; copied before this returns.
            out: Device address of its (*size_hw, 3).

        Returns:
            False where it is the CPU's work: it is too large, or the GPU cannot do it, which the log says.
        """
        operator, pixels = self._resizing.operator, image.pixels
        if operator is None or pixels.size > _LARGEST_STAGE or max(pixels.shape) > _LARGEST_SIDE:
            return False
        try:
            place, row = self._placed(pixels)
            assert self._array is not None
            operator(
                format=image.order, pixels=self._array.address_of(place), chroma=0,
                size_hw=pixels.shape[:2], out=out, out_hw=self._size_hw,
                stream=self._stream.handle, row_bytes=(row, row),
            )  # fmt: skip
        except (EngineError, RuntimeError, ValueError) as error:
            self._resizing.give_up(str(error))
            return False
        return True

    def _placed(self, pixels: NDArray[np.uint8]) -> tuple[int, int]:
        """Where it begins in the stage, and bytes from row to row; a part of a frame is there with it."""
        begin, row = pixels.ctypes.data, pixels.strides[0]
        end = begin + (len(pixels) - 1) * row + pixels.shape[1] * 3
        for held in self._held:
            inside = held.begin <= begin and end <= held.end
            if inside and held.row == row and pixels.strides[1:] == (3, 1):
                return held.place + begin - held.begin, row
        place = self._room_for(pixels.size)
        assert self._array is not None
        self._array.host[place : place + pixels.size].reshape(pixels.shape)[:] = pixels
        self._array.upload(pixels.size, self._stream, first=place)
        if pixels.flags.c_contiguous:
            self._held.append(_Held(begin, end, row, place))
        return place, 3 * pixels.shape[1]

    def _room_for(self, size: int) -> int:
        array = self._array
        if array is None or size > len(array.host):
            array = self._grow(size)
        if self._used + size > len(array.host):
            self._stream.synchronize()  # what is there is still being copied, or read
            self.begin()
        place = self._used
        self._used += -(-size // _ALIGNED) * _ALIGNED
        return place

    def _grow(self, size: int) -> MirroredArray:
        """For two such images, so that one is copied while the other is resized."""
        self._stream.synchronize()
        self.close()
        self._array = MirroredArray((min(2 * (size + _ALIGNED), _LARGEST_STAGE),), np.uint8)
        return self._array

    def close(self) -> None:
        """Free it; the stream must have been waited for. Calling it twice is harmless."""
        array, self._array = self._array, None
        self.begin()
        if array is not None:
            array.close()
