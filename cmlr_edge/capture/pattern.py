"""`test://`: a moving pattern with faults to order, to try an installation before a camera fails.

`test://?fps=20&size=320x240&frames=600&hang=100:3&none=300:2` is a camera of 20 frames per second that
hangs for 3 s before frame 100, loses its connection at frame 300 and refuses a new one for 2 s, and
ends after 600 frames. Faults, each at most once per frame number:

    hang=N:S     the read before frame N takes S seconds
    none=N:S     no frame N, and no new connection for S seconds
    frozen=N:K   K frames show what frame N shows
    resize=N:WxH another size from frame N on
    burst=N:K    K frames late, all at once
    clock=N:S    the wall clock jumps by S seconds (may be negative)
    drop=N:K     K frames are never delivered
"""

from __future__ import annotations

import re
import threading
import time
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.readers import EndOfSource, Grab
from cmlr_edge.errors import CaptureError

_BITS, _BLOCK = 16, 8  # the number of a frame stands in its upper left corner, a block per bit
_FAULTS = ("hang", "none", "frozen", "resize", "burst", "clock", "drop")
_NUMBER = r"-?\d{1,9}(?:\.\d{1,9})?"
_SIZE = r"\d{1,5}x\d{1,5}"


def draw_pattern(number: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a frame: a square that moves over a gradient, and the frame's number.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = size_hw
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, width)
    image[..., 1] = np.linspace(0, 200, height)[:, None]
    image[..., 2] = 60
    side = max(4, height // 4)
    left = number * 3 % max(1, width - side)
    image[height // 2 : height // 2 + side, left : left + side] = 255
    for bit in range(_BITS):
        value = 255 if number >> bit & 1 else 0
        image[:_BLOCK, bit * _BLOCK : (bit + 1) * _BLOCK] = value
    return image


def read_number(image_bgr: NDArray[np.uint8]) -> int:
    """Read the frame's number, modulo 65536, back from a picture of `draw_pattern`."""
    row = image_bgr[_BLOCK // 2, _BLOCK // 2 : _BITS * _BLOCK : _BLOCK, 1]
    return sum(int(value > 127) << bit for bit, value in enumerate(row.tolist()))


class PatternCamera:
    """A camera that does what its URI orders, across all connections to it."""

    def __init__(self, uri: str) -> None:
        """Read the orders.

        Raises:
            CaptureError: They are written otherwise than the module says.
        """
        settings = {"fps": "30", "size": "320x240", "frames": ""}
        self._faults: dict[tuple[str, int], str] = {}
        parts = urlsplit(uri)
        if parts.netloc or parts.path.strip("/"):
            raise CaptureError(
                "test:// has no address: write settings as test://?size=640x480&fps=10"
            )
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name in _FAULTS:
                at, amount = _parse_fault(name, value)
                self._faults[name, at] = amount
            elif name in settings:
                settings[name] = value
            else:
                raise CaptureError(f"test:// knows no {name}: {[*settings, *_FAULTS]}")
        self.fps: float | None = (
            float(_matched(_NUMBER.lstrip("-?"), settings["fps"], "fps")) or None
        )
        self._size_hw = _parse_size(settings["size"])
        frames = settings["frames"]
        self._num_frames = int(_matched(r"\d{1,9}", frames, "frames")) if frames else None
        self._lock = threading.Lock()
        self._number = 0
        self._due_s = time.monotonic()
        self._down_until_s = 0.0
        self._clock_offset_s = 0.0
        self._frozen_picture: tuple[int, int] | None = None  # number shown, first number after
        self._burst_until = 0

    def open(self) -> PatternCamera:
        """Connect.

        Raises:
            CaptureError: A fault says that nobody is there.
        """
        if time.monotonic() < self._down_until_s:
            raise CaptureError("it cannot be opened: out of order, as ordered")
        return self

    def read(self) -> Grab | None:
        """Wait for a frame; see `Reader`."""
        with self._lock:
            if self._num_frames is not None and self._number >= self._num_frames:
                raise EndOfSource
            number = self._number
            self._number += 1 + int(self._order("drop", number) or 0)
            hang_s = float(self._order("hang", number) or 0)
            lost = self._order("none", number)
            if lost is not None:
                self._down_until_s = time.monotonic() + float(lost)
            pause_s = self._pause_s(number)
            picture = self._draw(number)
        time.sleep(hang_s)
        if lost is not None:
            return None
        time.sleep(pause_s)
        return Grab(picture, time.time() + self._clock_offset_s)

    def close(self) -> None:
        """Nothing to release; see `Reader`."""

    def _order(self, fault: str, number: int) -> str | None:
        return self._faults.pop((fault, number), None)

    def _pause_s(self, number: int) -> float:
        period_s = 1 / self.fps if self.fps else 0.0
        if (late := self._order("burst", number)) is not None:
            self._burst_until = number + int(late)
            period_s *= int(late)
        elif number < self._burst_until:
            period_s = 0.0
        now_s = time.monotonic()
        self._due_s = max(now_s, self._due_s + period_s)
        return self._due_s - now_s

    def _draw(self, number: int) -> NDArray[np.uint8]:
        if (count := self._order("frozen", number)) is not None:
            self._frozen_picture = number, number + int(count)
        if (size := self._order("resize", number)) is not None:
            self._size_hw = _parse_size(size)
        self._clock_offset_s += float(self._order("clock", number) or 0)
        if self._frozen_picture is not None:
            shown, after = self._frozen_picture
            number = shown if number < after else number
        return draw_pattern(number, self._size_hw)


def _parse_fault(name: str, value: str) -> tuple[int, str]:
    kind = {"resize": _SIZE, "hang": _NUMBER, "none": _NUMBER, "clock": _NUMBER}.get(
        name, r"\d{1,9}"
    )
    at, _, amount = value.partition(":")
    amount = _matched(kind, amount or ("0" if name == "none" else ""), name)
    if name in {"hang", "none"} and float(amount) < 0:
        raise CaptureError(f"{name}={value} of test:// orders a negative time")
    if name == "resize":
        _parse_size(amount)
    return int(_matched(r"\d{1,9}", at, name)), amount


def _parse_size(text: str) -> tuple[int, int]:
    width, height = map(int, _matched(_SIZE, text, "size").split("x"))
    if not (_BITS * _BLOCK <= width <= 8192 and 2 * _BLOCK <= height <= 8192):
        raise CaptureError(f"size {text} of test://: expected 128x16 to 8192x8192")
    return height, width


def _matched(pattern: str, text: str, name: str) -> str:
    if not re.fullmatch(pattern, text, re.ASCII):
        raise CaptureError(
            f"cannot read {name}={text[:40]} of test://: write for example "
            "test://?fps=20&size=320x240&frames=600&hang=100:3&resize=200:640x480"
        )
    return text
