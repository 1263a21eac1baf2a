"""A camera whose JPEGs are huge, and a process that reads it.

    python bomb.py FRAMES_BEFORE LIBRARY HUGE_JPEG

One JSON object on stdout: the most memory that the reader took, and what it said.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

SERVER = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import cv2, numpy

small = cv2.imencode(".jpg", numpy.full((240, 320, 3), 90, numpy.uint8))[1].tobytes()
huge = open(sys.argv[3], "rb").read()

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        try:
            for number in range(10000):
                data = small if number < int(sys.argv[2]) else huge
                head = f"--cut\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n"
                self.wfile.write(head.encode() + data + b"\\r\\n")
                time.sleep(0.04)
        except OSError:
            pass
    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.daemon_threads = True
print("ready", flush=True)
server.serve_forever()
"""


def main() -> None:
    from cmlr_edge import capture
    from cmlr_edge.capture.live import LiveSource

    if sys.argv[2] == "opencv":
        patch.object(capture, "pyav", lambda: None).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(port), sys.argv[1], sys.argv[3]]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    shapes, states, reason = set(), set(), ""
    try:
        with capture.open_source(f"http://127.0.0.1:{port}/video") as source:
            assert isinstance(source, LiveSource)
            until_s = time.monotonic() + 3
            while time.monotonic() < until_s:
                if (frame := source.next_frame(0.1)) is not None:
                    shapes.add(np.shape(frame.image_bgr))
                states.add(source.state.value)
                reason = source.reason or reason
    finally:
        server.kill()
        server.wait()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak_mb = int(peak[1]) / 1024 if peak else 0.0
    told = {"peak_mb": peak_mb, "shapes": sorted(shapes), "states": sorted(states)}
    print(json.dumps(told | {"reason": reason}))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # a thread that OpenCV holds would end it by SIGABRT
