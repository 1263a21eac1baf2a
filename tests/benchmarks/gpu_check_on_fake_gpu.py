"""Runs the parts of the GPU check on the made-up GPU, and prints what each found as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cuda_operators  # type: ignore[import-not-found]

from benchmarks import gpu_kernels
from benchmarks.gpu_engine import Engine
from cmlr_edge.engines.builder import BuildOptions
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec


def main(model: Path) -> None:
    found: dict[str, str] = {}
    gpu_kernels._WARM_UP, gpu_kernels._REPEATS = 1, 3
    case = gpu_kernels.Case("float16", 2, 17, 33, 64, 2)
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(model, ModelSpec.load(spec_path(model)), Path(folder), BuildOptions())
        for name, work in {
            "kernel": lambda: gpu_kernels.compare(cuda_operators, case),
            "kernel time": lambda: gpu_kernels.measure(cuda_operators, case),
            "frame": lambda: gpu_kernels.compare_frame(cuda_operators),
            "engine": engine.build,
            "golden": engine.open_as_users_do,
            "graph": engine.compare_cuda_graph,
            "time": engine.measure,
            "memory": lambda: engine.watch_memory(20),
        }.items():
            found[name] = attempt(work)
    print(json.dumps(found))


def attempt(work: Callable[[], str]) -> str:
    try:
        return work()
    except EngineError as error:
        return f"FAILS {error}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
