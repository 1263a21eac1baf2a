"""Training where PyTorch finds a GPU: nothing is left on the other side, and nothing read from it unfetched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_training import write_dataset

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_run_is_trained_and_evaluated_without_mixing_gpu_and_host(tmp_path: Path) -> None:
    """In a process of its own, whose torch it changes; see `tests/train/made_up_gpu.py`."""
    data = write_dataset(tmp_path / "data", num_train=16, num_val=8)
    command = [sys.executable, "-m", "tests.train.made_up_gpu", str(data), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'refused': 1" in done.stdout  # a mixture, made on purpose
    assert (tmp_path / "run" / "model.json").is_file()
