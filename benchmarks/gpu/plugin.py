"""The TensorRT plugin on a real GPU, without TensorRT: its headers are enough."""

from __future__ import annotations

import math
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.gpu.attention import TOLERANCE, Case, draw, formula
from benchmarks.gpu.build import headers, run
from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from cmlr_edge.errors import EngineError
from csrc.cuda.cubin import find_tool

SOURCE = Path(__file__).with_name("plugin_on_gpu.cpp")
_SCALE = 0.2  # plugin_on_gpu.cpp's


def check(report: Report, place: Place) -> None:
    """On a stream, and in a capture."""
    library, found, nvcc = place.extensions / "libcmlr_plugin.so", headers(), find_tool("nvcc")
    if found is None or not library.is_file():
        raise Skipped(
            "no headers of TensorRT: set CMLR_TENSORRT_INCLUDE_DIR, or run "
            "`python -m csrc.tensorrt.packages`"
        )
    if nvcc is None:
        raise Skipped("nvcc is not installed")
    program = place.folder / "plugin_on_gpu"
    run([nvcc, "-std=c++17", "-O1", "-w", f"-I{found}", str(SOURCE), "-ldl", "-o", str(program)])
    for element in ("float32", "float16"):
        case = Case(element, 1, 80, 196, 256, 8)
        work = partial(compare, program, library, case)
        report.check(f"{element}: on a stream and in a capture", work)


def compare(program: Path, library: Path, case: Case) -> str:
    """Hold both outputs against the formula, and against each other.

    Raises:
        EngineError: They differ.
    """
    arrays = draw(case)
    sizes = (case.queries, case.tokens, case.dim, case.num_heads, int(case.element == "float16"))
    done = subprocess.run(
        [str(program), str(library), *map(str, sizes)],
        input=b"".join(array.tobytes() for array in arrays.values()),
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise EngineError(done.stderr.decode(errors="replace").strip() or f"{done.returncode}")
    outs = np.frombuffer(done.stdout, case.element).reshape(2, case.queries, case.dim)
    # The formula scales by the root of the width.
    usual = _SCALE * math.sqrt(case.dim / case.num_heads)
    wide = {**arrays, "query": arrays["query"].astype(np.float64) * usual}
    found = float(np.abs(outs - formula(replace(case, batch=1), wide)).max())
    if not found <= TOLERANCE[case.element] or outs[0].tobytes() != outs[1].tobytes():
        raise EngineError(f"differs by {found:.2g}, or the capture from the stream")
    return f"differs by {found:.2g}, the capture in no bit from the stream"
