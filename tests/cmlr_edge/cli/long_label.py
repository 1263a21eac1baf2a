"""`cmlr-edge label` in the background: started, waited for, ended."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from tests.cmlr_edge.cli.command import COMMAND


def start_label(engine: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "label", *arguments, "--engine", str(engine), "--threshold", "0.1"]
    command += ["--out", str(folder / "o.jsonl"), "--events", str(folder / "e.jsonl")]
    command += ["--stability", "min_duration_s=0"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def terminate(process: subprocess.Popen[bytes], limit_s: float) -> None:
    asked_s = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - asked_s < limit_s


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
