"""Tries the wheel as a device would, on an emulated arm64 system: `make test-arm64`.

A Debian of another architecture is unpacked into a folder, and runs under qemu's user-mode emulation:
its Python installs the wheel from a wheelhouse, without a compiler or a network, labels a clip, runs
the tests of the native code, and starts, stops and restarts the service. The same clip is labelled
here, and the two are compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from release.comparison import compare
from release.cuda_on_arm64 import run_checks
from release.emulated import EmulatedSystem, missing_tools
from release.wheelhouse import fill_wheelhouse, find_wheel

_ROOT = Path(__file__).parents[1]
_PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}  # of the Debian releases; 3.10 and 3.12 have none


def main() -> int:
    """Run everything and write --results; 0 also where emulation is missing, which it says loudly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm", choices=[*_PYTHONS])
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--wheels", type=Path, default=Path("dist"))
    parser.add_argument("--work", type=Path, default=Path("build/arm64"))
    parser.add_argument("--results", type=Path)
    args = parser.parse_args()
    if missing := missing_tools():
        print(f"\n*** SKIPPED: the arm64 tests need {missing} ***\n", file=sys.stderr)  # noqa: T201
        return 0
    times = _Times()
    python = _PYTHONS[args.suite]
    wheel = find_wheel(args.wheels, python, "aarch64")
    with times("unpack the system"):
        system = EmulatedSystem(args.work / args.suite, args.suite)
    with times("fill the wheelhouse"):
        tests = ["pytest>=8", "hypothesis>=6"]
        fill_wheelhouse(system.path("wheelhouse"), wheel, python, extras=["cpu"], also=tests)
    with times("install"):
        install(system, wheel)
    record: dict[str, Any] = {
        "suite": args.suite,
        "python": _PYTHONS[args.suite],
        "wheel": wheel.name,
    }
    record["machine"] = system.run(
        ["python3", "-c", "import platform; print(platform.machine())"]
    ).strip()
    record["compilers"] = [name for name in ("cc", "gcc", "g++", "clang") if system.has(name)]
    with times("inspect"):
        record["inspect"] = json.loads(system.run(["cmlr-edge", "inspect", "--json"]))["files"]
    with times("label"):
        shutil.copy(args.clip, system.path("clip.mp4"))
        record["comparison"] = label_and_compare(system, args.clip, args.frames)
    with times("service"):
        record["service"] = json.loads(service_life(system))
    with times("kernels in emulation"):
        record["cuda_emulation"] = run_checks(args.work / "kernels")
    with times("native tests"):
        record["native_tests"] = native_tests(system)
    record["seconds"] = times.seconds
    if args.results:
        args.results.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))  # noqa: T201
    return 0 if record["comparison"]["equal"] else 1


def install(system: EmulatedSystem, wheel: Path) -> None:
    """Make a virtual environment and install from the wheelhouse alone, unless this wheel is there."""
    stamp, digest = system.path("opt/cmlr/wheel"), hashlib.sha256(wheel.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    shutil.rmtree(system.path("opt/cmlr"), ignore_errors=True)
    system.run(["python3", "-m", "venv", "/opt/cmlr"])
    offline = [
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--no-index",
        "--find-links=/wheelhouse",
    ]
    system.run([*offline, "cmlr-edge[cpu]", "pytest", "hypothesis"])
    stamp.write_text(digest)


def native_tests(system: EmulatedSystem) -> str:
    """Run the tests of the native operators against the installed wheel; return pytest's last line."""
    tests = system.path("tests")
    shutil.rmtree(tests, ignore_errors=True)
    for name in ("attention_reference.py", "test_attention_cpu.py"):
        target = tests / "tests/csrc" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_ROOT / "tests/csrc" / name, target)
    pytest = [
        "python",
        "-m",
        "pytest",
        "-q",
        "--rootdir=/tests",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
    ]
    output = system.run([*pytest, "-o", "pythonpath=/tests", "/tests/tests/csrc"])
    return output.strip().splitlines()[-1]


def label_and_compare(system: EmulatedSystem, clip: Path, frames: int) -> dict[str, Any]:
    """Label the clip on both machines with every score written, and compare."""
    options = ["--max-frames", str(frames), "--json"]
    system.run(["cmlr-edge", "label", "/clip.mp4", "--csv", "/arm64.csv", *options])
    here = system.path("x86_64.csv")
    _run([sys.executable, "-m", "cmlr_edge", "label", str(clip), "--csv", str(here), *options])
    inspected = json.loads(_run([sys.executable, "-m", "cmlr_edge", "inspect", "--json"]))
    return compare(here, system.path("arm64.csv"), inspected["labels"])


def service_life(system: EmulatedSystem) -> str:
    """Start, reload, stop and restart the service there, with a supervisor that listens."""
    shutil.copy(_ROOT / "release/service_life.py", system.path("service_life.py"))
    return system.run(["python", "/service_life.py", "/srv"])


class _Times:
    """How long each part took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> _Times:
        self._name, self._start = name, time.perf_counter()
        return self

    def __enter__(self) -> None:
        """Start."""

    def __exit__(self, *_error: object) -> None:
        """Note the time."""
        self.seconds[self._name] = round(time.perf_counter() - self._start, 1)


def _run(command: Sequence[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout}\n{run.stderr}")
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
