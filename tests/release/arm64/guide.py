"""The installation guide of docs/jetson.md, followed in a fresh emulated system with JetPack's Python.

JetPack's own OpenCV and NumPy are not to be had: wheels of an OpenCV that was compiled against NumPy 1, as
JetPack's is, stand in their place, with that Ubuntu's NumPy. They have no GStreamer. TensorRT and CUDA
have no stand-in.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.wheelhouse import fetch, fill_wheelhouse
from tests.release.arm64.emulated import EmulatedSystem


@dataclass(frozen=True)
class JetPack:
    """What a JetPack brings that matters here."""

    python: str
    numpy: str  # Ubuntu's
    opencv: str  # compiled against NumPy 1


JETPACKS = {
    "jetpack6": JetPack("3.10", "numpy==1.21.6", "opencv-python-headless==4.8.1.78"),
    "jetpack7": JetPack("3.12", "numpy==1.26.4", "opencv-python-headless==4.9.0.80"),
}
_OFFLINE = ["pip", "install", "--quiet", "--no-index", "--find-links=/wheelhouse"]
_FACTS = """
import json, platform
from importlib.metadata import version  # of what is imported: the system has a NumPy too
import cv2
names = ("cmlr-edge", "numpy", "onnxruntime", "opencv-python-headless")
print(json.dumps({"python": platform.python_version(), "machine": platform.machine(),
                  "cv2_from": cv2.__file__, **{name: version(name) for name in names}}))
"""


def add_system_packages(system: EmulatedSystem, jetpack: JetPack, cache: Path) -> None:
    """Unpack the stand-ins where the system's Python finds them, as apt would."""
    folder = cache / f"system-python{jetpack.python}"
    fetch(folder, jetpack.python, "aarch64", ["--no-deps", jetpack.numpy, jetpack.opencv])
    packages = system.path(f"usr/local/lib/python{jetpack.python}/site-packages")
    for wheel in folder.glob("*.whl"):
        shutil.unpack_archive(wheel, packages, format="zip")


def follow(
    system: EmulatedSystem,
    jetpack: JetPack,
    wheel: Path,
    label: Callable[[EmulatedSystem], dict[str, Any]],
) -> dict[str, Any]:
    """Do as the guide says, without a network; then what it warns of, and its remedy.

    Args:
        system: With JetPack's Python and packages.
        jetpack: Which one.
        wheel: For it.
        label: Labels a clip there, and compares.

    Returns:
        JSON-ready.

    Raises:
        SystemExit: A step failed, or doctor does not say what the guide promises.
    """
    house = system.path("wheelhouse")
    fill_wheelhouse(house, wheel, jetpack.python, also=["numpy<2", "onnxruntime"])
    fetch(house, jetpack.python, "aarch64", ["--no-deps", "numpy>=2"])
    system.run([f"python{jetpack.python}", "-m", "venv", "--system-site-packages", "/opt/cmlr"])
    system.run([*_OFFLINE, "numpy<2", f"/wheelhouse/{wheel.name}"])
    system.run([*_OFFLINE, "onnxruntime"])
    record = {
        "installed": json.loads(system.run(["python", "-c", _FACTS])),
        "doctor": troubles(system),
        "label": label(system),
    }
    system.run([*_OFFLINE, "numpy>=2"])
    record["doctor_with_numpy_2"] = troubles(system)
    system.run([*_OFFLINE, "numpy<2"])
    record["doctor_after_its_remedy"] = troubles(system)
    if record["doctor"] or record["doctor_after_its_remedy"]:
        raise SystemExit(f"doctor finds trouble where the guide was followed: {record}")
    if "numpy<2" not in str(record["doctor_with_numpy_2"]):
        raise SystemExit(f"doctor does not say what ails NumPy 2 beside this OpenCV: {record}")
    return record


def troubles(system: EmulatedSystem) -> list[str]:
    """What doctor calls a problem, with its remedy; the exit code has to agree."""
    code, output = system.run_anyhow(["cmlr-edge", "doctor", "--json"])
    findings = json.loads(output)["findings"]
    problems = [
        f"{item['name']}: {item['found']} -> {item['remedy']}"
        for item in findings
        if item["state"] == "problem"
    ]
    if code != bool(problems):
        raise SystemExit(f"doctor ends with {code} and finds {problems}")
    return problems
