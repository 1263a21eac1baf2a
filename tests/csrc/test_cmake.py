"""CMake compiles kernels and plugin where there is what they need, and says what it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.csrc.conftest import configure
from tests.csrc.requirements import require_nvcc

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_cuda_library_is_built_for_both_jetsons(cuda_build: tuple[Path, str]) -> None:
    folder, said = cuda_build
    assert "CUDA kernels             ON" in said
    assert "TensorRT plugin          ON (headers of TensorRT 10.14" in said
    library = next(folder.rglob("libcmlr_cuda.a"))
    symbols = subprocess.run(["nm", "-C", library], capture_output=True, text=True, check=True)
    assert "T cmlr::cuda::attention(cmlr::cuda::AttentionParams const&" in symbols.stdout
    assert all(architecture in library.read_bytes() for architecture in (b"sm_87", b"sm_110"))


CALL = """
import sys
sys.path.insert(0, sys.argv[1])
import _cuda
sizes = dict(batches=(1, 2, 2), queries=3, tokens=4, dim=64, scale=1.0, stream=0)
addresses = dict(query=4096, key=4096, value=4096, key_bias=0, out=4096)
for arguments in (dict(element="int8", num_heads=2), dict(element="float16", num_heads=3),
                  dict(element="float32", num_heads=2)):
    try:
        _cuda.attention(**arguments, **addresses, **sizes)
    except (RuntimeError, ValueError) as error:
        print(error)
"""


def test_the_python_module_checks_its_arguments_and_reports_what_cuda_says(
    cuda_build: tuple[Path, str],
) -> None:
    folder = next(cuda_build[0].rglob("_cuda*.so")).parent
    command = [sys.executable, "-c", CALL, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[0] == "element is 'int8', expected float32 or float16"
    assert said[1] == "CmlrAttention: 3 heads do not divide dim 64"
    assert said[2].startswith("CmlrAttention: the launch failed: ")


@pytest.mark.parametrize(
    ("choice", "state"), [("OFF", "OFF"), ("AUTO", "OFF (no working nvcc found)")]
)
def test_without_nvcc_the_rest_is_built(
    cmake: str, tmp_path: Path, choice: str, state: str
) -> None:
    done = configure(cmake, tmp_path, "/nowhere/nvcc", f"-DCMLR_CUDA={choice}")
    assert done.returncode == 0, done.stderr
    assert f"CUDA kernels             {state}" in done.stdout
    assert "TensorRT plugin          OFF (the CUDA kernels are OFF)" in done.stdout


def test_cuda_that_was_demanded_but_is_missing_is_an_error(cmake: str, tmp_path: Path) -> None:
    done = configure(cmake, tmp_path, "/nowhere/nvcc", "-DCMLR_CUDA=ON")
    assert done.returncode != 0
    assert "no working nvcc was found" in done.stderr


def test_a_plugin_that_was_demanded_without_kernels_is_an_error(cmake: str, tmp_path: Path) -> None:
    done = configure(cmake, tmp_path, "/nowhere/nvcc", "-DCMLR_TENSORRT=ON")
    assert done.returncode != 0
    assert "CMLR_TENSORRT=ON, but the CUDA kernels are OFF" in done.stderr


def test_the_headers_of_tensorrt_8_are_refused_by_name(cmake: str, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "NvInferRuntime.h").touch()
    lines = ["#define NV_TENSORRT_MAJOR 8", "#define NV_TENSORRT_MINOR 6"]
    (headers / "NvInferVersion.h").write_text("\n".join(lines))
    where = f"-DCMLR_TENSORRT_INCLUDE_DIR={headers}"
    done = configure(cmake, tmp_path / "build", require_nvcc(), where)
    assert done.returncode != 0
    assert "TensorRT 8.6" in done.stderr
