"""The CUDA kernels' emulation, compiled for aarch64: kernels against NumPy in float64, on that machine's arithmetic."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.csrc.attention_reference import draw, reference
from tests.csrc.emulation.emulated_gpu import COMPILE, CSRC, EMULATION, RUNNER_SOURCE, EmulatedGpu

_COMPILER = "aarch64-linux-gnu-g++"
_CHECK = CSRC.parent / "tests/csrc/emulation_check.cpp"
_CHECKS = ("mma", "ldmatrix", "half", "shared_memory_is_nan", "copy")
_TOLERANCE = {"float32": 2e-5, "float16": 2e-3}
_SHAPES = ((1, 1, 1, 64), (2, 17, 33, 64), (1, 80, 196, 64), (1, 17, 49, 128))  # the last is D


def run_checks(folder: Path) -> dict[str, Any] | str:
    """Compile and run; needs a kernel that hands aarch64 programs to qemu.

    Returns:
        JSON-ready, or why nothing was done.
    """
    if shutil.which(_COMPILER) is None:
        return f"skipped: no {_COMPILER} (apt install g++-aarch64-linux-gnu)"
    folder.mkdir(parents=True, exist_ok=True)
    sources = [*EMULATION.glob("*.cpp"), *(EMULATION / "ptx").glob("*.cpp")]
    emulation = [_compile(source, folder) for source in sources]
    check = _link(folder / "check", [*emulation, _compile(_CHECK, folder)])
    for name in _CHECKS:
        subprocess.run([check, name], check=True)
    kernels = [_compile(source, folder) for source in (CSRC / "cuda/attention.cu", RUNNER_SOURCE)]
    gpu = EmulatedGpu(_link(folder / "runner", [*emulation, *kernels]))
    differences = {
        dtype: max(_difference(gpu, dtype, shape) for shape in _SHAPES) for dtype in _TOLERANCE
    }
    return {
        "checks_passed": list(_CHECKS),
        "attention_cases": len(_SHAPES) * len(_TOLERANCE),
        "max_difference_from_float64": differences,
    }


def _difference(gpu: EmulatedGpu, dtype: str, shape: tuple[int, int, int, int]) -> float:
    batch, queries, tokens, dim = shape
    sizes = enumerate((queries, tokens, tokens))
    tensors: list[NDArray[Any]] = [
        draw(batch, rows, dim, seed=seed).astype(dtype) for seed, rows in sizes
    ]
    bias = draw(tokens, seed=9)
    found = gpu.attention(*tensors, heads=2, scale=0.2, bias=bias)
    wanted = reference(tensors[0], tensors[1], tensors[2], 2, 0.2, bias)
    tolerance = _TOLERANCE[dtype]
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    return float(np.abs(found - wanted).max())


def _compile(source: Path, folder: Path) -> Path:
    output = folder / f"{source.stem}.o"
    flags = [
        *COMPILE[1:],
        "-O1",
        "-x",
        "c++",
        f"-I{CSRC}",
        f"-I{CSRC / 'include'}",
        f"-I{EMULATION.parent}",
    ]
    subprocess.run([_COMPILER, *flags, "-c", str(source), "-o", str(output)], check=True)
    return output


def _link(program: Path, objects: Sequence[Path]) -> Path:
    command = [_COMPILER, "-static", *map(str, objects), "-o", str(program)]
    # glibc says that dlsym in a static program needs the same glibc; none is called here.
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return program
