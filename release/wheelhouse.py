"""Everything that a device without a network installs, as one folder: `make wheelhouse`.

    python -m release.wheelhouse --python 3.10 --extras mqtt prometheus --out build/wheelhouse/jetpack6
    pip install --no-index --find-links build/wheelhouse/jetpack6 cmlr-edge    # on the device

The extra cpu brings pip's OpenCV and ONNX Runtime; leave it out where the system has its own.
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from release.programs import output_of

# glibc of the oldest system served, JetPack 6 on Ubuntu 22.04, and older
_GLIBC_MINORS = (17, 24, 26, 27, 28, 31, 34, 35)


def main() -> None:
    """Fetch by the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, default=Path("dist"), help="what make wheels wrote")
    parser.add_argument("--python", required=True, help="3.10 on JetPack 6, 3.12 on JetPack 7")
    parser.add_argument("--architecture", default="aarch64")
    parser.add_argument("--extras", nargs="*", default=[])
    parser.add_argument("--also", nargs="*", default=[], help='such as "numpy<2"')
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    wheel = find_wheel(args.wheels, args.python, args.architecture)
    fill_wheelhouse(args.out, wheel, args.python, args.architecture, args.extras, args.also)
    for path in sorted(args.out.iterdir()):
        print(f"{path.stat().st_size / 1e6:7.1f} MB  {path.name}")  # noqa: T201


def find_wheel(folder: Path, python: str, architecture: str) -> Path:
    """Return what `make wheels` built for this Python and architecture.

    Raises:
        SystemExit: There is none.
    """
    tag = f"cp{python.replace('.', '')}"
    found = sorted(folder.glob(f"cmlr_edge-*-{tag}-{tag}-*_{architecture}.whl"))
    if not found:
        raise SystemExit(f"no {tag} wheel for {architecture} in {folder}: make wheels first")
    return found[-1]


def fill_wheelhouse(
    folder: Path,
    wheel: Path,
    python: str,
    architecture: str = "aarch64",
    extras: Sequence[str] = (),
    also: Sequence[str] = (),
) -> None:
    """Fetch the wheel's requirements for another machine; what is there is kept.

    Args:
        folder: To be filled.
        wheel: From `find_wheel`.
        python: Its version, such as "3.10".
        architecture: As Linux names it.
        extras: Of cmlr-edge.
        also: Further requirements, or bounds.

    Raises:
        SystemExit: Something is not to be had as a wheel for that machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("cmlr_edge-*"):
        old.unlink()
    wanted = f"{wheel}[{','.join(extras)}]" if extras else str(wheel)
    fetch(folder, python, architecture, [wanted, *older_pythons_need(wheel, python), *also])


def fetch(folder: Path, python: str, architecture: str, wanted: Sequence[str]) -> None:
    """Download wheels for another machine.

    Raises:
        SystemExit: Something is not to be had as a wheel for that machine.
    """
    platforms = [f"--platform=manylinux_2_{minor}_{architecture}" for minor in _GLIBC_MINORS]
    platforms.append(f"--platform=manylinux2014_{architecture}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    target = [f"--python-version={python}", f"--find-links={folder}", f"--dest={folder}"]
    output_of([*pip, *platforms, *target, *wanted])


def older_pythons_need(wheel: Path, python: str) -> list[str]:
    """Return what the wheel requires of older Pythons alone, if `python` is one.

    pip asks the interpreter it runs in, not --python-version, about such conditions.
    """
    with zipfile.ZipFile(wheel) as archive:
        [name] = [item for item in archive.namelist() if item.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    conditions = re.findall(
        r"^Requires-Dist: (\S+) *; *python_version *< *['\"]3\.(\d+)", metadata, re.MULTILINE
    )
    return [wanted for wanted, minor in conditions if int(python.split(".")[1]) < int(minor)]


if __name__ == "__main__":
    main()
