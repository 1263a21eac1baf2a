"""Video files as cameras and recorders make them, written by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

TICKS = 1000  # of a time in these films, per second


def shade(value: int, size_hw: tuple[int, int] = (96, 128)) -> NDArray[np.uint8]:
    """A grey picture."""
    return np.full((*size_hw, 3), value, np.uint8)


def write_film(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 10,
    times_s: Sequence[float] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    audio_s: float = 0.0,
    interlaced: bool = False,
    ticks: int = TICKS,
) -> Path:
    """Encode BGR pictures (H, W, 3), shown at `times_s`, in ticks of a second, or 1 / fps apart; a tone beside them."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if times_s is not None:
            stream.codec_context.time_base = Fraction(1, ticks)
        if interlaced:
            flags = av.codec.context.Flags
            stream.codec_context.flags |= int(flags.interlaced_dct) | int(flags.interlaced_me)
        tone: Any = container.add_stream("aac", rate=8000, layout="mono") if audio_s else None
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts = index if times_s is None else round(times_s[index] * ticks)
            frame.time_base = Fraction(1, fps) if times_s is None else Fraction(1, ticks)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            _write_tone(container, tone, audio_s)
    return path


def _write_tone(container: Any, tone: Any, seconds: float) -> None:
    for start in range(0, round(seconds * 8000), 1024):
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        container.mux(tone.encode(frame))
    container.mux(tone.encode(None))


def packets(path: Path) -> list[tuple[int, int]]:
    """Position and size in the file of every packet of the video."""
    with av.open(str(path)) as container:
        return [
            (packet.pos, packet.size)
            for packet in container.demux(video=0)
            if packet.size and packet.pos is not None
        ]


def turn(path: Path, matrix: tuple[float, float, float, float] = (0, -1, 1, 0)) -> None:
    """Let players show an MP4 turned left by 90 degrees, as a phone writes it, or as (x, y) times a matrix says."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows
    one = 1 << 16
    a, b, c, d = (round(one * number) for number in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    path.write_bytes(content)
