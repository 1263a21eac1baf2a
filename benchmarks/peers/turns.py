"""Routes taken in turn, each in a process of its own; whoever is not at work is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_LOAD_SECONDS = 300


@dataclass
class Worker:
    """One route's process and what it answered."""

    name: str
    process: subprocess.Popen[str]
    ready: dict[str, Any] = field(default_factory=dict)  # of the first answer
    turns: list[list[float]] = field(default_factory=list)  # ms of every frame, by turn

    def ask(self, seconds: float) -> None:
        """Let it work for one turn."""
        assert self.process.stdin is not None
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        self.turns.append(self._answer())
        os.kill(self.process.pid, signal.SIGSTOP)

    def wait_until_ready(self) -> None:
        """Take the first answer, and stop it."""
        self.ready = self._answer()
        os.kill(self.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(timeout=_LOAD_SECONDS)
            raise RuntimeError(f"{self.name} ended with code {self.process.returncode}")
        return json.loads(line)


def times_ms(worker: Worker) -> dict[str, float | int]:
    """Of all frames of all turns."""
    times = np.concatenate([np.asarray(turn) for turn in worker.turns])
    shares = {"p10": 10, "p50": 50, "p90": 90, "p99": 99}
    percentiles = {name: float(np.percentile(times, share)) for name, share in shares.items()}
    return {
        "frames": len(times),
        "min": float(times.min()),
        **percentiles,
        "max": float(times.max()),
    }


def take_turns(
    names: list[str], folder: Path, log: Path, *, rounds: int, seconds: float
) -> tuple[list[Worker], dict[str, str]]:
    """Load every route, then time them in turn.

    Args:
        names: Of `benchmarks.peers.routes`.
        folder: What `prepare` wrote.
        log: File for what the routes print.
        rounds: Turns of each route; every second round goes backwards.
        seconds: Length of a turn.

    Returns:
        The routes with their times, and why others have none.
    """
    workers: list[Worker] = []
    failed: dict[str, str] = {}
    try:
        with log.open("w") as errors:
            for name in names:
                worker = Worker(name, _start(name, folder, errors))
                workers.append(worker)
                try:
                    worker.wait_until_ready()
                except RuntimeError as error:
                    workers.remove(worker)
                    failed[name] = f"{error}: {_last_line(log)}"
            for i in range(rounds):
                for worker in workers if i % 2 == 0 else reversed(workers):
                    time.sleep(0.02)  # let the one before come to rest
                    worker.ask(seconds)
    finally:
        for worker in workers:
            worker.close()
    return workers, failed


def _start(name: str, folder: Path, errors: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.peers.worker", name, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
