"""What this machine is: its processor, how much of it is ours, and the versions that run on it."""

from __future__ import annotations

import math
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from cmlr_edge.machine.hardware import group_cores

_RUNTIMES = (
    "cmlr-edge",
    "numpy",
    "av",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
)


def usable_cores() -> int:
    """Cores that this process may run on, whatever the machine has besides: at least 1."""
    cores = len(os.sched_getaffinity(0))
    granted = group_cores()
    return cores if granted is None else max(1, min(cores, math.ceil(granted)))


def cpu_name() -> str:
    """The processor's name and what of its instructions matters here: "AMD EPYC, avx512_bf16"."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"(?:flags|Features)\s*:\s*(.+)", text)
    known = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp"}
    known |= {"bf16", "i8mm", "sve"}
    found = sorted(known & set(flags[1].split())) if flags else []
    return ", ".join([name[1] if name else platform.machine(), *found])


def board_name() -> str | None:
    """Name of a Jetson or another board with a device tree; None elsewhere."""
    try:
        return Path("/proc/device-tree/model").read_text().rstrip("\0\n")
    except OSError:
        return None


def runtime_versions() -> dict[str, str]:
    """Versions of the packages that decide what is computed and how fast, as installed."""
    from importlib.metadata import PackageNotFoundError, version  # takes its time

    found = {}
    for name in _RUNTIMES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def describe_machine() -> dict[str, str | int | None]:
    """Everything above in one record, for measurements."""
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "board": board_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **runtime_versions(),
    }
