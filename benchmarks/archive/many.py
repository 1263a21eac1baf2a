"""Very many pictures: what memory driver and workers take, and whether it grows with their number."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2

from benchmarks.archive.kills import workers_of
from benchmarks.archive.material import repeat_pictures
from benchmarks.streams.stand_in import write_stand_in
from cmlr_edge.capture.images import IMAGE_SUFFIXES, read_image

_EVERY_S = 0.5


def label_many(photos: Path, folder: Path, counts: list[int], width: int) -> dict[str, Any]:
    """Label some numbers of pictures, photos of `width` pixels under other names, by a stand-in model.

    Returns:
        The greatest resident memory of the driver and of a worker, in MiB, for each number.
    """
    small = folder / "small"
    small.mkdir(parents=True)
    for path in sorted(photos.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            image = read_image(path)
            height = round(image.shape[0] * width / image.shape[1])
            cv2.imwrite(str(small / f"{path.stem}.jpg"), cv2.resize(image, (width, height)))
    engine_folder = folder / "engine"
    engine_folder.mkdir()
    engine = write_stand_in(engine_folder)
    runs = []
    for count in counts:
        source, out = folder / f"in{count}", folder / f"out{count}"
        repeat_pictures(small, source, count)
        runs.append({"pictures": count, **_watched(source, out, engine)})
    return {"width": width, "runs": runs}


def _watched(source: Path, out: Path, engine: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "cmlr_edge", "archive", str(source), "--out", str(out)]
    command += ["--engine", str(engine), "--provider", "cpu", "--json"]
    start_s, driver, worker = time.monotonic(), 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        while run.poll() is None:
            driver = max(driver, _peak_mib(run.pid))
            worker = max([worker, *(_peak_mib(pid) for pid in workers_of(run.pid))])
            time.sleep(_EVERY_S)
        assert run.stdout is not None
        record = json.loads(run.stdout.read())
    return {
        "rows": record["rows"],
        "seconds": round(time.monotonic() - start_s, 1),
        "driver_peak_mib": round(driver, 1),
        "worker_peak_mib": round(worker, 1),
        "dataset_mb": round(sum(p.stat().st_size for p in out.rglob("*.parquet")) / 1e6, 1),
    }


def _peak_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
