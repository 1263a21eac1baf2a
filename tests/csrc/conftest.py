"""The build with CUDA and TensorRT, once for all tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

from tests.csrc.emulation.emulated_gpu import CSRC
from tests.csrc.emulation.stored_objects import version_of
from tests.csrc.requirements import require_nvcc, require_tensorrt


@pytest.fixture(scope="session")
def cmake() -> str:
    beside_python = Path(sys.executable).parent
    found = shutil.which("cmake", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.skip("cmake is not installed: the build with CUDA is not tested")


def configure(
    cmake: str, folder: Path, cuda_compiler: str, *settings: str
) -> subprocess.CompletedProcess[str]:
    """Configures with this nvcc, which may not exist."""
    pybind = f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"
    python = f"-DPython_EXECUTABLE={sys.executable}"
    return subprocess.run(
        [cmake, "-S", CSRC.parent, "-B", folder, python, pybind, *settings],
        env={**os.environ, "CUDACXX": cuda_compiler},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def cuda_build(cmake: str) -> tuple[Path, str]:
    """A folder with the CUDA library and the plugin, and what configuring it said.

    One folder for all runs and workers with the same tools, so that CMake compiles what changed.
    """
    nvcc, headers = require_nvcc(), require_tensorrt("headers")
    tools = "\n".join([nvcc, version_of(nvcc), version_of(cmake), sys.executable, str(headers)])
    name = hashlib.sha256(tools.encode()).hexdigest()[:12]
    folder = CSRC.parent / "build" / "cuda-for-tests" / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = [f"-DCMLR_TENSORRT_INCLUDE_DIR={headers}", "-DCMLR_WARNINGS_AS_ERRORS=ON"]
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = configure(cmake, folder, nvcc, "-DCMLR_TENSORRT=ON", *settings)
        assert done.returncode == 0, done.stderr
        subprocess.run([cmake, "--build", folder, "--target", "cmlr_plugin", "_cuda"], check=True)
    return folder, done.stdout


@pytest.fixture(scope="session")
def cuda_library(cuda_build: tuple[Path, str]) -> Path:
    return next(cuda_build[0].rglob("libcmlr_cuda.a"))


@pytest.fixture(scope="session")
def plugin_library(cuda_build: tuple[Path, str]) -> Path:
    return next(cuda_build[0].rglob("libcmlr_plugin.so"))
