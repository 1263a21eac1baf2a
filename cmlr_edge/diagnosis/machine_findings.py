"""What `doctor` says of the machine itself: clocks, memory, disk, cameras."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmlr_edge.diagnosis.findings import Finding, Report
from cmlr_edge.machine import hardware

_GIB, _MIB = 2**30, 2**20
_LEAST_MEMORY = 512 * _MIB  # for a Recognizer and its runtime, with some room
_BUILD_MEMORY = 6 * _GIB  # memory and swap; with less the system may end the building of an engine
_LEAST_DISK = _GIB
_HOT_C = 85.0  # some degrees below where boards slow themselves down
_MACHINE = Report("machine")


def clocks(root: Path, *, is_jetson: bool) -> Iterator[Finding]:
    """How fast the processors are allowed to run, and how hot they are."""
    found = hardware.clocks(root)
    if not found:
        yield _MACHINE.ok("clocks", "not told by this kernel")
    else:
        text = "; ".join(
            f"{clock.unit} {clock.highest_mhz:.0f} MHz"
            if clock.pinned
            else f"{clock.unit} {clock.lowest_mhz:.0f} to {clock.highest_mhz:.0f} MHz"
            for clock in found
        )
        if is_jetson and not all(clock.pinned for clock in found):
            yield _MACHINE.warning(
                "clocks",
                f"{text}: they follow the load, so latencies vary",
                "sudo jetson_clocks, until the next start",
            )
        else:
            yield _MACHINE.ok("clocks", text)
    if hot := {k: v for k, v in hardware.temperatures_c(root).items() if v >= _HOT_C}:
        text = ", ".join(f"{name} {value:.0f} °C" for name, value in hot.items())
        yield _MACHINE.warning("temperature", text, "improve the cooling: it will slow down")


def memory(root: Path) -> Iterator[Finding]:
    """Whether there is enough memory, and swap space to build an engine."""
    sizes = hardware.memory_bytes(root)
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    swap = sizes.get("SwapTotal", 0)
    if total is None or free is None:
        yield _MACHINE.ok("memory", "not told by this kernel")
        return
    text = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    left = hardware.group_memory_left(root)
    if left is not None and left < free:
        free, text = left, f"{text}; of it the control group grants {left / _GIB:.1f} GiB more"
    if free < _LEAST_MEMORY:
        yield _MACHINE.problem("memory", text, "end other programs; a model may not fit")
    else:
        yield _MACHINE.ok("memory", text)
    if total + swap < _BUILD_MEMORY:
        yield _MACHINE.warning(
            "swap",
            f"{swap / _GIB:.1f} GiB: building an engine here may be killed",
            "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile "
            "&& sudo swapon /swapfile; running a model needs none",
        )
    else:
        yield _MACHINE.ok("swap", f"{swap / _GIB:.1f} GiB")


def disk() -> Iterator[Finding]:
    """Whether outputs have room in the current folder."""
    folder = Path.cwd()
    free = hardware.free_disk_bytes(folder)
    if free is None:
        yield _MACHINE.warning("disk", f"{folder} cannot be looked at", "go to another folder")
    elif free < _LEAST_DISK:
        text = f"{free / _MIB:.0f} MiB free in {folder}"
        yield _MACHINE.warning("disk", text, "free some space: outputs stop on a full disk")
    else:
        yield _MACHINE.ok("disk", f"{free / _GIB:.1f} GiB free in {folder}")


def cameras(root: Path, *, is_jetson: bool) -> Iterator[Finding]:
    """Which cameras are plugged in, and whether this user may open them."""
    found = hardware.cameras(root)
    for camera in found:
        if camera.readable:
            yield _MACHINE.ok("camera", f"{camera.device}: {camera.name}")
        else:
            yield _MACHINE.warning(
                "camera",
                f"{camera.device}: {camera.name}, which this user may not open",
                "sudo usermod -aG video $USER, then log in again",
            )
    if not found:
        other = "; csi:// cameras go through Argus" if is_jetson else ""
        yield _MACHINE.ok("camera", f"no /dev/video* here{other}")
