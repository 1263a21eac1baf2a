"""A process that reads a camera of `rtsp_server.py` and tells how old its pictures are.

    python ages.py URI STARTED_AT FPS CORES SECONDS

FFmpeg and the product are told that the machine has CORES cores. One JSON object on stdout: the ages of
frames when they are delivered, how far `captured_at` is off, both in seconds, and the states of frames.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import time
from pathlib import Path

import av
import cv2

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.capture.pattern import read_number


def force_cores(count: int) -> None:
    """Let everybody in this process count so many."""
    libraries = set(re.findall(r"/\S*libavutil\S*", Path("/proc/self/maps").read_text()))
    assert libraries, (av, cv2)
    for library in libraries:
        ctypes.CDLL(library).av_cpu_force_count(count)
    os.sched_getaffinity = lambda _pid: {*range(count)}
    os.cpu_count = lambda: count


def main() -> None:
    uri, started_at, fps = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    force_cores(int(sys.argv[4]))
    until_s = time.monotonic() + float(sys.argv[5])
    ages, errors, states = [], [], []
    with open_source(uri) as source:
        assert isinstance(source, LiveSource)
        while time.monotonic() < until_s:
            if (frame := source.next_frame(0.1)) is not None:
                drawn_at = started_at + read_number(frame.image_bgr) / fps
                ages.append(time.time() - drawn_at)
                errors.append(frame.captured_at - drawn_at)
                states.append(frame.status)
    print(json.dumps({"ages": ages, "errors": errors, "states": states}))


if __name__ == "__main__":
    main()
