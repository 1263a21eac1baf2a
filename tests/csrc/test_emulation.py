"""The emulated GPU itself: right about what is right, and loud about known mistakes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.csrc.emulation.emulated_gpu import Build, build_emulation, build_program
from tests.csrc.requirements import require_sanitizer

# Compiling takes minutes where nothing is stored.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCE = Path(__file__).with_name("emulation_check.cpp")


def build(folder: Path, kind: Build = "quick") -> Path:
    emulation = build_emulation(folder / "emulation", kind)
    return build_program(folder / "check", emulation, SOURCE, kind=kind)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("emulation"))


@pytest.fixture(scope="module")
def race_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race_detector")
    require_sanitizer(folder, "thread")
    return build(folder, "thread")


def run(program: Path, name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, name], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "name",
    [
        *("mma", "ldmatrix", "half", "shared_memory_is_nan"),
        *("copy", "copy_at_once", "copy_at_random"),
    ],
)
def test_instructions_do_what_their_specification_says(program: Path, name: str) -> None:
    done = run(program, name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("divergent_barrier", "divergent block: this thread in __syncthreads"),
        ("missing_barrier_partner", "DEADLOCK in block 0,0,0"),
        ("divergent_collective", "divergent warp: lane"),
        ("exited_lane", "names lanes that exited"),
        ("unfinished_copy", "exits with 1 cp.async still in flight"),
        ("misaligned_matrix", "ldmatrix row address is not 16-byte aligned"),
        ("another_stream", "launched on the stream"),
        ("past_the_end", "wrote 0 bytes behind its 256 bytes of shared memory"),
    ],
)
def test_a_mistake_ends_the_run_with_a_message(program: Path, mistake: str, message: str) -> None:
    done = run(program, mistake)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize(
    "name",
    ["racing_lanes", "racing_blocks", "racing_rounds_of_a_warp", "racing_rounds_of_a_block"],
)
def test_a_race_between_cuda_threads_is_reported(race_detector: Path, name: str) -> None:
    assert "ThreadSanitizer: data race" in run(race_detector, name).stderr


@pytest.mark.parametrize("name", ["ordered_lanes", "ordered_threads", "ordered_launches"])
def test_what_barriers_order_is_no_race(race_detector: Path, name: str) -> None:
    done = run(race_detector, name)
    assert (done.returncode, done.stderr) == (0, "")
