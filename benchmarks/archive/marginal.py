"""What a picture costs one core in a loop, and in a unit of an archive: starting processes is left out."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge import Recognizer
from cmlr_edge.archive.dataset import Tables
from cmlr_edge.archive.inputs import list_items
from cmlr_edge.archive.labeller import Labeller
from cmlr_edge.archive.plan import Cutting, cut
from cmlr_edge.archive.stores import open_store
from cmlr_edge.capture.images import IMAGE_SUFFIXES, read_image


def compare_marginally(
    photos: Path, engine: Path, provider: str, count: int, rounds: int
) -> dict[str, Any]:
    """Label the same pictures by both in one process on one core, in turn; milliseconds of its time."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[:count]
    units = [*cut(list_items(map(str, paths)), Cutting())]
    times: dict[str, list[float]] = {"loop": [], "archive": []}
    with Recognizer.from_engine(engine, provider=provider) as recognizer:
        for image in [read_image(path) for path in paths[:8]]:
            recognizer(image)
        for _ in range(rounds):
            start_s = time.process_time()
            for path in paths:
                recognizer(read_image(path))
            times["loop"].append(time.process_time() - start_s)
            with tempfile.TemporaryDirectory() as out:
                store, tables = open_store(out), Tables(recognizer.labels, {})
                labeller = Labeller(recognizer, tables, store, lambda _: None)
                start_s = time.process_time()
                for unit in units:
                    labeller.do(unit, {})
                times["archive"].append(time.process_time() - start_s)
    each = {
        name: [round(1e3 * t / len(paths), 3) for t in values] for name, values in times.items()
    }
    ratio = float(np.median(times["loop"]) / np.median(times["archive"]))
    return {
        "pictures": len(paths),
        "provider": provider,
        "core_ms": each,
        "archive_to_loop": round(ratio, 3),
    }
