"""CMake compiles kernels and plugin where there is what they need, and says what it does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cmlr_edge.errors import EngineError
from cmlr_edge.machine.driver import find_gpu
from csrc.cuda.cubin import find_tool
from tests.csrc.conftest import configure
from tests.csrc.emulation.emulated_gpu import CSRC
from tests.csrc.requirements import require_nvcc

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_the_cuda_library_is_built_for_both_jetsons_for_sm_90_and_as_ptx(
    cuda_build: tuple[Path, str], cuda_library: Path
) -> None:
    said = cuda_build[1]
    assert "CUDA kernels             ON" in said
    assert "TensorRT plugin          ON (headers of TensorRT 10.14" in said
    symbols = subprocess.run(["nm", "-C", cuda_library], capture_output=True, text=True, check=True)
    assert "T cmlr::cuda::attention(cmlr::cuda::AttentionParams const&" in symbols.stdout
    assert "for 87-real, 90-real, 110-real, 80-virtual" in said
    listed = [embedded(cuda_library, kind) for kind in ("elf", "ptx")]
    assert listed == [{"sm_87", "sm_90", "sm_110"}, {"sm_80"}]


def test_what_nvcc_made_of_a_launch_is_on_the_callers_stream(
    cuda_library: Path, tmp_path: Path
) -> None:
    """The emulation sees the launch in the source; this sees nvcc's own."""
    program = tmp_path / "recorder"
    source = Path(__file__).with_name("launch_recorder.cpp")
    flags = ["-std=c++17", f"-I{CSRC / 'include'}"]
    subprocess.run(["g++", *flags, str(source), str(cuda_library), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    launches = [line.split() for line in done.stdout.splitlines()]
    assert len(launches) == 2 * 8 * 2 + 4
    assert {stream for *_, stream in launches} == {"0x5eed"}
    of_attention, of_frames = launches[:32], launches[32:]
    # 33 queries are three blocks of 16, by heads, by batch; a row of 200 pixels two of 128.
    assert {grid for grid, *_ in of_attention} == {"3,2,3", "3,1,3"}
    assert all(0 < int(shared) <= 32 * 1024 for _, _, shared, _ in of_attention)
    assert [launch[:3] for launch in of_frames] == [["2,5,1", "128", "0"]] * 4


def embedded(library: Path, kind: str) -> set[str]:
    """The architectures that a library has machine code or PTX of."""
    tool = find_tool("cuobjdump") or pytest.skip("cuobjdump is not installed")
    command = [tool, f"--list-{kind}", str(library)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\b(sm_\d+)\b", text))


@pytest.fixture(scope="module")
def build_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where CMake looks for compilers once: that is most of its time."""
    return tmp_path_factory.mktemp("build")


CHOICES = ["-UCMLR_*", "-UCMAKE_CUDA_ARCHITECTURES"]  # of the test before


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        (["-DCMAKE_CUDA_ARCHITECTURES=87-real;100-virtual"], "87-real, 100-virtual"),
        (["-DCMLR_CUDA_ARCHITECTURES=90-real"], "90-real"),
        (
            ["-DCMAKE_CUDA_ARCHITECTURES=110", "-DCMLR_CUDA_ARCHITECTURES=80-virtual"],
            "80-virtual",
        ),
    ],
)
def test_whoever_builds_chooses_the_gpus(
    cmake: str, build_folder: Path, settings: list[str], shown: str
) -> None:
    for forgotten in (CHOICES, []):  # the second time, what the first left in the cache is there
        chosen = [*forgotten, "-DCMLR_TENSORRT=OFF", *settings]
        done = configure(cmake, build_folder, require_nvcc(), *chosen)
        assert done.returncode == 0, done.stderr
        assert f" for {shown}; unverified on hardware" in done.stdout
        flags_of_make = build_folder / "csrc/cuda/CMakeFiles/cmlr_cuda.dir/flags.make"
        rules = (build_folder / "build.ninja", flags_of_make)
        text = next(path.read_text() for path in rules if path.is_file())
        flags = set(re.findall(r"arch=compute_(\d+),code=[\[\"]*(sm|compute)_", text))
        assert {number for number, _ in flags} == set(re.findall(r"\d+", shown))


CALL = """
import sys
sys.path.insert(0, sys.argv[1])
import _cuda
sizes = dict(element="float32", batches=(1, 2, 2), queries=3, tokens=4, dim=64, num_heads=2,
             scale=1.0, stream=0, query=4096, key=4096, value=4096, key_bias=0, out=4096)
frame = dict(format="bgr", pixels=4096, chroma=0, size_hw=(4, 6), out=4096, out_hw=(2, 2), stream=0)
for function, usual, changed in (
    (_cuda.attention, sizes, dict(element="int8")),
    (_cuda.attention, sizes, dict(num_heads=3)),
    (_cuda.attention, sizes, dict(batches=(2, 3, 3))),
    (_cuda.attention, sizes, dict(batches=(0, 0, 0))),
    (_cuda.attention, sizes, dict(tokens=2**62)),
    (_cuda.attention, sizes, dict(key_bias=4098)),
    (_cuda.attention, sizes, dict(value=4104)),
    (_cuda.attention, sizes, dict(out=0)),
    (_cuda.resize_frame, frame, dict(format="yuyv")),
    (_cuda.resize_frame, frame, dict(size_hw=(4, 2**62))),
    (_cuda.resize_frame, frame, dict(row_bytes=(17, 0))),
    (_cuda.resize_frame, frame, dict(format="nv12", chroma=4096, row_bytes=(8, 5))),
    (_cuda.resize_frame, frame, dict(mean_std=((0.5,) * 3, (0.2, 0.0, 0.2)))),
    (_cuda.resize_frame, frame, dict(mean_std=((0.5,) * 3, (0.2,) * 3), out=4098)),
):
    try:
        function(**{**usual, **changed})
    except (RuntimeError, ValueError) as error:
        print(error)
    else:
        print("accepted", changed)
# What is right reaches CUDA: a launch fails where there is no GPU. Where there is one, these
# addresses are nobody's, so nothing is launched.
if not sys.argv[2]:
    for function, arguments in ((_cuda.attention, sizes), (_cuda.resize_frame, frame)):
        try:
            function(**arguments)
        except RuntimeError as error:
            print(error)
"""
REFUSED = [
    "element is 'int8', expected float32 or float16",
    "CmlrAttention: 3 heads do not divide dim 64",
    "the batches of query, key and value are 2, 3 and 3, expected 1 or the largest of them",
    "CmlrAttention: batch 0, queries 3, tokens 4 and dim 64 must all be positive",
    f"a size is {2**62}, expected 1 to 2^30",
    "CmlrAttention: key_bias must be aligned to 4 bytes on the device",
    "CmlrAttention: query, key, value and out must be aligned to 16 bytes on the device",
    "CmlrAttention: query, key, value and out must not be null",
    "format is 'yuyv', expected bgr, rgb or nv12",
    f"resize_frame: a side is {2**62}, expected 1 to 16384",
    "resize_frame: a row of 6 pixels does not fit into 17 bytes",
    "resize_frame: NV12 needs even sides and chroma rows of at least the width, got 4 x 6 and 5 bytes",
    "resize_frame: every mean must be finite, and every std finite and above 0",
    "resize_frame: a normalised out must be aligned to 4 bytes on the device",
]


def test_the_python_module_checks_its_arguments_and_reports_what_cuda_says(
    cuda_build: tuple[Path, str],
) -> None:
    folder = next(cuda_build[0].rglob("_cuda*.so")).parent
    command = [sys.executable, "-c", CALL, str(folder), "a GPU" if has_gpu() else ""]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[: len(REFUSED)] == REFUSED
    if not has_gpu():
        launched = ("CmlrAttention", "resize_frame")
        assert [line.partition(":")[0] for line in said[len(REFUSED) :]] == list(launched)
        assert all(": the launch failed: " in line for line in said[len(REFUSED) :])


def has_gpu() -> bool:
    try:
        find_gpu()
    except EngineError:
        return False
    return True


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


def test_the_headers_of_tensorrt_8_are_refused_by_name(
    cmake: str, build_folder: Path, tmp_path: Path
) -> None:
    headers = tmp_path / "headers"
    headers.mkdir()
    (headers / "NvInferRuntime.h").touch()
    lines = ["#define NV_TENSORRT_MAJOR 8", "#define NV_TENSORRT_MINOR 6"]
    (headers / "NvInferVersion.h").write_text("\n".join(lines))
    where = f"-DCMLR_TENSORRT_INCLUDE_DIR={headers}"
    done = configure(cmake, build_folder, require_nvcc(), *CHOICES, where)
    assert done.returncode != 0
    assert "TensorRT 8.6" in done.stderr
