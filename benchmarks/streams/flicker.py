"""`python -m benchmarks.streams.flicker`: how often a label comes and goes, with and without hysteresis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cmlr_edge import Frame, Recognizer, demo_engine, open_source
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.stability import LabelStability
from cmlr_edge.pipeline.outlet import judge_by
from train.reporting import exit_on_error

_VISITS = Path(__file__).with_name("visits.json")
_BETWEEN = 3  # frames made of each frame of the clip, for a rate that it does not have
_BATCH = 4


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


def blend(first: Frame, second: Frame, share: float) -> NDArray[np.uint8]:
    """What a camera would have seen between two frames, roughly: a mixture of both."""
    mixed = first.image_bgr * (1 - share) + second.image_bgr * share
    return np.rint(mixed).astype(np.uint8)


def score_clip(recognizer: Recognizer, clip: Path) -> tuple[float, NDArray[np.float32]]:
    """Recognise a clip, and two blended frames between each two of its own.

    Returns:
        Frames per second of the clip; scores (N, L), where every third row is a frame of the clip.
    """
    rows: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.uint8]] = []
    with open_source(clip) as source:
        before: Frame | None = None
        for frame in source:
            if before is not None:
                waiting += [blend(before, frame, i / _BETWEEN) for i in range(1, _BETWEEN)]
            waiting.append(frame.image_bgr)
            before = frame
            if len(waiting) >= _BATCH:
                rows += [item.scores for item in recognizer.recognize_batch(waiting)]
                waiting = []
        rows += [item.scores for item in recognizer.recognize_batch(waiting)]
        if source.fps is None:
            raise typer.BadParameter(f"{clip} does not say how many frames it has per second")
        return source.fps, np.stack(rows)


def decimate(fps: float, scores: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The same scores as cameras of other rates would have seen them, by frames per second.

    Args:
        fps: Of the clip.
        scores: (N,), as from `score_clip`.
    """
    own = scores[::_BETWEEN]
    return {
        f"{fps / 2:g}": own[::2],
        f"{fps:g}": own,
        f"{fps * _BETWEEN:g}": scores,
        f"{fps * _BETWEEN:g}, each frame shown {_BETWEEN} times": np.repeat(own, _BETWEEN),
    }


def report_rates(
    fps: float,
    scores: NDArray[np.float32],
    threshold: float,
    settings: LabelStability,
) -> dict[str, Any]:
    """Rises and events of one label at each rate; `scores` (N,) as from `score_clip`."""
    report = {}
    for name, values in decimate(fps, scores).items():
        rate = float(name.partition(",")[0])
        times_s = [index / rate for index in range(len(values))]
        report[name] = {
            "frames": len(values),
            "rises_above_threshold": count_flicker(values, threshold),
            "events": find_events(times_s, values, settings),
        }
    return report


def main(
    clip: Annotated[Path, typer.Option(help="A video.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    label: Annotated[str, typer.Option(help="What to look for.")] = "person",
) -> None:
    """Score a clip once; count rises above the threshold, and events, at several frame rates.

    Example: python -m benchmarks.streams.flicker --clip CLIPS/one-by-one-person-detection.mp4 \
      --out benchmarks/results/streams/flicker.json
    """
    with Recognizer.from_engine(demo_engine()) as recognizer:
        fps, scores = score_clip(recognizer, clip)
        settings, thresholds = judge_by(recognizer, None).stability, recognizer.thresholds
    columns = list(thresholds)
    by_label = {
        name: report_rates(fps, scores[:, columns.index(name)], thresholds[name], settings[name])
        for name in columns
    }
    record: dict[str, Any] = {
        "clip": clip.name,
        "clip_fps": fps,
        "label": label,
        "threshold": thresholds[label],
        "settings": vars(settings[label]),
        "visits": json.loads(_VISITS.read_text()).get(clip.name, {}).get(label),
        "by_frame_rate": by_label[label],
        "all_labels_by_frame_rate": {
            rate: {
                "rises_above_threshold": sum(
                    item[rate]["rises_above_threshold"] for item in by_label.values()
                ),
                "events": sum(len(item[rate]["events"]) for item in by_label.values()),
            }
            for rate in by_label[label]
        },
        # Of the label; every third is a frame of the clip, the others are blended.
        "scores": [round(float(score), 5) for score in scores[:, columns.index(label)]],
    }
    write_atomically(out, (json.dumps(record, allow_nan=False, indent=1) + "\n").encode())


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
