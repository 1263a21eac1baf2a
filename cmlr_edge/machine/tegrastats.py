"""Power, clocks and throttling of a Jetson while something is measured, by NVIDIA's tegrastats.

Elsewhere there is nothing to watch, and the report is None. Unverified on hardware.
"""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.machine.child import Child
from cmlr_edge.machine.closing import Closing

_INTERVAL_MS = 500
_DROP = 0.9  # of the run's highest CPU clock: below it under load the board is holding back
_OVERCURRENT = "class/hwmon/hwmon*/oc*_event_cnt"  # under /sys: times that the current was limited


class BoardMonitor(Closing):
    """Samples a Jetson in the background; a context manager."""

    def __init__(self, *, command: str = "tegrastats", sys_root: Path = Path("/sys")) -> None:
        """Look for the board's tool; nothing runs yet."""
        self._command = shutil.which(command)
        self._sys_root = sys_root
        self._samples: list[dict[str, float]] = []
        self._arrived = threading.Condition()
        self._limited = 0

    def __enter__(self) -> BoardMonitor:
        """Start sampling."""
        self._limited = -self._overcurrents()
        if self._command:
            command = [self._command, "--interval", str(_INTERVAL_MS)]
            self._child = Child(command, on_line=self._read)
        return self

    def close(self) -> None:
        """Stop sampling."""
        self._limited += self._overcurrents()
        if self._command:
            self._child.kill()

    @property
    def throttled(self) -> bool:
        """Whether the board held back: its current was limited, or the CPU's clock fell."""
        clocks = [sample["cpu_mhz"] for sample in self._samples if "cpu_mhz" in sample]
        return self._limited > 0 or (bool(clocks) and min(clocks) < _DROP * max(clocks))

    def report(self) -> dict[str, Any] | None:
        """Least, mean and greatest of every reading; None where there is no tegrastats."""
        if not self._samples:
            return None
        names = sorted({name for sample in self._samples for name in sample})
        columns = {name: [s[name] for s in self._samples if name in s] for name in names}
        return {
            "samples": len(self._samples),
            "throttled": self.throttled,
            "overcurrent_events": self._limited,
            **{
                name: {"min": min(v), "mean": float(np.mean(v)), "max": max(v)}
                for name, v in columns.items()
            },
        }

    def wait_for(self, samples: int, timeout_s: float = 10.0) -> None:
        """Wait until so many readings have come, or the time is up."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._samples) >= samples, timeout_s)

    def _read(self, line: str) -> None:
        with self._arrived:
            self._samples.append(parse_tegrastats(line))
            self._arrived.notify_all()

    def _overcurrents(self) -> int:
        return sum(int(path.read_text()) for path in self._sys_root.glob(_OVERCURRENT))


def parse_tegrastats(line: str) -> dict[str, float]:
    """Readings of one line: MHz of the busiest CPU core and of the GPU, temperatures, mW of rails."""
    found: dict[str, float] = {}
    if clocks := [int(mhz) for mhz in re.findall(r"\d+%@(\d+)(?=[,\]])", line)]:
        found["cpu_mhz"] = max(clocks)
    if gpu := re.search(r"GR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        found["gpu_load_percent"] = float(gpu[1])
        if gpu[2]:
            found["gpu_mhz"] = float(gpu[2])
    for name, celsius in re.findall(r"(\w+)@(-?[\d.]+)C\b", line):
        found[f"{name.lower()}_celsius"] = float(celsius)
    for rail, milliwatts in re.findall(r"(\w+) (\d+)mW/\d+mW", line):
        found[f"{rail.lower()}_mw"] = float(milliwatts)
    return found
