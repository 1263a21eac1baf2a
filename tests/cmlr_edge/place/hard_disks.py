"""Runs that collect and keep a place on a disk that fills up, becomes read-only or is emptied, and gets well again.

    unshare --mount --map-root-user python -m tests.cmlr_edge.place.hard_disks WORK

Each run has a disk of its own in memory, which goes with the namespace of its mounts. What is found is printed as
JSON. A disk is made read-only by another mount over it: the run holds its lock open, so the same one would refuse.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from cmlr_edge.collected.frames import read_kept
from cmlr_edge.place import store
from tests.placed_engine import write_placed_engine

FRAMES, FPS = 300, 20  # fifteen seconds
_ILL_S = 3.0  # of them
_LIMIT_S = 120.0


def fill(disk: Path) -> None:
    with (disk / "fill").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**12))


def make_read_only(disk: Path) -> None:
    _do("mount", "--bind", disk, disk)
    _do("mount", "-o", "remount,bind,ro", disk)


def empty(disk: Path) -> None:
    for name in ("places", "kept"):
        shutil.rmtree(disk / name)


# What happens to a disk of a size, and what makes it well again.
CASES: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], object]]] = {
    "fills up": ("300m", fill, lambda disk: (disk / "fill").unlink()),
    "small": ("2m", fill, lambda disk: (disk / "fill").unlink()),
    "stays full": ("300m", fill, lambda _disk: None),
    "read-only": ("300m", make_read_only, lambda disk: _do("umount", disk)),
    "emptied": ("300m", empty, lambda _disk: None),
}


def run(name: str, work: Path, engine: Path) -> dict[str, Any]:
    """One case, and what the disk then holds."""
    size, spoil, mend = CASES[name]
    disk = work / name.replace(" ", "_")
    disk.mkdir()
    _do("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk)
    command = [sys.executable, "-m", "cmlr_edge", "label", "--json", "--explain"]
    command += [f"door=test://?fps={FPS}&frames={FRAMES}&size=128x96", "--policy", "every"]
    command += ["--engine", str(engine), "--provider", "cpu"]
    command += ["--place", str(disk / "places"), "--place-block", "1"]
    command += ["--collect", str(disk / "kept"), "--collect-every", "0.5", "--collect-random", "1"]
    path, until_s = store.path_of(disk / "places", "door"), time.monotonic() + _LIMIT_S
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not path.is_file() and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
        spoil(disk)
        time.sleep(_ILL_S)
        ill = {"blocks": _blocks(path), "kept": _kept(disk)}
        mend(disk)
        out, errors = process.communicate(timeout=_LIMIT_S)
    whole = len(read_kept(disk / "kept")) if _kept(disk) else 0
    report = json.loads(out)
    return {
        "exit_code": process.returncode,
        "frames": report["frames"],
        "lost": report["results_lost"],
        "while_ill": ill,
        "blocks": _blocks(path),
        "kept": _kept(disk),
        "whole": whole,
        "left": sorted(str(item.relative_to(disk)) for item in disk.rglob(".*")),
        "said": errors.splitlines(),
    }


def _blocks(path: Path) -> int:
    return store.load(path).num_blocks if path.is_file() else 0


def _kept(disk: Path) -> int:
    return len([*disk.glob("kept/*/*.frame.jpg")])


def _do(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True)


def main() -> None:
    work = Path(sys.argv[1])
    engine = write_placed_engine(work / "engine")
    with ThreadPoolExecutor(len(CASES)) as pool:
        found = dict(zip(CASES, pool.map(lambda name: run(name, work, engine), CASES), strict=True))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
