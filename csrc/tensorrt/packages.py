"""NVIDIA's software that runs without a GPU, for the tests: headers, plugin registries, a builder.

    python -m csrc.tensorrt.packages

Each goes into a folder of its own below build/tensorrt, because two TensorRTs cannot share one
environment. A Jetson needs none of this: it has TensorRT's headers and libraries.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "build" / "tensorrt"
PACKAGES = {
    # Carries the headers of TensorRT 10.14, and nothing else that is used.
    "headers": "kernel-lens==2.0.1 "
    "--hash=sha256:07cc714e8b5e7f34b672f7c7fad93febe7c747be5837ba276b1527370134ffe0",
    "lean10": "tensorrt-lean-cu13==10.16.1.11",  # of JetPack 7.2
    "lean11": "tensorrt-lean-cu13==11.4.0.106",
    "rtx": "tensorrt-rtx==1.7.1.116",  # NVIDIA's parser and builder
}
MODULES = {"lean10": "tensorrt_lean", "lean11": "tensorrt_lean", "rtx": "tensorrt_rtx"}


def find(name: str) -> Path | None:
    """The folder of a fetched package: of TensorRT's headers, or one to put on the Python path."""
    folder = FOLDER / name
    if name == "headers":
        folder = folder / "kernel_lens" / "include" / "tensorrt"
    return folder if folder.is_dir() else None


def fetch(name: str) -> bool:
    """Downloads one package, whole or not at all; whether pip could."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(PACKAGES[name] + "\n")
        target = Path(temporary) / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(target)]
        alone = ["--no-deps"] if name == "headers" else []
        done = subprocess.run([*command, *alone, "-r", str(requirements)], check=False)
        if done.returncode == 0:
            target.rename(FOLDER / name)
        return done.returncode == 0


def main() -> int:
    """Fetches what is missing; 1 if something could not be, whose tests are then skipped."""
    missing = [name for name in PACKAGES if find(name) is None and not fetch(name)]
    for name in missing:
        print(f"not fetched: {PACKAGES[name].split()[0]}; its tests are skipped", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
