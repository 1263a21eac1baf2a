"""Cameras that are not there when a run starts: they are waited for, and disturb nobody."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from cmlr_edge.cli import signals
from tests.cmlr_edge.session.front_ends import FRONT_ENDS, command_of
from tests.cmlr_edge.web import Quiet, serving
from tests.conftest import free_port, solid
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

AWAY_S = 3.0
WITHIN_S = 6.0  # 1.5 s at the longest between two tries, and what a busy machine needs besides


class MjpegCamera(Quiet):
    """Sends a picture every 50 ms for ever, each unlike the one before."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=x")
        self.end_headers()
        for number in range(100_000):
            jpeg = cv2.imencode(".jpg", solid(number % 200, 40, 40))[1].tobytes()
            head = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            time.sleep(0.05)


def frames_of(table: Path) -> Counter[str]:
    if not table.exists():
        return Counter()
    with table.open(newline="") as file:
        return Counter(row["source"] for row in csv.DictReader(file))


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_camera_that_comes_late_gives_frames_soon_and_one_that_never_comes_is_told(
    engine: Path, tmp_path: Path, front_end: str
) -> None:
    port, table = free_port(), tmp_path / "t.csv"
    sources = [f"door=http://127.0.0.1:{port}/", "hall=/dev/video199", "yard=test://?fps=20"]
    command = command_of(front_end, sources, engine, tmp_path, "--csv", str(table))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: frames_of(table)["yard"] > 0, process)
    time.sleep(AWAY_S)
    # Of 20 a second, on a busy machine.
    wait_until(lambda: frames_of(table)["yard"] > AWAY_S * 10, process, limit_s=AWAY_S)
    assert frames_of(table)["door"] == 0
    with serving(MjpegCamera, port):
        assert wait_until(lambda: frames_of(table)["door"] > 0, process) < WITHIN_S
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if front_end == "label" else 0)
    told = [line for line in errors.splitlines() if line[:6] in {"door: ", "hall: ", "yard: "}]
    remedy = "check that it is plugged in (`ls /dev/video*`)"
    assert told == [f"hall: no frames came: there is no such device; {remedy}"]


def test_a_camera_that_never_comes_can_be_given_up(engine: Path, tmp_path: Path) -> None:
    sources = ["hall=/dev/video199", "yard=test://?fps=20"]
    more = ["--give-up-after", "0.5", "--max-frames", "20"]
    command = command_of("label", sources, engine, tmp_path, *more)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "never gave a frame in 0.5 s: there is no such device" in done.stderr


def test_one_signal_sent_twice_at_once_ends_in_order_and_a_later_one_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`timeout` sends it to the process and to its group; a person asks again later."""
    clock, exits = iter([5.0, 5.05, 5.3, 5.3]), list[int]()
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(
        signals, "os", SimpleNamespace(_exit=exits.append)
    )  # not the test's process
    interruption, ends = signals.Interruption(), list[int]()
    interruption.calls(lambda: ends.append(1))
    interruption.note(signal.SIGTERM, None)
    interruption.note(signal.SIGTERM, None)
    assert (interruption.number, ends, exits) == (signal.SIGTERM, [1], [])
    interruption.note(signal.SIGINT, None)
    assert exits == [128 + signal.SIGINT]
