"""`cmlr-edge label --collect`, killed at random moments of its writing: no frame is lost, doubled or cut."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cmlr_edge.capture.images import read_image
from cmlr_edge.collected.frames import read_kept
from cmlr_edge.errors import CaptureError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.sinks.collect_record import SUFFIX, KeptName

_FRAMES, _KILLS_EACH = 150, 5  # of the film; of a folder, before a run comes to its end
_SIZE_WH = (320, 240)
_LIMIT_S = 300.0  # of a run
_LOOK_S, _LATE_S = 0.004, 0.1  # between looks at a folder; until a kill at most


def run_kills(kills: int, work: Path, engine: Path | None = None) -> dict[str, Any]:
    """Kill runs, let others come to their end, and compare with one that was left alone.

    Args:
        kills: How many.
        work: For the film and the folders.
        engine: Instead of the bundled one.

    Returns:
        Counts; `lost`, `doubled`, `damaged` and `differing` are to be 0.
    """
    work.mkdir(parents=True, exist_ok=True)
    film = _film(work / "kills.avi")
    alone, folder = work / "kills-alone", work / "kills-folder"
    shutil.rmtree(alone, ignore_errors=True)
    run = partial(_run, film, engine or demo_engine())
    run(alone, None)
    wanted = {*_content(alone)}
    counts = dict.fromkeys(("lost", "doubled", "damaged", "differing", "parts_left"), 0)
    rng, sizes = random.Random(0), list[int]()
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(1, kills + 1):
        before = _content(folder)
        # Ever later in the film, until a run comes to its end.
        step = (len(wanted) - len(before)) / (_KILLS_EACH - (number - 1) % _KILLS_EACH)
        run(folder, len(before) + int(rng.uniform(0, 2) * step) + 1, rng.uniform(0, _LATE_S))
        after = _content(folder)
        counts["lost"] += sum(after.get(name) != content for name, content in before.items())
        counts["damaged"] += _damaged(folder)
        digests = [KeptName.of(Path(name)).digest for name in after]
        counts["doubled"] += len(digests) - len({*digests})
        counts["parts_left"] += len([*folder.glob("*/.*.part")])
        sizes.append(len(after))
        if number % _KILLS_EACH == 0 or number == kills:
            run(folder, None)
            counts["differing"] += {*_content(folder)} != wanted
            shutil.rmtree(folder)
    return {"kills": kills, "frames": len(wanted), "kept_at_kill": sizes} | counts


def _film(path: Path) -> Path:
    """Discs that move before a pattern: no frame is like another."""
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), codec, 15.0, _SIZE_WH)
    rng = np.random.default_rng(0)
    back = rng.integers(0, 255, (_SIZE_WH[1], _SIZE_WH[0], 3), np.uint8)
    for number in range(_FRAMES):
        image = np.roll(cv2.blur(back, (9, 9)), 7 * number, axis=1)
        cv2.circle(image, (2 * number, 120), 50, (40, 60, 40 + number), -1)
        writer.write(image)
    writer.release()
    return path


def _run(film: Path, engine: Path, folder: Path, kill_at: int | None, late_s: float = 0.0) -> None:
    """Label the film; kill it so long after so many frames are kept, unless it ends before."""
    command = [sys.executable, "-m", "cmlr_edge", "label", f"film={film}", "--engine", str(engine)]
    command += ["--provider", "cpu", "--collect", str(folder)]
    command += ["--collect-every", "0.2", "--collect-random", "0.5"]
    quiet, until_s = subprocess.DEVNULL, time.monotonic() + _LIMIT_S
    with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
        while process.poll() is None and time.monotonic() < until_s:
            if kill_at is not None and len([*folder.glob(f"*/*{SUFFIX}")]) >= kill_at:
                time.sleep(late_s)
                process.kill()
                return
            time.sleep(_LOOK_S)
        if process.poll() is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"a run that nobody killed ended with {process.returncode}: {command}")


def _content(folder: Path) -> dict[str, str]:
    """Name and digest of every frame, parts of frames aside."""
    paths = folder.glob(f"*/*{SUFFIX}")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _damaged(folder: Path) -> int:
    """Frames without a picture or without a record."""
    names = {*_content(folder)}
    if not names:
        return 0
    try:
        found = read_kept(folder)
    except CaptureError:
        return len(names)
    whole = {kept.path.name for kept in found if read_image(kept.path).shape[0] == _SIZE_WH[1]}
    return len(names - whole)
