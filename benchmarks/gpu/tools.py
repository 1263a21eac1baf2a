"""NVIDIA's own tools over a few launches: compute-sanitizer, and the counters of Nsight Compute."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place, use_extensions
from cmlr_edge.errors import EngineError

ROOT = Path(__file__).parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_FAULT = 9  # exit code that the sanitizer is asked for
# Nsight Compute's name, and that of the same count in csrc/cuda/kernels.json.
METRICS = {
    "smsp__inst_executed.sum": "warp_instructions",
    "sm__inst_executed_pipe_tensor.sum": "mma",
    "sm__inst_executed_pipe_tensor_op_hmma.sum": "mma",  # its name on Hopper
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum": "wavefronts",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum": "excess_wavefronts",
}
# What the tools say where they cannot work, whatever they look at: in some virtual machines.
_CANNOT_WORK = re.compile(
    r"(ERR_NVGPUCTRPERM|Device not supported|Failed to initialize the profiler|"
    r"Profiling is not supported on)[^\n]*"
)


def find(name: str) -> str:
    """A tool of the CUDA toolkit.

    Raises:
        Skipped: It is not installed.
    """
    versions = sorted(Path("/opt/nvidia/nsight-compute").glob("*"), reverse=True)
    folders = [os.environ["PATH"], "/usr/local/cuda/bin", *map(str, versions)]
    tool = shutil.which(name, path=os.pathsep.join(folders))
    if tool is None:
        raise Skipped(f"{name} is not installed")
    return tool


def few_launches(extensions: str) -> None:
    """Every kernel once, and the frame kernel: what the sanitizer watches. Needs no OpenCV."""
    use_extensions(Path(extensions))
    from benchmarks.gpu import attention, frames
    from benchmarks.gpu.device import import_cuda

    cuda = import_cuda()
    for element in ("float32", "float16"):
        for tokens in (9, 40, 49, 70, 100, 150, 200, 300):
            for width in (32, 64):
                attention.compare(
                    cuda, attention.Case(element, 1, 17, tokens, width, 1, special="bias")
                )
    for kind in ("bgr", "nv12"):
        for size_hw in ((32, 32), (90, 100)):
            frames.launch_few(cuda, kind, (60, 80), size_hw)


def counted_launches(extensions: str) -> None:
    """Those that csrc/cuda/kernels.json counts, in its order."""
    use_extensions(Path(extensions))
    from benchmarks.gpu import attention
    from benchmarks.gpu.device import import_cuda

    cuda = import_cuda()
    for row in executed():
        element, width = kind_of(row)
        attention.compare(cuda, attention.Case(element, 1, 80, row["tokens"], 2 * width, 2))


def executed() -> list[dict[str, Any]]:
    """The launches that were counted on the emulated GPU."""
    rows: list[dict[str, Any]] = json.loads((ROOT / "csrc/cuda/kernels.json").read_text())[
        "executed"
    ]
    return rows


def kind_of(row: dict[str, Any]) -> tuple[str, int]:
    """Element and head width."""
    name, _, arguments = row["kernel"].partition("<")
    return "float16" if "f16" in name else "float32", int(arguments.split(",")[0])


def _python(place: Place, function: str) -> list[str]:
    call = f"from benchmarks.gpu import tools; tools.{function}({str(place.extensions)!r})"
    return [sys.executable, "-c", call]


def sanitize(report: Report, place: Place) -> None:
    """One run a tool, all at once: each is slow on its own, and none measures time."""
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        runs = {tool: pool.submit(_sanitized, tool, place) for tool in TOOLS}
        for tool, run in runs.items():
            report.check(tool, run.result)


def _sanitized(tool: str, place: Place) -> str:
    # cuda-python asks the driver for what that may not have; our own calls are all looked at anyway.
    api = ["--report-api-errors", "no"] if tool == "memcheck" else []
    command = [find("compute-sanitizer"), "--tool", tool, *api, "--error-exitcode", str(_FAULT),
               "--print-limit", "5", *_python(place, "few_launches")]  # fmt: skip
    code, said = _watched(command)
    words = [line for line in said.splitlines() if "SUMMARY" in line]
    if code != 0:
        raise EngineError(f"ended with {code}: {' '.join(said.split())[-500:]}")
    if not words:
        raise EngineError(f"looked at nothing: {' '.join(said.split())[-500:]}")
    return " ".join(words)


def _watched(command: list[str]) -> tuple[int, str]:
    """Exit code of a tool, and all it says.

    Raises:
        Skipped: It says that it cannot work here.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if (cannot := _CANNOT_WORK.search(said)) is not None:
        raise Skipped(f"{Path(command[0]).name} cannot work here: {cannot[0].strip()}")
    return done.returncode, said


def count(report: Report, place: Place) -> None:
    """Counters of each launch, beside the emulated GPU's counts."""
    rows = executed()
    for metrics in ([*METRICS], [*METRICS][:1]):  # where a GPU has not all of them, the first alone
        command = [find("ncu"), "--csv", "--print-units", "base", "--clock-control", "none",
                   "--kernel-name", "regex:attention_f", "--metrics", ",".join(metrics),
                   *_python(place, "counted_launches")]  # fmt: skip
        code, said = _watched(command)
        launches = _launches(said)
        if code == 0 and len(launches) == len(rows):
            break
    else:
        words = " ".join(said.split())[-500:]
        raise EngineError(f"{len(launches)} of {len(rows)} launches, ended with {code}: {words}")
    for row, found in zip(rows, launches, strict=True):
        pairs = [f"{METRICS[name]} {counted:.0f} (emulated {row.get(METRICS[name])})"
                 for name, counted in found.items()]  # fmt: skip
        report.add(f"{row['kernel']}, {row['tokens']} keys", "measured", "; ".join(pairs), **found)


def _launches(text: str) -> list[dict[str, float]]:
    """Metric -> value of each launch, from the tool's table; a GPU may lack a metric ("n/a")."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    found: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(lines):
        if row.get("Metric Name") in METRICS:
            metrics = found.setdefault(row["ID"], {})
            with suppress(ValueError):
                metrics[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return list(found.values())
