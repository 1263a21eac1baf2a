"""An archive whose driver and workers are killed again and again: every row is there once, as undisturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet

from benchmarks.archive.material import repeat_pictures
from benchmarks.streams.stand_in import write_stand_in

Row = tuple[Any, ...]


def kill_again_and_again(
    photos: Path, clip: Path, folder: Path, *, count: int, kills: int, seed: int
) -> dict[str, Any]:
    """Kill drivers, then workers, `kills` times each, at moments that a seed draws; compare the rows.

    The model is a stand-in that costs nothing, so that reading and writing are what is hit.
    """
    repeat_pictures(photos, folder / "in", count)
    (folder / "in" / "bad.jpg").write_text("no picture")
    (folder / "in" / clip.name).write_bytes(clip.read_bytes())
    engine_folder = folder / "engine"
    engine_folder.mkdir()
    engine = write_stand_in(engine_folder)
    command = [sys.executable, "-m", "cmlr_edge", "archive", str(folder / "in"), "--json"]
    command += ["--engine", str(engine), "--provider", "cpu", "--chunk", "20"]
    command += ["--part-mb", str(clip.stat().st_size / 12 / 2**20)]
    start_s = time.monotonic()
    subprocess.run([*command, "--out", str(folder / "calm")], capture_output=True, check=True)
    calm_s, expected = time.monotonic() - start_s, rows_as_often_as_they_are(folder / "calm")
    draw = random.Random(seed)
    drivers = _kill_drivers(command, folder / "a", expected, kills, calm_s, draw)
    workers = _kill_workers(command, folder / "b", expected, kills, calm_s, draw)
    return {
        "pictures": count,
        "clip": clip.name,
        "seed": seed,
        "calm_s": round(calm_s, 1),
        "rows_and_events": expected.total(),
        "drivers": drivers,
        "workers": workers,
    }


def _kill_drivers(
    command: list[str],
    out: Path,
    expected: Counter[Row],
    kills: int,
    calm_s: float,
    draw: random.Random,
) -> dict[str, Any]:
    """Start it, kill it after a while, and start it again; when all is done, check it and begin anew."""
    moments, checks = list[float](), list[dict[str, int]]()
    while len(moments) < kills or not checks:
        with _started(command, out) as run:
            moment_s = draw.uniform(0.03, 0.6) * calm_s
            if len(moments) < kills:
                time.sleep(moment_s)
            else:
                run.wait()
            if run.poll() is None:
                run.kill()
                moments.append(round(moment_s, 2))
        if run.returncode >= 0:
            checks.append(_check(out, expected))
            shutil.rmtree(out)
    return {"kills": len(moments), "moments_s": moments, "datasets": checks}


def _started(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen([*command, "--out", str(out)], stdout=silent, stderr=silent)


def _check(out: Path, expected: Counter[Row]) -> dict[str, int]:
    found = rows_as_often_as_they_are(out)
    return {
        "rows_missing": (expected - found).total(),
        "rows_more": (found - expected).total(),
    }


def _kill_workers(
    command: list[str],
    out: Path,
    expected: Counter[Row],
    kills: int,
    calm_s: float,
    draw: random.Random,
) -> dict[str, Any]:
    """Kill workers while the driver goes on; where it ends, check it and begin anew."""
    killed, checks = 0, list[dict[str, int]]()
    while killed < kills:
        with _started(command, out) as run:
            while run.poll() is None:
                time.sleep(draw.uniform(0.05, 0.25) * calm_s)
                workers = workers_of(run.pid)
                if workers and killed < kills:
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    killed += 1
        checks.append({"exit_code": run.returncode, **_check(out, expected)})
        shutil.rmtree(out)
    return {"kills": killed, "datasets": checks}


def workers_of(pid: int) -> list[int]:
    """The children of a process, whichever of its threads started them."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def rows_as_often_as_they_are(out: Path) -> Counter[Row]:
    """Every row as often as it is there, and every event likewise."""
    rows: Counter[Row] = Counter()
    for path in [*out.glob("rows/*/*.parquet"), *out.glob("events/*.parquet")]:
        for record in pyarrow.parquet.ParquetFile(path).read().to_pylist():
            rows[tuple(tuple(v) if isinstance(v, list) else v for v in record.values())] += 1
    return rows
