"""Runs stages of the GPU check on the made-up GPU, and prints what each found as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cuda_operators  # type: ignore[import-not-found]

import cmlr_edge
from benchmarks.gpu import (
    attention,
    device,
    engine,
    frames,
    machine,
    replays,
    stage,
    times,
    tools,
    ways_of_frames,
)
from benchmarks.gpu.report import Report, Skipped, fails
from cmlr_edge.machine.driver import find_gpu

SMALL = attention.Case("float16", 2, 17, 33, 64, 2)


def shrink() -> None:
    """The same work, of sizes that the made-up GPU does in seconds."""
    device.LAUNCHES, device.REPLAYS = 2, 2
    machine.COPY_BYTES = 2**20
    attention.TOKENS = [9, 33]
    attention.BATCHES = attention.BATCHES[1:2]  # type: ignore[assignment]
    attention._FAR_HEADS, attention._FAR_ROWS = 3, 40
    frames.SIZES = (((60, 80), (32, 32)),)  # type: ignore[assignment]
    ways_of_frames.SIZES = ((60, 80), (48, 64), (40, 50))  # type: ignore[assignment]
    ways_of_frames.BATCHES, ways_of_frames.REPEATS = (1, 3), 3
    ways_of_frames._SIZE_HW = (32, 32)
    times.CASES, times._WARM_S = [SMALL], 0.1
    replays.REPLAYS = 8


def without_opencv(report: Report, place: stage.Place) -> None:
    """What compute-sanitizer and Nsight Compute watch, on a machine where nothing is compared."""

    def lacks(*_: object) -> None:
        raise Skipped("there is no OpenCV")

    frames._in_rgb = lacks  # type: ignore[assignment]
    for work in (tools.few_launches, tools.counted_launches):
        work(str(place.extensions))
        report.add(work.__name__, "holds", "")


def main(model: str, *names: str) -> None:
    sys.modules["cmlr_edge._cuda"] = cuda_operators
    cmlr_edge._cuda = cuda_operators
    shrink()
    found = {}
    stages: dict[str, Callable[..., None]] = {
        "look": machine.look,
        "ceilings": machine.ceilings,
        "attention": attention.check,
        "far": attention.check_far,
        "frames": frames.check,
        "times": times.measure,
        "replays": replays.check,
        "engine": partial(engine.check, frames=20),
        "tools": without_opencv,
    }
    with tempfile.TemporaryDirectory() as folder:
        place = stage.Place(Path(folder), find_gpu(), Path(model))
        for number, name in enumerate(names):
            report = Report(number, name)
            stages[name](report, place)
            found[name] = {row.check: f"{row.state} {row.found}" for row in report.rows}
            found[name]["fails"] = str(fails([{"ended": "done", "rows": [
                {"state": row.state} for row in report.rows]}]))  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
