"""Compiles the kernels for this GPU, and once more as PTX that the driver has to compile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.report import Report, Skipped
from benchmarks.gpu.stage import Place
from cmlr_edge.errors import EngineError
from csrc.cuda.cubin import find_tool
from csrc.tensorrt import packages

ROOT = Path(__file__).parents[2]
PTX = "80-virtual"
# One launch of either kernel family, run by a process that has only PTX to choose from.
JIT = """
import sys
import cmlr_edge
cmlr_edge.__path__.insert(0, sys.argv[1])
from benchmarks.gpu import attention
from benchmarks.gpu.device import import_cuda
for element in ("float32", "float16"):
    print(attention.compare(import_cuda(), attention.Case(element, 2, 17, 300, 64, 2)))
"""


def build(report: Report, place: Place) -> None:
    """`_native`, `_cuda` and, with TensorRT's headers, the plugin; and apart, PTX."""
    if shutil.which("cmake") is None:
        raise Skipped("cmake is not installed: the installation's modules are used")
    here = place.gpu.compute_capability.replace(".", "") + "-real"
    apart = place.folder / "extensions-ptx"
    with ThreadPoolExecutor(2) as pool:  # most of the time one file is compiled, on one core
        done = {
            here: pool.submit(_compile, place.folder / "build", place.extensions, here),
            PTX: pool.submit(_compile, place.folder / "build-ptx", apart, PTX),
        }
    for architecture, compiled in done.items():
        report.check(f"compiled for {architecture}", compiled.result)
    report.check("PTX compiled by the driver computes the formula", lambda: _run_ptx(apart))


def headers() -> Path | None:
    """Of TensorRT: fetched for the tests, carried along, or the system's."""
    given = os.environ.get("CMLR_TENSORRT_INCLUDE_DIR")
    system = Path("/usr/include/aarch64-linux-gnu")
    candidates = [Path(given) if given else None, packages.find("headers"), system]
    return next((p for p in candidates if p and (p / "NvInferRuntime.h").is_file()), None)


def _compile(folder: Path, extensions: Path, architecture: str) -> str:
    import pybind11

    started, found = time.perf_counter(), headers()
    settings = [f"-DCMLR_CUDA_ARCHITECTURES={architecture}", "-DCMLR_CUDA=ON",
                f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}",
                f"-DCMLR_TENSORRT={'ON' if found else 'OFF'}"]  # fmt: skip
    if found:
        settings.append(f"-DCMLR_TENSORRT_INCLUDE_DIR={found}")
    targets = ["_native", "_cuda", *(["cmlr_plugin"] if found else [])]
    # Where nvcc is not on the path, as in many images, CMake would find none.
    compiler = os.environ.get("CUDACXX") or find_tool("nvcc") or ""
    run(["cmake", "-S", str(ROOT), "-B", str(folder), *settings], CUDACXX=compiler)
    run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count()), "--target", *targets])
    extensions.mkdir(exist_ok=True)
    for pattern in ("_native*.so", "_cuda*.so", "libcmlr_plugin.so"):
        for library in folder.rglob(pattern):
            shutil.copy2(library, extensions / library.name)
    plugin = "with the plugin" if found else "without the plugin: no headers of TensorRT"
    return f"in {time.perf_counter() - started:.0f} s, {plugin}"


def _run_ptx(extensions: Path) -> str:
    return run([sys.executable, "-c", JIT, str(extensions)]).replace("\n", "; ").strip("; ")


def run(command: list[str], *, errors: bool = False, **environment: str) -> str:
    """What a command prints; with what it prints as errors behind it.

    Raises:
        EngineError: It failed; its last words are in the message.
    """
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        words = " ".join((done.stdout + done.stderr).split())[-600:]
        raise EngineError(f"{Path(command[0]).name} ended with {done.returncode}: {words}")
    return done.stdout + done.stderr * errors
