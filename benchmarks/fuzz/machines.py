"""Machines to open damaged files on: this one, with what stands in for NVIDIA's software or without."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from csrc.tensorrt import packages

_FAKES = Path(__file__).parents[2] / "tests" / "cmlr_edge" / "fake_nvidia"


@dataclass(frozen=True)
class Machine:
    """Where a process opens files."""

    name: str
    python_path: Path | None = None  # of packages that the process finds first
    has_gpu: bool = False

    def environment(self, driver: Path) -> dict[str, str]:
        """Environment variables; `driver`: folder of the made-up driver."""
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        if self.python_path is not None:
            variables["PYTHONPATH"] = str(self.python_path)
        if self.has_gpu:
            variables["LD_LIBRARY_PATH"] = str(driver)
        return variables


CPU = Machine("ONNX files")
GPU = Machine("engines, made-up GPU and TensorRT", _FAKES, has_gpu=True)


def without_driver() -> list[Machine]:
    """Machines with NVIDIA's TensorRT and no driver, where TensorRT itself would crash."""
    machines = []
    for name in ("lean10", "lean11"):
        version = packages.PACKAGES[name].split("==")[1]
        if folder := packages.find(name):
            machines.append(Machine(f"engines, TensorRT {version} without a driver", folder))
    return machines or [Machine("engines, without TensorRT and a driver")]


def compile_driver(folder: Path) -> None:
    """Compile the made-up driver into a folder."""
    flags = ["-shared", "-fPIC", "-w", "-o", str(folder / "libcuda.so.1")]
    subprocess.run(["gcc", str(_FAKES / "libcuda.c"), *flags], check=True)
