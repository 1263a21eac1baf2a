"""Plans of very many pictures: what making and reading one takes; names alone, no picture is there."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cmlr_edge.archive.inputs import Item
from cmlr_edge.archive.plan import PLAN, Cutting, Plan, cut, write_plan
from cmlr_edge.archive.stores import open_store


def measure_plans(counts: list[int]) -> dict[str, Any]:
    """Plan some numbers of pictures, each in a process of its own."""
    code = "from benchmarks.archive.plans import measure_one; measure_one(int(__import__('sys').argv[1]))"
    runs = []
    for count in counts:
        command = [sys.executable, "-c", code, str(count)]
        runs.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    return {"runs": runs}


def measure_one(count: int) -> None:
    """Plan so many pictures, read the plan, and print what that took."""
    items = (
        Item("picture", f"/archive/of/pictures/{i // 1000:06d}/{i:09d}.jpg", 50_000, 1.7e9 + i)
        for i in range(count)
    )
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        start_s = time.process_time()
        write_plan(cut(items, Cutting()), store)
        written_s = time.process_time()
        with Plan(store) as plan:
            assert sum(len(unit.items) for unit in plan) == count
        record = {
            "pictures": count,
            "write_core_s": round(written_s - start_s, 2),
            "read_core_s": round(time.process_time() - written_s, 2),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "file_mb": round((Path(folder) / PLAN).stat().st_size / 1e6, 2),
        }
    sys.stdout.write(json.dumps(record))
