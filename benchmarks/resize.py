"""`python -m benchmarks.resize`: a frame made small by our operator and by OpenCV, in turn.

Ours is timed with every instruction set that this machine has; it takes the first by itself.

Both run in one thread; the bytes are compared before anything is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer

from benchmarks.records import write_json
from cmlr_edge._native import resize_area, resize_instruction_sets
from cmlr_edge.machine.facts import describe_machine

_CASES = [((480, 640), 224), ((480, 640), 320), ((480, 640), 448), ((1080, 1920), 224)]
_RUNS = 200


def measure(size_hw: tuple[int, int], side: int) -> dict[str, Any]:
    """BGR frame to RGB of side x side: medians and minima in ms."""
    frame = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    ours, theirs = (np.empty((side, side, 3), np.uint8) for _ in range(2))

    def by_opencv() -> None:
        cv2.resize(frame, (side, side), dst=theirs, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(theirs, cv2.COLOR_BGR2RGB, dst=theirs)

    def by_us(instruction_set: str) -> None:
        resize_area(frame, ours, swap_channels=True, instruction_set=instruction_set)

    ways = {"opencv": by_opencv}
    differing = 0
    by_opencv()
    for name in resize_instruction_sets():
        ways[name] = partial(by_us, name)
        ways[name]()
        differing += int((ours != theirs).sum())
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_RUNS):
        for name, work in ways.items():
            times[name].append(_milliseconds(work))
    return {
        "frame_hw": size_hw,
        "side": side,
        "bytes_that_differ": differing,
        "ms": {n: {"p50": float(np.median(v)), "min": min(v)} for n, v in times.items()},
    }


def _milliseconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def main(
    out: Annotated[Path, typer.Option(help="File for the record.")] = Path(
        "benchmarks/results/latency/resize.json"
    ),
) -> None:
    """Compare, time and write the record."""
    cv2.setNumThreads(1)
    cases = [measure(size_hw, side) for size_hw, side in _CASES]
    record = {"machine": describe_machine(), "runs": _RUNS, "cases": cases}
    write_json(out, record)


if __name__ == "__main__":
    typer.run(main)
