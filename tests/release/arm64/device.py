"""What is tried on the emulated device with its own Python; every function returns what it found."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from release.programs import output_of
from release.wheelhouse import fill_wheelhouse
from tests.cmlr_edge.service.tiny_engines import scaled_engine
from tests.release.arm64.comparison import compare
from tests.release.arm64.emulated import EmulatedSystem

_ROOT = Path(__file__).parents[3]
_HERE = [sys.executable, "-m", "cmlr_edge"]


def install(system: EmulatedSystem, wheel: Path, python: str) -> dict[str, Any]:
    """Make a virtual environment and install from a wheelhouse alone; there is no network to it."""
    tests = ["pytest>=8", "hypothesis>=6"]
    fill_wheelhouse(system.path("wheelhouse"), wheel, python, extras=["cpu"], also=tests)
    system.run(["python3", "-m", "venv", "/opt/cmlr"])
    pip = ["pip", "install", "--quiet", "--no-index", "--find-links=/wheelhouse"]
    system.run([*pip, f"/wheelhouse/{wheel.name}[cpu]", "pytest", "hypothesis"])
    listed = json.loads(system.run(["pip", "list", "--format=json"]))
    return {item["name"]: item["version"] for item in listed}


def inspect(system: EmulatedSystem) -> dict[str, Any]:
    """What the system is, what doctor says of it, and whether the installed model is whole."""
    facts = "import json, platform as p; print(json.dumps([p.machine(), p.python_version(), p.libc_ver()]))"
    machine, python, libc = json.loads(system.run(["python", "-c", facts]))
    return {
        "machine": machine,
        "python": python,
        "libc": libc,
        "compilers": [name for name in ("cc", "gcc", "g++", "clang") if system.has(name)],
        "doctor": system.run(["cmlr-edge", "doctor"]).strip().splitlines()[-1],
        "model_files": json.loads(system.run(["cmlr-edge", "inspect", "--json"]))["files"],
    }


def label(system: EmulatedSystem, clip: Path, frames: int) -> dict[str, Any]:
    """Label the clip on both machines with every score written, and compare."""
    shutil.copy(clip, system.path("clip.mp4"))
    options = ["--max-frames", str(frames), "--json"]
    system.run(["cmlr-edge", "label", "/clip.mp4", "--csv", "/arm64.csv", *options])
    here = system.path("x86_64.csv")
    output_of([*_HERE, "label", str(clip), "--csv", str(here), *options])
    thresholds = json.loads(output_of([*_HERE, "inspect", "--json"]))["labels"]
    return {"clip": clip.name, **compare(here, system.path("arm64.csv"), thresholds)}


def stages(system: EmulatedSystem, clip: Path) -> dict[str, float]:
    """Where the machines begin to differ: the largest difference after each stage, from the same input."""
    shutil.copy(clip, system.path("clip.mp4"))
    shutil.copy(_ROOT / "tests/release/arm64/stages.py", system.path("stages.py"))
    system.run(["python", "/stages.py", "/clip.mp4", "/arm64.npz"])
    here = system.path("x86_64.npz")
    output_of([sys.executable, str(_ROOT / "tests/release/arm64/stages.py"), str(clip), str(here)])
    with np.load(here) as first, np.load(system.path("arm64.npz")) as second:
        return {
            name: float(np.abs(first[name].astype(np.float64) - second[name]).max())
            for name in first.files
        }


def service(system: EmulatedSystem) -> dict[str, Any]:
    """Start, reload, stop and restart the service there, with a supervisor that listens."""
    system.path("srv").mkdir(exist_ok=True)
    scaled_engine(system.path("srv/engine"), 1.0)  # tiny: this is about the service
    shutil.copy(_ROOT / "tests/release/arm64/service_life.py", system.path("service_life.py"))
    record: dict[str, Any] = json.loads(system.run(["python", "/service_life.py", "/srv"]))
    return record


def native_tests(system: EmulatedSystem) -> str:
    """Run the tests of the native operators against the installed wheel; return pytest's last line."""
    target = system.path("tests/tests/csrc")
    target.mkdir(parents=True)
    shutil.copy(_ROOT / "tests/covering.py", target.parent)
    for name in ("attention_reference.py", "test_attention_cpu.py", "test_resize_area.py"):
        shutil.copy(_ROOT / "tests/csrc" / name, target)
    pytest = ["python", "-m", "pytest", "-q", "--rootdir=/tests", "--import-mode=importlib"]
    options = ["-p", "no:cacheprovider", "-o", "pythonpath=/tests", "/tests/tests/csrc"]
    return system.run([*pytest, *options]).strip().splitlines()[-1]


def cuda_parts(system: EmulatedSystem, wheel: Path) -> dict[str, Any]:
    """Put the wheel with CUDA in place of the other, and load its parts without a GPU."""
    shutil.copy(wheel, system.path("wheelhouse"))
    pip = ["pip", "install", "--quiet", "--no-index", "--force-reinstall", "--no-deps"]
    system.run([*pip, f"/wheelhouse/{wheel.name}"])
    shutil.copy(_ROOT / "release/cuda_parts.py", system.path("cuda_parts.py"))
    record: dict[str, Any] = json.loads(system.run(["python", "/cuda_parts.py"]))
    if record["plugins"] != 1 or not record["refusals"][2].startswith("CmlrAttention: the launch"):
        raise SystemExit(f"expected one plugin, and CUDA's word about the launch: {record}")
    return record
