"""Tries the wheels as a device would, on an emulated arm64 system: `make test-arm64`.

A Debian of another architecture is unpacked into a folder, and runs under qemu's user-mode emulation. In
one copy of it its Python installs the wheel from a wheelhouse, without a compiler or a network, labels a
clip, runs the tests of the native code, and starts, stops and restarts the service. In two more copies
the guide for a JetPack is followed with that JetPack's Python. The same clip is labelled here, and compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from cmlr_edge.model.files import write_atomically
from release.wheelhouse import find_wheel
from release.wheels import sha256
from tests.release.arm64 import device
from tests.release.arm64.cuda_on_arm64 import run_checks
from tests.release.arm64.emulated import fresh_copy, missing_tools, unpack
from tests.release.arm64.guide import JETPACKS, add_system_packages, follow
from tests.release.arm64.other_pythons import install_python

_SUITE, _PYTHON = "bookworm", "3.11"  # a Debian and its Python
_CUDA = "cuda13"  # folder of the wheel with CUDA, beside the others


class Results:
    """Adds what each part found to one file; each names the wheel that it tried."""

    def __init__(self, path: Path, wheels: Path) -> None:
        """Begin a new file, or go on with one for the same source, which `make wheels` described."""
        self._path, self._lock, self._start_s = path, Lock(), time.perf_counter()
        built = json.loads((wheels / "wheels.json").read_text())
        self._hashes = {wheels / one["wheel"]: one["sha256"] for one in built["wheels"]}
        if (also := wheels / _CUDA / "wheels.json").is_file():
            listed = json.loads(also.read_text())["wheels"]
            self._hashes |= {also.with_name(one["wheel"]): one["sha256"] for one in listed}
        source = {key: built[key] for key in ("source", "sdist")}
        self._record: dict[str, Any] = {**source, "system": _SUITE, "parts": {}}
        earlier = json.loads(path.read_text()) if path.is_file() else {}
        if earlier.get("sdist") == built["sdist"]:
            self._record["parts"] = earlier["parts"]  # of the same wheels: done again or kept

    def add(self, name: str, wheel: Path | None, find: Callable[[], Any]) -> None:
        """Run one part and keep what it returns.

        Raises:
            SystemExit: The wheel is not of this source, or the part failed.
        """
        if wheel and self._hashes.get(wheel) != sha256(wheel):
            raise SystemExit(f"{wheel} is not what make wheels built last: make wheels")
        start_s = time.perf_counter()
        found = find()
        part: dict[str, Any] = {"seconds": round(time.perf_counter() - start_s, 1), "found": found}
        if wheel:
            part |= {"wheel": wheel.name, "wheel_sha256": self._hashes[wheel]}
        with self._lock:
            print(f"{name}: {json.dumps(part)}", flush=True)
            self._record["parts"][name] = part
            self._write()

    def finish(self, *, whole: bool) -> int:
        """Write how long a whole run took; return the exit code."""
        if whole:
            self._record["total_s"] = round(time.perf_counter() - self._start_s, 1)
            self._write()
        found = [part["found"] for part in self._record["parts"].values()]
        labels = [one.get("label", one) for one in found if isinstance(one, dict)]
        return int(not all(one.get("equal", True) for one in labels))

    def _write(self) -> None:
        write_atomically(self._path, (json.dumps(self._record, indent=1) + "\n").encode())


def try_device(args: argparse.Namespace, results: Results) -> None:
    """Everything on Debian's own Python."""
    wheel = find_wheel(args.wheels, _PYTHON, "aarch64")
    system = fresh_copy(unpack(args.work / _SUITE, _SUITE), args.work / "device")
    parts: dict[str, Callable[[], Any]] = {
        "install": partial(device.install, system, wheel, _PYTHON),
        "inspect": partial(device.inspect, system),
        "label": partial(device.label, system, args.clip, args.frames),
        "stages": partial(device.stages, system, args.clip),
        "service": partial(device.service, system),
        "native_tests": partial(device.native_tests, system),
    }
    for name, find in parts.items():
        results.add(name, wheel, find)


def try_guide(name: str, args: argparse.Namespace, results: Results) -> None:
    """The guide for one JetPack, in a fresh system."""
    jetpack = JETPACKS[name]
    wheel = find_wheel(args.wheels, jetpack.python, "aarch64")
    system = fresh_copy(unpack(args.work / _SUITE, _SUITE), args.work / name)
    cache = args.work / "downloads"
    install_python(system, jetpack.python, args.tools, cache)
    add_system_packages(system, jetpack, cache)
    label = partial(device.label, clip=args.clip, frames=2)
    results.add(name, wheel, partial(follow, system, jetpack, wheel, label))
    for with_cuda in (args.wheels / _CUDA).glob(f"*-cp{jetpack.python.replace('.', '')}-*.whl"):
        results.add("cuda_parts", with_cuda, partial(device.cuda_parts, system, with_cuda))


def try_kernels(args: argparse.Namespace, results: Results) -> None:
    """The emulation of the CUDA kernels, compiled as aarch64 code; no wheel has it."""
    results.add("kernels", None, partial(run_checks, args.work / "kernels"))


_JOBS: dict[str, Callable[[argparse.Namespace, Results], None]] = {
    "device": try_device,
    **{name: partial(try_guide, name) for name in JETPACKS},
    "kernels": try_kernels,
}


def main() -> int:
    """Run everything and write --results; 0 also where emulation is missing, which it says loudly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=[*_JOBS], choices=[*_JOBS])
    parser.add_argument("--wheels", type=Path, default=Path("dist"))
    parser.add_argument("--tools", type=Path, default=Path("build/wheels-venv/bin"))
    parser.add_argument("--work", type=Path, default=Path("build/arm64"))
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    if missing := missing_tools():
        print(f"\n*** SKIPPED: the arm64 tests need {missing} ***\n", file=sys.stderr)
        return 0
    results = Results(args.results, args.wheels)
    results.add("unpack", None, lambda: str(unpack(args.work / _SUITE, _SUITE).path(".").name))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_JOBS[name], args, results) for name in args.only]
        for job in as_completed(jobs):
            if error := job.exception():
                print(f"error: {error!r}", file=sys.stderr, flush=True)
    whole = [*args.only] == [*_JOBS]
    return 1 if any(job.exception() for job in jobs) else results.finish(whole=whole)


if __name__ == "__main__":
    sys.exit(main())
