"""`python -m benchmarks.streams.flicker`: how often a label comes and goes, with and without hysteresis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cmlr_edge import Recognizer, demo_engine, open_source
from cmlr_edge.stability import EventTracker, LabelStability
from cmlr_edge.stream import merge_stability
from cmlr_edge.strict_json import write_atomically
from train.reporting import exit_on_error


def count_flicker(scores: NDArray[np.float32], threshold: float) -> int:
    """How often the score rises to the threshold, the start included.

    Args:
        scores: (N,), of successive frames.
        threshold: The label is there at or above it.
    """
    there = np.concatenate([[False], scores >= threshold])
    return int((there[1:] & ~there[:-1]).sum())


def find_events(
    times_s: Sequence[float], scores: NDArray[np.float32], settings: LabelStability
) -> list[list[float]]:
    """Start and end of each event, in seconds, from the same scores."""
    tracker, events = EventTracker({"label": settings}), []
    for time_s, score in zip(times_s, scores, strict=True):
        events += tracker.add(np.array([score]), time_s)
    events += tracker.finish()
    return [
        [round(event.start_s, 2), round(event.end_s or 0.0, 2)]
        for event in events
        if event.kind == "end"
    ]


def main(
    clip: Annotated[Path, typer.Option(help="A video.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    label: Annotated[str, typer.Option(help="What to look for.")] = "person",
    every: Annotated[int, typer.Option(min=1, help="Look at every so many frames.")] = 2,
) -> None:
    """Score a clip once; count rises above the threshold, and events, at several frame rates.

    Example: python -m benchmarks.streams.flicker --clip CLIPS/one-by-one-person-detection.mp4 \
      --out benchmarks/results/streams/flicker.json
    """
    times_s, scores = [], []
    with Recognizer.from_engine(demo_engine()) as recognizer, open_source(clip) as source:
        column = recognizer.labels.index(label)
        settings = merge_stability(recognizer, None)[label]
        threshold = recognizer.thresholds[label]
        for frame in source:
            if frame.index % every == 0 and frame.time_s is not None:
                times_s.append(frame.time_s)
                scores.append(float(recognizer(frame).scores[column]))
        fps = (source.fps or 0.0) / every
    values = np.asarray(scores, np.float32)
    record: dict[str, Any] = {
        "clip": clip.name,
        "label": label,
        "threshold": threshold,
        "settings": vars(settings),
        "by_frame_rate": {
            f"{fps / step:g}": {
                "frames": len(values[::step]),
                "rises_above_threshold": count_flicker(values[::step], threshold),
                "events": find_events(times_s[::step], values[::step], settings),
            }
            for step in (1, 2)
        },
    }
    write_atomically(out, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
