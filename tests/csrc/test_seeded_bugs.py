"""The checks that watch over the CUDA kernels: silent on the kernels, loud on mistakes in them."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.csrc.attention_reference import draw, reference
from tests.csrc.emulation.emulated_frames import EmulatedFrames, build_frame_runner
from tests.csrc.emulation.emulated_gpu import (
    CSRC,
    FLAGS,
    LANDING,
    RANDOM,
    RUNNER_SOURCE,
    SCHEDULES,
    Build,
    EmulatedGpu,
    build_emulation,
    build_program,
    build_ptx_runner,
    build_runner,
    compile_object,
    link,
)
from tests.csrc.frame_reference import draw_frame, nv12_of, resized
from tests.csrc.plugin_programs import CHECKS, compile_adapter
from tests.csrc.requirements import require_nvcc, require_sanitizer
from tests.csrc.seeded_bugs import (
    BLOCK,
    BUGS,
    F16,
    F32,
    FRAME,
    FRAME_LAUNCHER,
    HOST_LOG,
    LAUNCHER,
    MACHINE_CODE_BUGS,
    PLUGIN,
    launcher_of,
)

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}
# (tokens, width, schedules): a few launches that reach every kernel's corners.
LAUNCHES = {
    np.float16: [
        *((33, 32, 5), (310, 64, 5), (150, 64, 1), (310, 32, 2), (20, 64, 1), (70, 32, 1)),
        *((97, 32, 1), (129, 32, 1), (257, 32, 1), (9, 32, 1)),
    ],
    np.float32: [(33, 64, 5), (310, 32, 5), (150, 32, 1), (310, 64, 2), (257, 32, 1)],
}
# (frame, result): smaller, larger, and larger where the last bit decides which pixels.
FRAMES = [
    *[((22, 38), (7, 5)), ((22, 38), (33, 47)), ((14, 20), (50, 52)), ((22, 38), (33, 20))],
    *[
        ((22, 38), (11, 19)),
        ((24, 36), (8, 6)),
        ((98, 142), (33, 47)),
        ((24, 38), (8, 11)),
    ],  # by whole numbers, and not
]
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Objects = Callable[[Build], list[Path]]


@pytest.fixture(scope="module")
def unchanged_objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """All of the runner but the kernels."""

    @functools.cache
    def build(kind: Build) -> list[Path]:
        folder = tmp_path_factory.mktemp(kind)
        require_sanitizer(folder, kind)
        runner = folder / "runner.o"
        compile_object(RUNNER_SOURCE, runner, *FLAGS[kind][0])
        return [*build_emulation(folder / "emulation", kind), runner]

    return build


def build(folder: Path, objects: list[Path], kind: Build, csrc: Path) -> EmulatedGpu:
    kernels = csrc / "cuda" / "attention.cu"
    program = folder / "runner"
    return EmulatedGpu(
        build_program(program, objects, kernels, kind=kind, csrc=csrc, warnings=csrc == CSRC)
    )


def first_fault(
    gpu: EmulatedGpu, dtypes: list[Any], schedules: tuple[tuple[str, ...], ...] = SCHEDULES
) -> str:
    """What is wrong first; "" if nothing is."""
    for dtype in dtypes:
        for tokens, width, most_schedules in LAUNCHES[dtype]:
            for schedule in schedules[:most_schedules]:
                if fault := fault_of_case(gpu, dtype, tokens, width, schedule):
                    return fault
        if fault := fault_where_all_is_masked(gpu, dtype) or fault_of_extremes(gpu, dtype):
            return fault
        if fault := fault_of_batches_and_heads(gpu, dtype):
            return fault
    return ""


def first_fault_of_addresses(gpu: EmulatedGpu, dtypes: list[Any]) -> str:
    """Of tensors that need 64 bits, and of tensors that begin where none may."""
    for dtype in dtypes:
        query, key = draw(1, 600, 64, seed=1).astype(dtype), draw(1, 600, 64, seed=2).astype(dtype)
        out = attempt(gpu, query, key, key, schedule=("far", "65535", "3"))
        if isinstance(out, str):
            return out
        last = slice(600 // 16 * 16, None)  # the only block that runs
        expected = reference(query[:, last], key, key, 1, 0.3, None)
        if not np.allclose(out[:, last], expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]):
            return "the output is wrong"
    query, key, value = (draw(1, rows, 32, seed=1) for rows in (3, 5, 5))
    many, one = draw(65536, 1, 32, seed=1), draw(1, 1, 32, seed=2)
    if "exceeds what a grid can hold" not in str(attempt(gpu, many, one, one)):
        return "65536 batch items are not refused"
    for tensor in "01234":
        schedule = ("misaligned", tensor)
        said = attempt(gpu, query, key, value, bias=draw(5, seed=9), schedule=schedule)
        if "must be aligned to" not in str(said):
            return f"tensor {tensor} may be misaligned"
    return ""


def attempt(gpu: EmulatedGpu, *tensors: Any, **options: Any) -> Any:
    """The output, or what the process said when it ended."""
    try:
        return gpu.attention(*tensors, **{"heads": 1, "scale": 0.3, **options})
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode()) or f"ended with {error.returncode}"


def fault_of_case(
    gpu: EmulatedGpu, dtype: Any, tokens: int, width: int, schedule: tuple[str, ...]
) -> str:
    rows = (17, tokens, tokens)
    query, key, value = (
        draw(batch, n, width, seed=i).astype(dtype)
        for i, (batch, n) in enumerate(zip((1, 1, 2), rows, strict=True))
    )
    bias = draw(tokens, seed=9)
    out = attempt(gpu, query, key, value, bias=bias, schedule=schedule)
    if isinstance(out, str):
        return out
    expected = reference(query, key, value, 1, 0.3, bias)
    close = np.allclose(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    return "" if close else "the output is wrong"


def fault_where_all_is_masked(gpu: EmulatedGpu, dtype: Any) -> str:
    query, key = draw(1, 3, 32).astype(dtype), draw(1, 70, 32).astype(dtype)
    out = attempt(gpu, query, key, key, bias=np.full(70, -np.inf, np.float32))
    return out if isinstance(out, str) else "" if not out.any() else "the output is not zero"


def fault_of_extremes(gpu: EmulatedGpu, dtype: Any) -> str:
    """NaN, scores that one key wins, values near the largest number."""
    query, key, value = (draw(1, n, 32, seed=n).astype(dtype) for n in (9, 100, 101))
    value = value[:, :100]
    strange = key.copy()
    strange[0, 20, 3] = np.nan
    out = attempt(gpu, query, strange, value)
    if isinstance(out, str) or not np.isnan(out).all():
        return f"a NaN became {out}"
    out = attempt(gpu, query * 30, key * 30, value)
    expected = reference(query * 30, key * 30, value, 1, 0.3, None)
    if isinstance(out, str) or not np.allclose(out, expected, rtol=2e-3, atol=2e-3):
        return f"one key wins, and the answer is {out}"
    largest = {np.float32: 3e38, np.float16: 65504.0}[dtype]
    out = attempt(gpu, query, key, np.full_like(value, largest))
    if isinstance(out, str) or not np.allclose(out.astype(float) / largest, 1):
        return f"all values are {largest}, and the answer is {out}"
    return ""


def fault_of_batches_and_heads(gpu: EmulatedGpu, dtype: Any) -> str:
    for batches in ((2, 1, 2), (1, 2, 1)):
        query, key, value = (
            draw(batch, n, 64, seed=n + i).astype(dtype)
            for i, (batch, n) in enumerate(zip(batches, (17, 40, 40), strict=True))
        )
        out = attempt(gpu, query, key, value, heads=2)
        if isinstance(out, str):
            return out
        expected = reference(query, key, value, 2, 0.3, None)
        if not np.allclose(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]):
            return f"batches of {batches} with two heads are wrong"
    return ""


def first_fault_of_frames(gpu: EmulatedFrames) -> str:
    """What is wrong first; "" if nothing is."""
    try:
        for from_hw, size_hw in FRAMES:
            planes = nv12_of(*from_hw)
            chroma = planes[1].reshape(from_hw[0] // 2, -1, 2)
            image = cv2.cvtColorTwoPlane(planes[0], chroma, cv2.COLOR_YUV2RGB_NV12)
            expected = resized(image, size_hw)
            if np.abs(gpu.resize(planes, "nv12", size_hw, padding=(7, 10)) - expected).max() > 1.5:
                return "NV12 is wrong"
            image = draw_frame(*from_hw)
            bytes_of_opencv = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA)
            actual = gpu.resize([image], "rgb", size_hw, padding=(5, 0))
            if not np.array_equal(actual, bytes_of_opencv):
                return "RGB is wrong"
            actual = gpu.resize([image], "bgr", size_hw)
            if not np.array_equal(actual[..., ::-1], bytes_of_opencv):
                return "BGR is wrong"
            expected = resized(image, size_hw)
            actual = gpu.resize([draw_frame(*from_hw)], "rgb", size_hw, mean_std=MEAN_STD)
            mean, std = (np.array(values) for values in MEAN_STD)
            if np.abs((actual.transpose(1, 2, 0) * std + mean) * 255 - expected).max() > 0.26:
                return "the normalised image is wrong"
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode()) or f"ended with {error.returncode}"
    try:
        gpu.resize([draw_frame(4, 6)], "rgb", (2, 3), mean_std=MEAN_STD, misaligned=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode()
        return "" if "must be aligned to 4 bytes" in said else said
    return "a misaligned result is not refused"


def first_fault_of_plugin(program: Path) -> str:
    """What is wrong first; "" if nothing is."""
    for name in CHECKS:
        done = subprocess.run([program, name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return done.stderr or f"ended with {done.returncode}"
    return ""


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_kernels_are_clean_under_sanitizers(
    tmp_path: Path, unchanged_objects: Objects, sanitizer: Build
) -> None:
    gpu = build(tmp_path, unchanged_objects(sanitizer), sanitizer, CSRC)
    assert first_fault(gpu, list(LAUNCHES), schedules=(RANDOM, LANDING)) == ""


KERNEL_BUGS = [name for name, bug in BUGS.items() if bug.file in {F16, F32, BLOCK, LAUNCHER}]
FRAME_BUGS = [name for name, bug in BUGS.items() if bug.file in {FRAME, FRAME_LAUNCHER}]
PLUGIN_BUGS = [name for name, bug in BUGS.items() if bug.file in {PLUGIN, HOST_LOG}]
TYPES: dict[str, list[Any]] = {F16: [np.float16], F32: [np.float32]}


def test_every_mistake_is_put_into_something_that_is_checked() -> None:
    assert sorted([*KERNEL_BUGS, *FRAME_BUGS, *PLUGIN_BUGS]) == sorted(BUGS)


@pytest.mark.parametrize("name", KERNEL_BUGS)
def test_a_mistake_put_into_a_kernel_is_noticed(
    tmp_path: Path, unchanged_objects: Objects, name: str
) -> None:
    bug = BUGS[name]
    objects = unchanged_objects(bug.noticed_by)
    gpu = build(tmp_path, objects, bug.noticed_by, bug.copy_with_bug(tmp_path))
    types = TYPES.get(bug.file, list(LAUNCHES))
    fault = first_fault(gpu, types) or first_fault_of_addresses(gpu, types)
    assert fault
    if bug.noticed_by != "quick":
        assert f"{bug.noticed_by.title()}Sanitizer" in fault


@pytest.mark.parametrize("name", FRAME_BUGS)
def test_a_mistake_put_into_the_frame_kernel_is_noticed(tmp_path: Path, name: str) -> None:
    bug = BUGS[name]
    require_sanitizer(tmp_path, bug.noticed_by)
    gpu = build_frame_runner(tmp_path, bug.noticed_by, bug.copy_with_bug(tmp_path))
    fault = first_fault_of_frames(gpu)
    assert fault
    if bug.noticed_by != "quick":
        assert f"{bug.noticed_by.title()}Sanitizer" in fault


@pytest.mark.parametrize("name", PLUGIN_BUGS)
def test_a_mistake_put_into_the_plugin_is_noticed(tmp_path: Path, name: str) -> None:
    bug = BUGS[name]
    require_sanitizer(tmp_path, bug.noticed_by)
    csrc = bug.copy_with_bug(tmp_path)
    objects = compile_adapter(tmp_path, "plugin_check", bug.noticed_by, csrc)
    link(tmp_path / "check", objects, *FLAGS[bug.noticed_by][0])
    assert first_fault_of_plugin(tmp_path / "check")


ONE_OF_EACH = """
#include "cuda/attention_f16.cuh"
#include "cuda/attention_f32.cuh"
namespace cmlr::cuda {
template __global__ void attention_f16_kernel<32, 4, 2, 2>(AttentionArguments);
template __global__ void attention_f32_kernel<32, 1>(AttentionArguments);
}
"""
LAUNCH = """
#include <cstdio>
#include <exception>
#include "cmlr/attention_cuda.h"
int main() {
  alignas(16) static char memory[4096];
  try {
    cmlr::cuda::attention({cmlr::cuda::Element::kFloat32, memory, memory, memory, nullptr, memory,
                           1, 1, 1, 32, 1, 1.0f, 0, 0, 0}, nullptr);
  } catch (const std::exception& error) {
    std::puts(error.what());
  }
}
"""


@pytest.fixture(scope="module")
def unchanged_gpu(tmp_path_factory: pytest.TempPathFactory) -> EmulatedGpu:
    return build_runner(tmp_path_factory.mktemp("unchanged"))


def first_fault_of_machine_code(folder: Path, unchanged: EmulatedGpu, csrc: Path) -> str:
    """Of what nvcc makes of the kernels' wrappers, and of the launcher."""
    nvcc, source = require_nvcc(), folder / "one_of_each.cu"
    source.write_text(ONE_OF_EACH)
    gpu = build_ptx_runner(folder / "ptx", unchanged, nvcc, "sm_87", csrc, source)
    for dtype in LAUNCHES:
        for schedule in SCHEDULES:
            if fault := fault_of_case(gpu, dtype, 310, 32, schedule):
                return fault
    program, main, launcher = folder / "launch", folder / "launch.cpp", folder / "launcher.cu"
    main.write_text(LAUNCH)
    launcher.write_text(launcher_of(csrc, F32))
    command = [nvcc, "-arch=sm_87", "-std=c++17", f"-I{csrc}", f"-I{csrc / 'include'}", str(main)]
    subprocess.run([*command, str(launcher), "-o", str(program)], check=True)
    no_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([program], env=no_gpu, capture_output=True, text=True, check=False)
    return "" if "CmlrAttention: the launch failed: " in done.stdout else "no launch failed"


@pytest.mark.parametrize("name", MACHINE_CODE_BUGS)
def test_a_mistake_that_is_in_the_machine_code_alone_is_noticed(
    tmp_path: Path, unchanged_gpu: EmulatedGpu, name: str
) -> None:
    csrc = MACHINE_CODE_BUGS[name].copy_with_bug(tmp_path)
    assert first_fault_of_machine_code(tmp_path, unchanged_gpu, csrc)


def test_what_notices_mistakes_is_silent_where_there_is_none(
    tmp_path: Path, unchanged_objects: Objects, unchanged_gpu: EmulatedGpu
) -> None:
    assert first_fault_of_machine_code(tmp_path, unchanged_gpu, CSRC) == ""
    gpu = build(tmp_path, unchanged_objects("quick"), "quick", CSRC)
    assert first_fault(gpu, list(LAUNCHES)) == ""
    assert first_fault_of_addresses(gpu, list(LAUNCHES)) == ""
    assert first_fault_of_frames(build_frame_runner(tmp_path / "frames", "quick")) == ""
