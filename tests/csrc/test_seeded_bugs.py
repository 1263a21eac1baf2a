"""The checks that watch over the CUDA kernels: silent on the kernels, loud on mistakes in them."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.csrc.attention_reference import draw, reference
from tests.csrc.emulation.emulated_gpu import (
    CSRC,
    FLAGS,
    RANDOM,
    RUNNER_SOURCE,
    SCHEDULES,
    Build,
    EmulatedGpu,
    build_emulation,
    build_program,
    compile_object,
)
from tests.csrc.requirements import require_sanitizer
from tests.csrc.seeded_bugs import BUGS, F32

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOLERANCE = {np.float32: 1e-5, np.float16: 2e-3}
# (tokens, width, schedules): a few launches that reach every kernel's corners.
LAUNCHES = {
    np.float16: [(33, 32, 3), (310, 64, 3), (150, 64, 1), (310, 32, 1), (20, 64, 1), (70, 32, 1)],
    np.float32: [(33, 64, 3), (310, 32, 3), (150, 32, 1), (310, 64, 1)],
}
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
    return ""


def fault_of_case(
    gpu: EmulatedGpu, dtype: Any, tokens: int, width: int, schedule: tuple[str, ...]
) -> str:
    rows = (17, tokens, tokens)
    query, key, value = (
        draw(batch, n, width, seed=i).astype(dtype)
        for i, (batch, n) in enumerate(zip((1, 1, 2), rows, strict=True))
    )
    bias = draw(tokens, seed=9)
    try:
        out = gpu.attention(query, key, value, heads=1, scale=0.3, bias=bias, schedule=schedule)
    except subprocess.CalledProcessError as error:
        return str(error.stderr.decode())
    expected = reference(query, key, value, 1, 0.3, bias)
    close = np.allclose(out, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    return "" if close else "the output is wrong"


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_the_kernels_are_clean_under_sanitizers(
    tmp_path: Path, unchanged_objects: Objects, sanitizer: Build
) -> None:
    gpu = build(tmp_path, unchanged_objects(sanitizer), sanitizer, CSRC)
    assert first_fault(gpu, list(LAUNCHES), schedules=(RANDOM,)) == ""


@pytest.mark.parametrize("name", BUGS)
def test_a_mistake_put_into_a_kernel_is_noticed(
    tmp_path: Path, unchanged_objects: Objects, name: str
) -> None:
    bug = BUGS[name]
    objects = unchanged_objects(bug.noticed_by)
    gpu = build(tmp_path, objects, bug.noticed_by, bug.copy_with_bug(tmp_path))
    fault = first_fault(gpu, [np.float32 if bug.file == F32 else np.float16])
    assert fault
    if bug.noticed_by != "quick":
        assert f"{bug.noticed_by.title()}Sanitizer" in fault
