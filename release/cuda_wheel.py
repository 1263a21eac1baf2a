"""The wheel with CUDA kernels and TensorRT plugin for JetPack 7, compiled on x86-64: `make cuda-wheel`.

nvcc compiles for any architecture; only the CUDA runtime that is linked in has to be that of aarch64, which
NVIDIA has as a wheel. JetPack 6 has an older CUDA than an nvcc that knows Thor: build on the board there, as
docs/tensorrt.md says.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from csrc.tensorrt import packages
from release.interpreters import find_interpreters
from release.programs import output_of
from release.wheelhouse import fetch
from release.wheels import (
    build_sdist,
    check_content,
    cross_compile,
    describe,
    kept_records,
    source_state,
    write_results,
)

_PYTHON, _GLIBC = "3.12", "2.39"  # of JetPack 7
_COMPILER = "aarch64-linux-gnu-g++"
_PARTS = (f"_cuda.cpython-{_PYTHON.replace('.', '')}-aarch64-linux-gnu.so", "libcmlr_plugin.so")


def main() -> int:
    """Build into --out and describe it in --results; 0 also where tools are missing, said loudly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dist/cuda13"))
    parser.add_argument("--work", type=Path, default=Path("build/cuda-aarch64"))
    parser.add_argument("--results", type=Path, help="JSON, and Markdown beside it")
    args = parser.parse_args()
    if missing := missing_tools():
        print(f"\n*** SKIPPED: the wheel with CUDA needs {missing} ***\n", file=sys.stderr)  # noqa: T201
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    source, sdist, built = source_state(), build_sdist(args.out), args.out / "wheels.json"
    source, records = kept_records(sdist, built) or (source, [])
    records = records or [build(sdist, args.work, args.out)]
    for path in (built, *([args.results] if args.results else [])):
        write_results(source, sdist, records, path)
    return 0


def build(sdist: Path, work: Path, out: Path) -> dict[str, Any]:
    """Compile, check and describe the wheel."""
    start_s = time.perf_counter()
    nvcc = cross_toolkit(work)
    options = {
        "CMLR_CUDA": "ON",
        "CMLR_TENSORRT": "ON",
        "CMLR_TENSORRT_INCLUDE_DIR": str(packages.find("headers")),
        "CMAKE_CUDA_COMPILER": str(nvcc),
        "CMAKE_CUDA_HOST_COMPILER": _COMPILER,
        "CMAKE_MODULE_LINKER_FLAGS": "-static-libstdc++",  # the board's may be older than ours
    }
    interpreter = find_interpreters([_PYTHON])[_PYTHON]
    wheel = cross_compile(sdist, interpreter, "aarch64", _COMPILER, options, out)
    record = {"made_for": [_PYTHON, "aarch64"], **describe(wheel)}
    record["nvcc"] = output_of([str(nvcc), "--version"]).splitlines()[-2]
    record["build_s"] = round(time.perf_counter() - start_s, 1)
    check_content(wheel, record["files"], _GLIBC)
    if lacking := [name for name in _PARTS if f"cmlr_edge/{name}" not in record["files"]]:
        raise SystemExit(f"{wheel} lacks {lacking}")
    print(f"{wheel}: {record['bytes'] / 1e6:.1f} MB, {record['build_s']} s")  # noqa: T201
    return record


def missing_tools() -> str:
    """What is lacking here, for people; empty if nothing is."""
    if shutil.which(_COMPILER) is None:
        return f"{_COMPILER} (apt install g++-aarch64-linux-gnu)"
    if shutil.which("nvcc") is None or not _runtime_version():
        return "nvcc of CUDA 13 with its headers on PATH"
    return (
        "" if packages.find("headers") else "TensorRT's headers (python -m csrc.tensorrt.packages)"
    )


def cross_toolkit(folder: Path) -> Path:
    """Make a CUDA toolkit for aarch64 out of this machine's and NVIDIA's wheel of the runtime.

    Returns:
        Its nvcc, which looks for all else beside itself.
    """
    shutil.rmtree(folder, ignore_errors=True)
    installed = _toolkit()
    target = folder / "targets" / "sbsa-linux"  # where nvcc looks when it compiles for an Arm host
    for part in (folder / "bin", target):
        part.mkdir(parents=True)
    for program in (installed / "bin").iterdir():
        (folder / "bin" / program.name).symlink_to(program)
    for name in ("nvcc", "nvcc.profile"):  # it takes its own place from where its file really is
        (folder / "bin" / name).unlink()
        shutil.copy(installed / "bin" / name, folder / "bin")
    (folder / "nvvm").symlink_to(installed / "nvvm")
    (target / "include").symlink_to(installed / "include")
    fetch(folder, _PYTHON, "aarch64", ["--no-deps", f"nvidia-cuda-runtime=={_runtime_version()}.*"])
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "runtime")
    [runtime] = (folder / "runtime/nvidia").glob("cu*/lib")
    (target / "lib").symlink_to(runtime.absolute())
    return (folder / "bin/nvcc").absolute()


def _toolkit() -> Path:
    """The folder of the installed CUDA toolkit, as nvcc itself names it."""
    command = ["nvcc", "--dryrun", "-x", "cu", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    [programs] = {line.split("_HERE_=")[1] for line in said.splitlines() if " _HERE_=" in line}
    return Path(programs).parent


def _runtime_version() -> str:
    """CUDA's version, 13.N; empty where it is another or the headers are missing."""
    header = _toolkit() / "include" / "cuda_runtime_api.h"
    if not header.is_file():
        return ""
    text = header.read_text(errors="replace")
    number = int(text.partition("#define CUDART_VERSION")[2].split()[0])
    return f"{number // 1000}.{number % 1000 // 10}" if number // 1000 == 13 else ""


if __name__ == "__main__":
    sys.exit(main())
