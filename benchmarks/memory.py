"""Peak memory of starting, and of building an engine; processor time and seconds of starting.

    python -m benchmarks.memory --out benchmarks/results/memory.json

Each run is a process of its own; the peak is VmHWM, which counts what the process itself touched. The engine
is built by TensorRT-RTX, which needs no GPU (`python -m csrc.tensorrt.packages` fetches it).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from cmlr_edge.engines.builder import BuildOptions, build_plan, memory_to_build
from cmlr_edge.machine.facts import cpu_name
from csrc.tensorrt import packages

_STAGES = """
import json, sys, time
start_s, start_wall_s = time.process_time(), time.perf_counter()
def note(stage):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak, now = (int(status[key].split()[0]) / 1024 for key in ("VmHWM", "VmRSS"))
    print(json.dumps({"stage": stage, "peak_mb": peak, "now_mb": now,
                      "cpu_s": time.process_time() - start_s,
                      "wall_s": time.perf_counter() - start_wall_s}))
note("python")
import cmlr_edge
note("import cmlr_edge")
import numpy as np
recognizer = cmlr_edge.Recognizer.from_engine(sys.argv[1])
note("engine loaded and checked")
frame = np.zeros((1080, 1920, 3), np.uint8)
recognizer(frame)
note("first frame, 1920 x 1080")
for _ in range(20):
    recognizer(frame)
note("21 frames")
recognizer.recognize_batch([frame] * 8)
note("a batch of 8")
"""


def measure(engine: Path, runs: int) -> list[dict[str, Any]]:
    """Start `runs` times; return the median of every stage, in MB (2**20 bytes), processor seconds and seconds."""
    command = [sys.executable, "-c", _STAGES, str(engine)]
    # As where the package is installed: the first start, which is not counted, stores compiled modules.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
        for _ in range(runs + 1)
    ][1:]
    table = [[json.loads(line) for line in output.splitlines()] for output in outputs]
    return [
        {
            "stage": stages[0]["stage"],
            **{
                key: round(statistics.median(stage[key] for stage in stages), 2)
                for key in ("peak_mb", "now_mb", "cpu_s", "wall_s")
            },
        }
        for stages in zip(*table, strict=True)
    ]


def measure_build(model: Path, rtx: Path) -> dict[str, Any]:
    """Build an engine of an ONNX file once, for batches of 1 to 8; memory in MB (2**20 bytes).

    Args:
        model: The file.
        rtx: Folder of TensorRT-RTX.
    """
    os.environ["PYTHONPATH"] = str(rtx)  # for the process that builds
    content, options = model.read_bytes(), BuildOptions(batch=(1, 1, 8), module="tensorrt_rtx")
    report = build_plan(content, options)[1]
    return {
        "builder": f"TensorRT-RTX {report.tensorrt}",
        "peak_mb": round(report.peak_bytes / 2**20, 2),
        "not_started_below_mb": memory_to_build(len(content), options) // 2**20,
    }


def main() -> None:
    """Measure the bundled model, or another."""
    from cmlr_edge import demo_engine

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=Path, default=demo_engine())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    record = {
        "engine_mb": round(args.engine.stat().st_size / 2**20, 2),
        "machine": cpu_name(),
        "python": platform.python_version(),
        "runs": args.runs,
        "stages": measure(args.engine, args.runs),
    }
    if rtx := packages.find("rtx"):
        record["engine_build"] = measure_build(args.engine, rtx)
    else:
        print("engine build not measured: python -m csrc.tensorrt.packages", file=sys.stderr)  # noqa: T201
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
