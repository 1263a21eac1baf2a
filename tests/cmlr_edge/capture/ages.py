"""A process that reads a camera of `rtsp_server.py` and tells how old its pictures are.

    python ages.py URI STARTED_AT FPS CORES SECONDS

FFmpeg and the product are told that the machine has CORES cores. One JSON object on stdout: the ages of
frames when they are delivered, how far `captured_at` is off, both in seconds, the states of frames, and
for how long others kept this process from running at all, in the second before each.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import threading
import time
from collections import deque
from pathlib import Path

import av
import cv2

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.capture.pattern import read_number

_TICK_S = 0.005


def force_cores(count: int) -> None:
    """Let everybody in this process count so many."""
    libraries = set(re.findall(r"/\S*libavutil\S*", Path("/proc/self/maps").read_text()))
    assert libraries, (av, cv2)
    for library in libraries:
        ctypes.CDLL(library).av_cpu_force_count(count)
    os.sched_getaffinity = lambda _pid: {*range(count)}
    os.cpu_count = lambda: count


class Watch(threading.Thread):
    """Notes when it wakes later than it wanted: the machine is busy with something else."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._late: deque[tuple[float, float]] = deque(maxlen=200)
        self.start()

    def run(self) -> None:
        while True:
            start_s = time.monotonic()
            time.sleep(_TICK_S)
            self._late.append((start_s, time.monotonic() - start_s - _TICK_S))

    def longest_s(self) -> float:
        since_s = time.monotonic() - 1
        return max((late_s for start_s, late_s in [*self._late] if start_s > since_s), default=0.0)


def main() -> None:
    uri, started_at, fps = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    force_cores(int(sys.argv[4]))
    until_s = time.monotonic() + float(sys.argv[5])
    watch, ages, errors, states, held_up = Watch(), [], [], [], []
    with open_source(uri) as source:
        assert isinstance(source, LiveSource)
        while time.monotonic() < until_s:
            if (frame := source.next_frame(0.1)) is not None:
                drawn_at = started_at + read_number(frame.image_bgr) / fps
                ages.append(time.time() - drawn_at)
                errors.append(frame.captured_at - drawn_at)
                states.append(frame.status)
                held_up.append(watch.longest_s())
    print(json.dumps({"ages": ages, "errors": errors, "states": states, "held_up": held_up}))


if __name__ == "__main__":
    main()
