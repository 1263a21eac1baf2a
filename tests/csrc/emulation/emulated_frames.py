"""Runs the frame kernel on the emulated GPU, one process a case; see emulated_gpu.py."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tests.csrc.emulation.emulated_gpu import CSRC, EMULATION, Build, build_emulation, build_program

Format = Literal["bgr", "rgb", "nv12"]
_FORMATS: tuple[Format, ...] = ("bgr", "rgb", "nv12")


def build_frame_runner(folder: Path, kind: Build, csrc: Path = CSRC) -> EmulatedFrames:
    """The kernel of `csrc`, compiled for the host."""
    emulation = build_emulation(folder / "emulation", kind)
    sources = (csrc / "cuda" / "frame.cu", EMULATION / "programs" / "frame_runner.cpp")
    program = folder / "frame_runner"
    return EmulatedFrames(
        build_program(program, emulation, *sources, kind=kind, csrc=csrc, warnings=csrc == CSRC)
    )


@dataclass(frozen=True)
class EmulatedFrames:
    """A runner program, which runs one case at a time."""

    program: Path

    def resize(
        self,
        planes: Sequence[NDArray[np.uint8]],
        kind: Format,
        size_hw: tuple[int, int],
        *,
        padding: tuple[int, int] = (0, 0),
        mean_std: tuple[Sequence[float], Sequence[float]] | None = None,
        misaligned: bool = False,
    ) -> NDArray[Any]:
        """One plane (H, W, 3), or NV12's two, luma (H, W) and chroma (H / 2, W).

        `padding` bytes follow each row but the last, of each plane. Gives uint8 (*size_hw, 3), or with `mean_std`
        float32 (3, *size_hw). Raises subprocess.CalledProcessError with the message in `stderr`.
        """
        height, width = planes[0].shape[:2]
        row = planes[0].strides[0] + padding[0]
        mean, std = mean_std or ((0.0,) * 3, (1.0,) * 3)
        sizes = (height, width, row, width + padding[1], *size_hw, mean_std is not None)
        header = struct.pack("8q6d", _FORMATS.index(kind), *sizes, *mean, *std)
        data = b"".join(map(_with_padding, planes, padding))
        command = [str(self.program), *(["misaligned"] if misaligned else [])]
        done = subprocess.run(command, input=header + data, capture_output=True, check=True)
        if mean_std is not None:
            return np.frombuffer(done.stdout, np.float32).reshape(3, *size_hw)
        return np.frombuffer(done.stdout, np.uint8).reshape(*size_hw, 3)


def _with_padding(plane: NDArray[np.uint8], padding: int) -> bytes:
    rows = [row.tobytes() for row in plane]
    return (b"\x55" * padding).join(rows)
