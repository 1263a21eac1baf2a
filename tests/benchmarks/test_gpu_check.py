"""The check for machines with a GPU: what it says where there is none, and that its parts work.

A made-up GPU runs them here; that they hold on a real one is what the check is for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "cmlr_edge" / "fake_nvidia"


def test_without_a_gpu_it_says_so_in_one_sentence(engine: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--model", str(engine.parent)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("cannot be checked here: no NVIDIA driver here")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    command = ["gcc", "-shared", "-fPIC", str(FAKES / "libcuda.c"), "-w"]
    subprocess.run([*command, "-o", str(folder / "libcuda.so.1")], check=True)
    return folder


def on_fake_gpu(driver: Path, model: Path, **environment: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.gpu_check_on_fake_gpu", str(model)],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "PYTHONPATH": str(FAKES), **environment},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_every_part_runs_and_holds_where_the_operators_are_right(
    driver: Path, engine: Path
) -> None:
    found = on_fake_gpu(driver, engine)
    assert not [name for name, text in found.items() if "FAILS" in text], found
    assert found["frame"].startswith("differs by 0 grey levels")
    assert found["golden"] == "TensorRT 10.3.0, Orin"
    assert found["graph"] == "identical scores"
    assert "TFLOP/s" in found["kernel time"]


def test_operators_that_are_wrong_fail(driver: Path, engine: Path) -> None:
    found = on_fake_gpu(driver, engine, FAKE_ERROR="0.01")
    assert found["kernel"].startswith("FAILS differs by 0.01")
    assert found["frame"].startswith("FAILS differs by 2 grey levels")
