"""CMake compiles the CUDA kernels where there is an nvcc, and says what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest

from csrc.cuda.emulation.emulated_gpu import CSRC
from tests.csrc.requirements import require_nvcc


@pytest.fixture
def cmake() -> str:
    beside_python = Path(sys.executable).parent
    found = shutil.which("cmake", path=f"{beside_python}{os.pathsep}{os.environ['PATH']}")
    return found or pytest.skip("cmake is not installed: the build with CUDA is not tested")


def configure(
    cmake: str, folder: Path, choice: str, cuda_compiler: str
) -> subprocess.CompletedProcess[str]:
    """Configures with this nvcc, which may not exist."""
    settings = [f"-DCMLR_CUDA={choice}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    python = f"-DPython_EXECUTABLE={sys.executable}"
    return subprocess.run(
        [cmake, "-S", CSRC.parent, "-B", folder, python, *settings],
        env={**os.environ, "CUDACXX": cuda_compiler},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_cuda_library_is_built_for_both_jetsons(cmake: str, tmp_path: Path) -> None:
    done = configure(cmake, tmp_path, "AUTO", require_nvcc())
    assert "CUDA kernels             ON" in done.stdout, done.stderr
    subprocess.run([cmake, "--build", tmp_path, "--target", "cmlr_cuda"], check=True)
    library = next(tmp_path.rglob("libcmlr_cuda.a"))
    symbols = subprocess.run(["nm", "-C", library], capture_output=True, text=True, check=True)
    assert "T cmlr::cuda::attention(cmlr::cuda::AttentionParams const&" in symbols.stdout
    assert all(architecture in library.read_bytes() for architecture in (b"sm_87", b"sm_110"))


@pytest.mark.parametrize(
    ("choice", "state"), [("OFF", "OFF"), ("AUTO", "OFF (no working nvcc found)")]
)
def test_without_nvcc_the_rest_is_built(
    cmake: str, tmp_path: Path, choice: str, state: str
) -> None:
    done = configure(cmake, tmp_path, choice, "/nowhere/nvcc")
    assert done.returncode == 0, done.stderr
    assert f"CUDA kernels             {state}" in done.stdout


def test_cuda_that_was_demanded_but_is_missing_is_an_error(cmake: str, tmp_path: Path) -> None:
    done = configure(cmake, tmp_path, "ON", "/nowhere/nvcc")
    assert done.returncode != 0
    assert "no working nvcc was found" in done.stderr
