"""The hardware and its state, read from the kernel's files: nothing here imports, runs or opens a device.

Every function takes the root of the file tree, so that a machine can be looked at from a copy of its
files. What cannot be read is None, never an error.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_KIB = 1024
_UNLIMITED = 2**62  # and more: what version 1 of control groups says without a limit
_GPU_NAMES = ("gpu", "gv11b", "gp10b", "ga10b", "gb10b")  # as Tegra's kernels call them
# L4T's first number, and the JetPack that brings it.
_JETPACKS = {32: "4", 34: "5", 35: "5", 36: "6", 38: "7"}


@dataclass(frozen=True)
class Jetson:
    """A Jetson's board and its release of L4T."""

    model: str
    l4t: str | None  # "36.4.0"; None in a container that does not see the release file
    jetpack: str | None  # "6"


@dataclass(frozen=True)
class Camera:
    """One capture device of Video4Linux."""

    device: str
    name: str
    readable: bool  # by this user


@dataclass(frozen=True)
class Clock:
    """How fast a unit may run now, and whether it is held there."""

    unit: str
    lowest_mhz: float
    highest_mhz: float

    @property
    def pinned(self) -> bool:
        """The unit runs at one frequency, whatever the load."""
        return self.lowest_mhz == self.highest_mhz


def jetson(root: Path = ROOT) -> Jetson | None:
    """Return the board, or None where this is no Jetson."""
    model = (_text(root, "proc/device-tree/model") or "").rstrip("\0")
    release = _text(root, "etc/nv_tegra_release")
    is_board = "jetson" in model.lower() or "tegra" in model.lower()
    if release is None and not is_board:
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release or "")
    if found is None:
        return Jetson(model or "a Jetson of unknown model", None, None)
    l4t = f"{found[1]}.{found[2]}"
    return Jetson(model or "a Jetson of unknown model", l4t, _JETPACKS.get(int(found[1])))


def argus_socket(root: Path = ROOT) -> bool:
    """Tell whether the camera service of a Jetson can be reached."""
    try:
        return stat.S_ISSOCK((root / "tmp/argus_socket").stat().st_mode)
    except OSError:
        return False


def power_mode(root: Path = ROOT) -> str | None:
    """Return the name of a Jetson's power mode, such as "MAXN"."""
    status = re.search(r"pmode:0*(\d+)", _text(root, "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    modes = re.findall(
        r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", _text(root, "etc/nvpmodel.conf") or ""
    )
    names: dict[str, str] = dict(modes)
    return names.get(status[1], f"mode {status[1]}")


def clocks(root: Path = ROOT) -> list[Clock]:
    """Return the frequency limits of the processors, as far as the kernel tells them."""
    found = []
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    for policy in policies:
        limits = _numbers(policy / "scaling_min_freq", policy / "scaling_max_freq")
        if limits:
            found.append(Clock(f"CPU {policy.name}", limits[0] / 1e3, limits[1] / 1e3))
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        limits = _numbers(device / "min_freq", device / "max_freq")
        if limits and any(name in device.name for name in _GPU_NAMES):
            found.append(Clock("GPU", limits[0] / 1e6, limits[1] / 1e6))
    return found


def memory_bytes(root: Path = ROOT) -> dict[str, int]:
    """Return /proc/meminfo in bytes: "MemTotal", "MemAvailable", "SwapTotal" and more."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB", _text(root, "proc/meminfo") or "", re.MULTILINE)
    return {name: int(kib) * _KIB for name, kib in lines}


def group_memory_left(root: Path = ROOT) -> int | None:
    """Return the bytes that the control groups of this process still grant; None without a limit.

    What the kernel holds of files and can drop counts as left.
    """
    left = []
    for folder, is_second in _groups(root, "memory"):
        files = ("max", "current") if is_second else ("limit_in_bytes", "usage_in_bytes")
        found = _numbers(*(folder / f"memory.{file}" for file in files))
        if found is not None and found[0] < _UNLIMITED:
            cached = re.search(r"\binactive_file (\d{1,18})\b", _text(folder, "memory.stat") or "")
            left.append(found[0] - found[1] + (int(cached[1]) if cached else 0))
    return max(0, min(left)) if left else None


def group_cores(root: Path = ROOT) -> float | None:
    """Return how many cores the control groups of this process grant; None without a limit."""
    granted = []
    for folder, is_second in _groups(root, "cpu"):
        files = ("cpu.max",) if is_second else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        text = " ".join(_text(folder, file) or "" for file in files)
        if found := re.fullmatch(r"(\d{1,18})\s+([1-9]\d{0,17})\s*", text):
            granted.append(int(found[1]) / int(found[2]))
    return min(granted, default=None)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """The control groups of this process that may limit something, from the innermost; whether of version 2."""
    text = _text(root, "proc/self/cgroup") or ""
    for controllers, name in re.findall(r"^\d+:([^:\n]*):(.*)$", text, re.MULTILINE):
        is_second = controllers == ""
        if not is_second and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("" if is_second else controller)
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            yield folder, is_second
            if folder == top:
                break


def temperatures_c(root: Path = ROOT) -> dict[str, float]:
    """Return each thermal zone's temperature by its name."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _numbers(zone / "temp")
        if value and value[0] > 0:  # sensors that are off say less
            found[(_text(zone, "type") or zone.name).strip()] = value[0] / 1e3
    return found


def cameras(root: Path = ROOT) -> list[Camera]:
    """Return the capture devices, without the metadata devices that stand beside them."""
    found = []
    for path in sorted((root / "dev").glob("video*"), key=lambda item: (len(item.name), item.name)):
        about = root / "sys/class/video4linux" / path.name
        index = _numbers(about / "index")
        if not re.fullmatch(r"video\d+", path.name) or (index and index[0] > 0):
            continue
        name = (_text(about, "name") or "unnamed").strip()
        found.append(Camera(f"/dev/{path.name}", name, os.access(path, os.R_OK | os.W_OK)))
    return found


def free_disk_bytes(folder: Path) -> int | None:
    """Return what an ordinary user can still write in `folder`."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def has_nvidia_kernel_driver(root: Path = ROOT) -> bool:
    """Tell whether the kernel drives an NVIDIA GPU, whatever libraries are here."""
    return (root / "proc/driver/nvidia/version").exists()


def system_tensorrt(root: Path = ROOT) -> Path | None:
    """Return where the system's Python has TensorRT, which a virtual environment may not see."""
    return next(iter(sorted(root.glob("usr/lib/python3*/dist-packages/tensorrt"))), None)


def _text(root: Path, name: str) -> str | None:
    try:
        return (root / name).read_text(errors="replace")
    except OSError:
        return None


def _numbers(*paths: Path) -> list[int] | None:
    """Read one whole number per file; None unless all of them hold one."""
    try:
        return [int(path.read_text()) for path in paths]
    except (OSError, ValueError):
        return None


def available_memory() -> int:
    """Bytes that can be had without swapping out others, swap space included, or by the control group."""
    sizes = memory_bytes()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    machine = sizes.get("MemAvailable", pages) + sizes.get("SwapFree", 0)
    left = group_memory_left()
    return machine if left is None else min(machine, left)
