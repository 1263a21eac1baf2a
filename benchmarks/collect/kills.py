"""`cmlr-edge label --collect --place`, killed at random moments: nothing is lost, doubled or cut, nobody locked out."""

from __future__ import annotations

import hashlib
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cmlr_edge.capture.images import read_image
from cmlr_edge.collected.frames import read_kept
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.machine.claim import IN_USE
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.place import store
from cmlr_edge.place.asking import trained_surroundings
from cmlr_edge.sinks.collect_record import SUFFIX, KeptName

_FRAMES, _KILLS_EACH = 150, 5  # of the film; of a folder, before a run comes to its end
_SIZE_WH = (320, 240)
_LIMIT_S = 300.0  # of a run
_LOOK_S, _LATE_S = 0.004, 0.1  # between looks at a folder; until a kill at most
_EARLY = 0.2  # share of the kills that come before the first frame is kept
BAD = ("lost", "doubled", "damaged", "differing")


@dataclass(frozen=True)
class Folders:
    """What one run after another fills."""

    kept: Path
    places: Path | None  # None of an engine that tells no surroundings

    @classmethod
    def of(cls, work: Path, name: str, engine: Path) -> Folders:
        """Empty ones."""
        tells = trained_surroundings(ModelSpec.load(spec_path(engine))) is not None
        found = cls(work / f"kills-{name}", work / f"kills-places-{name}" if tells else None)
        found.clear()
        return found

    def clear(self) -> None:
        """Let the next run begin anew."""
        for folder in (self.kept, self.places):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def flags(self) -> list[str]:
        """Of a command that fills them."""
        flags = ["--collect", str(self.kept), "--collect-every", "0.2", "--collect-random", "0.5"]
        return flags + (["--place", str(self.places), "--place-block", "1"] if self.places else [])

    def frames(self) -> dict[str, str]:
        """Name and digest of every frame, parts of frames aside."""
        paths = self.kept.glob(f"*/*{SUFFIX}")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    def blocks(self) -> list[tuple[float, ...]]:
        """Of the place, in order.

        Raises:
            SpecError: Its file is damaged.
        """
        return [*place.blocks] if (place := self._place()) is not None else []

    def begin_place_anew(self) -> None:
        """Where a run came so far that it kept a block that was not whole: the next one would go on in it."""
        if self.places is not None and (place := self._place()) is not None and place.open_frames:
            shutil.rmtree(self.places)

    def _place(self) -> store.StoredPlace | None:
        path = None if self.places is None else store.path_of(self.places, "film")
        return store.load(path) if path is not None and path.is_file() else None

    def left(self, pattern: str) -> int:
        """How many hidden files a killed run left."""
        folders = [folder for folder in (self.kept, self.places) if folder is not None]
        return sum(len([*folder.rglob(pattern)]) for folder in folders)


def run_kills(kills: int, work: Path, engine: Path | None = None) -> dict[str, Any]:
    """Kill runs, let others come to their end, and compare with one that was left alone.

    Args:
        kills: How many.
        work: For the film and the folders.
        engine: Instead of the bundled one; of one that tells surroundings, a place is kept, too.

    Returns:
        Counts; `lost`, `doubled`, `damaged` and `differing` are to be 0, for frames and for blocks of the
        place. A lock that a killed run left and that kept out the next one would raise an error.
    """
    work.mkdir(parents=True, exist_ok=True)
    engine = engine or demo_engine()
    run = partial(_run, _film(work / "kills.avi"), engine)
    alone, folders = (Folders.of(work, name, engine) for name in ("alone", "folder"))
    first_s, _ = run(alone, None)
    wanted, blocks = {*alone.frames()}, alone.blocks()
    names = [*BAD, *(f"blocks_{name}" for name in BAD if alone.places), "parts_left", "locks_left"]
    counts = dict.fromkeys(names, 0)
    rng, sizes = random.Random(0), list[int]()
    number = 0
    while number < kills:
        before = folders.frames(), folders.blocks()
        # Ever later in the film, until a run comes to its end.
        step = (len(wanted) - len(before[0])) / (_KILLS_EACH - number % _KILLS_EACH)
        kill_at = len(before[0]) + int(rng.uniform(0, 2) * step) + 1
        late_s = rng.uniform(0, _LATE_S)
        if rng.random() < _EARLY:
            kill_at, late_s = 0, rng.uniform(0, first_s)
        _, is_killed = run(folders, kill_at, late_s)
        _count_frames(counts, before[0], folders)
        if not is_killed:  # it was over before; its block that was not whole is no kill's
            folders.clear()
            continue
        number += 1
        _count_blocks(counts, before[1], folders, blocks)
        counts["parts_left"] += folders.left(".*.part")
        counts["locks_left"] += folders.left(IN_USE)
        sizes.append(len(folders.frames()))
        folders.begin_place_anew()
        if number % _KILLS_EACH == 0 or number == kills:
            before_end = folders.blocks()
            run(folders, None)
            counts["differing"] += {*folders.frames()} != wanted
            if alone.places:
                counts["blocks_differing"] += folders.blocks() != [*before_end, *blocks]
            folders.clear()
    found = {"kills": kills, "frames": len(wanted)} | ({"blocks": len(blocks)} if blocks else {})
    return found | {"kept_at_kill": sizes} | counts


def _count_frames(counts: dict[str, int], before: dict[str, str], folders: Folders) -> None:
    after = folders.frames()
    counts["lost"] += sum(after.get(name) != content for name, content in before.items())
    counts["damaged"] += _damaged(folders)
    digests = [KeptName.of(Path(name)).digest for name in after]
    counts["doubled"] += len(digests) - len({*digests})


def _count_blocks(
    counts: dict[str, int],
    before: list[tuple[float, ...]],
    folders: Folders,
    film: list[tuple[float, ...]],
) -> None:
    """Behind the blocks from before come the first ones of the film, each once, and nothing else."""
    if folders.places is None:
        return
    try:
        after = folders.blocks()
    except SpecError:
        counts["blocks_damaged"] += 1
        return
    counts["blocks_lost"] += after[: len(before)] != before
    counts["blocks_doubled"] += after[len(before) :] != film[: len(after) - len(before)]


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


def _run(
    film: Path, engine: Path, folders: Folders, kill_at: int | None, late_s: float = 0.0
) -> tuple[float, bool]:
    """Label the film; kill it so long after so many frames are kept, unless it ends before.

    Returns:
        Seconds until the first frame was kept, and whether it was killed.
    """
    command = [sys.executable, "-m", "cmlr_edge", "label", f"film={film}", "--engine", str(engine)]
    command += ["--provider", "cpu", *folders.flags()]
    began_s, first_s = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and time.monotonic() < began_s + _LIMIT_S:
            kept = len([*folders.kept.glob(f"*/*{SUFFIX}")])
            first_s = first_s or (time.monotonic() - began_s if kept else 0.0)
            if kill_at is not None and kept >= kill_at:
                time.sleep(late_s)
                process.kill()
                process.wait()
                return first_s, process.returncode == -signal.SIGKILL
            time.sleep(_LOOK_S)
        if process.poll() is None:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"a run that nobody killed ended with {process.returncode}: {said}")
    return first_s, False


def _damaged(folders: Folders) -> int:
    """Frames without a picture or without a record."""
    names = {*folders.frames()}
    if not names:
        return 0
    try:
        found = read_kept(folders.kept)
    except CaptureError:
        return len(names)
    whole = {kept.path.name for kept in found if read_image(kept.path).shape[0] == _SIZE_WH[1]}
    return len(names - whole)
