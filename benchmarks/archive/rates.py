"""What one core does: pictures and frames decoded, prepared and recognised in a second of its time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np

from cmlr_edge import Recognizer
from cmlr_edge.capture.ffmpeg import PyAvFilm
from cmlr_edge.capture.images import IMAGE_SUFFIXES, read_image
from cmlr_edge.frame import Frame
from cmlr_edge.machine.facts import describe_machine

_BATCH = 8


def measure_rates(
    photos: Path, clips: Path, engine: Path, provider: str, rounds: int
) -> dict[str, Any]:
    """Seconds of one core per picture and per frame, by stage; medians of `rounds` in turn.

    The process is kept on one core, and its processor time is what counts, so other work on the machine
    disturbs little.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pictures = sorted(p for p in photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[:200]
    films = sorted(clips.glob("*.mp4"))
    with Recognizer.from_engine(engine, provider=provider) as recognizer:
        images = [read_image(path) for path in pictures[: 4 * _BATCH]]
        prepared = [recognizer.prepare(Frame(image, 0, None, 0, 0, "")) for image in images]

        def recognise() -> int:
            for start in range(0, len(prepared), _BATCH):
                recognizer.recognize_prepared(prepared[start : start + _BATCH])
            return len(prepared)

        stages: dict[str, Callable[[], int]] = {
            "decode_picture": lambda: _count(read_image(path) for path in pictures),
            "prepare": lambda: _count(
                recognizer.prepare(Frame(i, 0, None, 0, 0, "")) for i in images
            ),
            "recognise": recognise,
            **{f"decode_frame of {film.name}": lambda film=film: _decode(film) for film in films},  # type: ignore[misc]
        }
        times = _timed_in_turn(stages, rounds)
        runtime = recognizer.runtime
    size = sum(path.stat().st_size for path in pictures) / len(pictures)
    return {
        "machine": describe_machine(),
        "load_at_end": os.getloadavg()[0],
        "runtime": runtime,
        "rounds": rounds,
        "core_ms": {
            name: round(1e3 * float(np.median(values)), 3) for name, values in times.items()
        },
        "picture_bytes": round(size),
        "films": {film.name: _about(film) for film in films},
    }


def _timed_in_turn(stages: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor for each thing that a stage counts."""
    times: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, stage in stages.items():
            start_s = time.process_time()
            count = stage()
            times[name].append((time.process_time() - start_s) / count)
    return times


def _count(things: Iterable[Any]) -> int:
    return sum(1 for _ in things)


def _decode(film: Path) -> int:
    opened, frames = PyAvFilm(av, film), 0
    while opened.read() is not None:
        frames += 1
    opened.close()
    return frames


def _about(film: Path) -> dict[str, Any]:
    opened = PyAvFilm(av, film)
    first = opened.read()
    assert first is not None
    height, width = first.image_bgr.shape[:2]
    seconds = (opened.num_frames or 0) / (opened.fps or 1)
    opened.close()
    return {
        "size": f"{width}x{height}",
        "fps": opened.fps,
        "mbit_per_s": round(film.stat().st_size * 8 / 1e6 / seconds, 2),
    }
