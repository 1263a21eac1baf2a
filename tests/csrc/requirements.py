"""What the tests of the CUDA kernels need beyond g++; without it they are skipped, saying why."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from csrc.cuda import cubin
from csrc.tensorrt import packages
from tests.csrc.emulation.emulated_gpu import FLAGS, Build


def require_sanitizer(folder: Path, sanitizer: Build) -> None:
    """Skips the test, saying why, where g++ cannot build or run programs under the sanitizer."""
    source = folder / "empty.cpp"
    source.write_text("int main() { return 0; }\n")
    program = folder / "empty"
    build = ["g++", *FLAGS[sanitizer][0], str(source), "-o", str(program)]
    for command in (build, [str(program)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"the {sanitizer} sanitizer does not work here: {done.stderr.strip()}")


def require_nvcc() -> str:
    """Skips the test, saying why, where there is no CUDA compiler."""
    nvcc = shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin")
    return nvcc or pytest.skip("nvcc is not installed: what it makes of the kernels is not tested")


def require_tensorrt(name: str) -> Path:
    """Skips the test, saying why, without one of NVIDIA's packages."""
    missing = "is not there: run `python -m csrc.tensorrt.packages`"
    return packages.find(name) or pytest.skip(f"{packages.PACKAGES[name].split()[0]} {missing}")


def require_cuda_headers() -> Path:
    """Skips the test, saying why, without CUDA's headers, which TensorRT's include."""
    folders = [Path("/usr/local/cuda/include"), cubin.PACKAGES / "cu13" / "include"]
    found = [folder for folder in folders if (folder / "cuda_runtime_api.h").is_file()]
    return found[0] if found else pytest.skip("CUDA's headers are not installed")
