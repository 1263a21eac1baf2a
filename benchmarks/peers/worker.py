"""One route in a process of its own: `python -m benchmarks.peers.worker ROUTE FOLDER`.

Reads a line for each turn, "SECONDS", and answers with the milliseconds of every frame in it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.frames import frames
from benchmarks.peers.routes import open_route

_WARM_UP = 2


def main() -> None:
    """Answer turns until stdin ends."""
    name, folder = sys.argv[1:]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer

    def answer(record: Any) -> None:
        answers.write(json.dumps(record) + "\n")
        answers.flush()

    images = frames()
    started = time.perf_counter()
    route = open_route(name, Path(folder))
    route(images[0])
    load_s = time.perf_counter() - started
    results = [route(image) for image in images]
    has_scores = not name.startswith("bare") and ": " not in name
    scores = [row.tolist() for row, _ in results] if has_scores else []
    answer({"load_s": load_s, "scores": scores, "labels": [sorted(found) for _, found in results]})
    for line in sys.stdin:
        times: list[float] = []
        end = time.perf_counter() + float(line)
        while time.perf_counter() < end or len(times) < 2 * _WARM_UP:
            start = time.perf_counter()
            route(images[len(times) % len(images)])
            times.append((time.perf_counter() - start) * 1e3)
        answer(times[_WARM_UP:])


if __name__ == "__main__":
    main()
