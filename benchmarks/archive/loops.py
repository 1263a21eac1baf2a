"""The local mode against loops that do the least: a process per core, `recognizer(read_image(path))`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.archive.material import repeat_pictures
from cmlr_edge.machine.facts import usable_cores

_LOOP = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from pathlib import Path
from cmlr_edge import Recognizer
from cmlr_edge.capture.images import read_image
paths = Path(sys.argv[4]).read_text().splitlines()
with Recognizer.from_engine(sys.argv[2], provider=sys.argv[3]) as recognizer:
    for path in paths:
        recognizer(read_image(Path(path)))
"""


def compare_with_loops(
    photos: Path, engine: Path, provider: str, count: int, rounds: int
) -> dict[str, Any]:
    """Label the same pictures by both in turn, `rounds` times.

    Wall-clock time and the processors' time of all processes, from the start of the first to the end of
    the last: models are opened in it. On a machine with other work the latter says more.
    """
    ways = {"loops": _loops, "archive": _archive}
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        repeat_pictures(photos, folder / "in", count)
        for number in range(rounds):
            for way in [*ways] if number % 2 == 0 else [*ways][::-1]:
                out = folder / f"out{number}"
                runs[way].append(_timed(partial(ways[way], folder, engine, provider, out)))
    record: dict[str, Any] = {"pictures": count, "rounds": rounds, "provider": provider}
    for way, values in runs.items():
        wall_s, cpu_s = np.median(values, axis=0)
        record[way] = {
            "wall_s": [round(wall, 2) for wall, _ in values],
            "cpu_s": [round(cpu, 2) for _, cpu in values],
            "pictures_per_wall_s": round(count / wall_s, 2),
            "pictures_per_cpu_s": round(count / cpu_s, 2),
        }
    for unit in ("wall", "cpu"):
        key = f"pictures_per_{unit}_s"
        record[f"archive_to_loops_{unit}"] = round(record["archive"][key] / record["loops"][key], 3)
    return record


def _timed(action: Callable[[], None]) -> tuple[float, float]:
    before, start_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start_s, cpu_s


def _loops(folder: Path, engine: Path, provider: str, _out: Path) -> None:
    cores, loops = sorted(os.sched_getaffinity(0))[: usable_cores()], []
    paths = sorted(str(path) for path in (folder / "in").rglob("*.*"))
    for index, core in enumerate(cores):
        share = folder / f"share{index}.txt"
        share.write_text("\n".join(paths[index :: len(cores)]))
        arguments = [str(core), str(engine), provider, str(share)]
        loops.append(subprocess.Popen([sys.executable, "-c", _LOOP, *arguments]))
    assert [loop.wait() for loop in loops] == [0] * len(loops)


def _archive(folder: Path, engine: Path, provider: str, out: Path) -> None:
    command = ["archive", str(folder / "in"), "--out", str(out), "--engine", str(engine)]
    command += ["--provider", provider, "--chunk", "100", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "cmlr_edge", *command], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["units_left"] == 0
