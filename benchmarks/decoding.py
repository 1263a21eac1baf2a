"""`python -m benchmarks.decoding CLIP...`: video files decoded by PyAV and by OpenCV, in turn.

Every frame of both is compared byte by byte; then each decodes the whole file several times, and the
processor time per frame of all its threads is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer

from benchmarks.records import write_json
from cmlr_edge.capture.ffmpeg import PyAvFilm
from cmlr_edge.capture.film import Film
from cmlr_edge.capture.opencv_film import OpenCvFilm
from cmlr_edge.machine.facts import describe_machine

_RUNS = 5


def measure(path: Path) -> dict[str, Any]:
    """Frames, bytes that differ, and milliseconds per frame: of the processor, and until it came."""
    ways: dict[str, Callable[[], Film]] = {
        "pyav": lambda: PyAvFilm(av, path),
        "opencv": lambda: OpenCvFilm(path),
    }
    record = {"clip": path.name, **_compare(ways["pyav"](), ways["opencv"]())}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(_RUNS):
        for name, opened in ways.items():
            runs[name].append(_milliseconds_per_frame(opened()))
    for name, values in runs.items():
        cpu, wall = np.median(values, axis=0)
        record[name] = {"cpu_ms": round(float(cpu), 3), "wall_ms": round(float(wall), 3)}
    record["cpu_ratio"] = round(record["pyav"]["cpu_ms"] / record["opencv"]["cpu_ms"], 3)
    return record


def _compare(ours: Film, theirs: Film) -> dict[str, Any]:
    frames = differing = largest = 0
    while True:
        one, other = ours.read(), theirs.read()
        if one is None or other is None:
            break
        frames += 1
        if not np.array_equal(one.image_bgr, other.image_bgr):
            differing += 1
            gap = np.abs(one.image_bgr.astype(int) - other.image_bgr)
            largest = max(largest, int(gap.max()))
    return {
        "frames": frames,
        "more_frames_in_one": (one is None) != (other is None),
        "frames_that_differ": differing,
        "largest_difference": largest,
        "fps": [ours.fps, theirs.fps],
        "announced_frames": [ours.num_frames, theirs.num_frames],
    }


def _milliseconds_per_frame(film: Film) -> tuple[float, float]:
    frames, cpu_s, wall_s = 0, time.process_time(), time.perf_counter()
    while film.read() is not None:
        frames += 1
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    film.close()
    return 1e3 * cpu_s / frames, 1e3 * wall_s / frames


def main(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    out: Annotated[Path, typer.Option(help="File for the record.")] = Path(
        "benchmarks/results/latency/decoding.json"
    ),
) -> None:
    """Compare, time and write the record."""
    record = {
        "machine": describe_machine(),
        "runs": _RUNS,
        "clips": [measure(path) for path in clips],
    }
    write_json(out, record)


if __name__ == "__main__":
    typer.run(main)
