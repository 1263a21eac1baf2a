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
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.strict_json import write_atomically
from release.comparison import compare
from release.cuda_on_arm64 import run_checks
from release.emulated import EmulatedSystem, missing_tools
from release.wheelhouse import fill_wheelhouse, find_wheel
from tests.service.tiny_engines import scaled_engine

_ROOT = Path(__file__).parents[1]
_PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}  # of the Debian releases; 3.10 and 3.12 have none


def main() -> int:
    """Run everything and write --results; 0 also where emulation is missing, which it says loudly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bookworm", choices=[*_PYTHONS])
    parser.add_argument("--clip", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=[*_PARTS], choices=[*_PARTS])
    parser.add_argument("--wheels", type=Path, default=Path("dist"))
    parser.add_argument("--work", type=Path, default=Path("build/arm64"))
    parser.add_argument("--results", type=Path, required=True)
    args = parser.parse_args()
    if missing := missing_tools():
        print(f"\n*** SKIPPED: the arm64 tests need {missing} ***\n", file=sys.stderr)  # noqa: T201
        return 0
    python = _PYTHONS[args.suite]
    wheel = find_wheel(args.wheels, python, "aarch64")
    system = EmulatedSystem(args.work / args.suite, args.suite)
    tests = ["pytest>=8", "hypothesis>=6"]
    fill_wheelhouse(system.path("wheelhouse"), wheel, python, extras=["cpu"], also=tests)
    digest = install(system, wheel)
    for name in args.parts:
        start_s = time.perf_counter()
        found = _PARTS[name](system, args)
        print(f"{name}: {json.dumps(found)}")  # noqa: T201
        seconds = round(time.perf_counter() - start_s, 1)
        write_part(
            args.results,
            args.suite,
            name,
            {"wheel_sha256": digest, "seconds": seconds, "found": found},
        )
    record = json.loads(args.results.read_text())
    return 0 if record["parts"].get("label", {"found": {"equal": True}})["found"]["equal"] else 1


def write_part(path: Path, suite: str, name: str, found: dict[str, Any]) -> None:
    """Add one part to the results; each names the wheel that it tried."""
    record: dict[str, Any] = {"suite": suite, "parts": {}}
    if path.is_file():
        record = json.loads(path.read_text())
    record["parts"][name] = found
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def install(system: EmulatedSystem, wheel: Path) -> str:
    """Make a virtual environment and install from the wheelhouse alone, unless this wheel is there.

    Returns:
        The wheel's sha256.
    """
    stamp, digest = system.path("opt/cmlr/wheel"), hashlib.sha256(wheel.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return digest
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
    return digest


def inspect(system: EmulatedSystem, _args: argparse.Namespace) -> dict[str, Any]:
    """What the system is, and whether the installed model is whole."""
    facts = "import json, platform as p; print(json.dumps([p.machine(), p.python_version(), p.libc_ver()]))"
    machine, python, libc = json.loads(system.run(["python", "-c", facts]))
    return {
        "machine": machine,
        "python": python,
        "libc": libc,
        "compilers": [name for name in ("cc", "gcc", "g++", "clang") if system.has(name)],
        "model_files": json.loads(system.run(["cmlr-edge", "inspect", "--json"]))["files"],
    }


def label(system: EmulatedSystem, args: argparse.Namespace) -> dict[str, Any]:
    """Label the clip on both machines with every score written, and compare."""
    shutil.copy(args.clip, system.path("clip.mp4"))
    options = ["--max-frames", str(args.frames), "--json"]
    system.run(["cmlr-edge", "label", "/clip.mp4", "--csv", "/arm64.csv", *options])
    here = system.path("x86_64.csv")
    this = [sys.executable, "-m", "cmlr_edge"]
    _run([*this, "label", str(args.clip), "--csv", str(here), *options])
    thresholds = json.loads(_run([*this, "inspect", "--json"]))["labels"]
    return {"clip": args.clip.name, **compare(here, system.path("arm64.csv"), thresholds)}


def stages(system: EmulatedSystem, args: argparse.Namespace) -> dict[str, float]:
    """Where the machines begin to differ: the largest difference after each stage, from the same input."""
    shutil.copy(args.clip, system.path("clip.mp4"))
    shutil.copy(_ROOT / "release/stages.py", system.path("stages.py"))
    system.run(["python", "/stages.py", "/clip.mp4", "/arm64.npz"])
    here = system.path("x86_64.npz")
    _run([sys.executable, str(_ROOT / "release/stages.py"), str(args.clip), str(here)])
    with np.load(here) as first, np.load(system.path("arm64.npz")) as second:
        return {
            name: float(np.abs(first[name].astype(np.float64) - second[name]).max())
            for name in first.files
        }


def service(system: EmulatedSystem, _args: argparse.Namespace) -> dict[str, Any]:
    """Start, reload, stop and restart the service there, with a supervisor that listens."""
    engine = system.path("srv/engine")
    shutil.rmtree(engine, ignore_errors=True)
    scaled_engine(engine, 1.0)  # tiny: this is about the service
    shutil.copy(_ROOT / "release/service_life.py", system.path("service_life.py"))
    record: dict[str, Any] = json.loads(system.run(["python", "/service_life.py", "/srv"]))
    return record


def kernels(_system: EmulatedSystem, args: argparse.Namespace) -> dict[str, Any] | str:
    """Run the emulation of the CUDA kernels as aarch64 code."""
    return run_checks(args.work / "kernels")


def native_tests(system: EmulatedSystem, _args: argparse.Namespace) -> str:
    """Run the tests of the native operators against the installed wheel; return pytest's last line."""
    tests = system.path("tests")
    shutil.rmtree(tests, ignore_errors=True)
    target = tests / "tests/csrc"
    target.mkdir(parents=True)
    for name in ("attention_reference.py", "test_attention_cpu.py"):
        shutil.copy(_ROOT / "tests/csrc" / name, target)
    pytest = ["python", "-m", "pytest", "-q", "--rootdir=/tests", "--import-mode=importlib"]
    options = ["-p", "no:cacheprovider", "-o", "pythonpath=/tests", "/tests/tests/csrc"]
    return system.run([*pytest, *options]).strip().splitlines()[-1]


_PARTS = {
    "inspect": inspect,
    "label": label,
    "stages": stages,
    "service": service,
    "kernels": kernels,
    "native_tests": native_tests,
}


def _run(command: Sequence[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout}\n{run.stderr}")
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
