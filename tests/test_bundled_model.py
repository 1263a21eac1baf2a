"""The bundled model on the photos and clips it is said to work on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import Recognizer, demo_engine, open_source
from train.data import read_dataset
from train.judging.metrics import average_precisions

pytestmark = pytest.mark.slow

FOLDER = demo_engine().parent


def presence(clip: Path, label: str, times_s: list[float]) -> list[bool]:
    """Whether the label is reported in most of the second around each time."""
    seen: dict[float, list[bool]] = {time: [] for time in times_s}
    with Recognizer.from_engine(demo_engine()) as recognizer, open_source(clip) as frames:
        for frame in frames:
            assert frame.time_s is not None
            near = [time for time in times_s if abs(frame.time_s - time) <= 0.5]
            if near:
                names = [item.label for item in recognizer(frame).labels]
                seen[near[0]].append(label in names)
    return [2 * sum(votes) > len(votes) for votes in seen.values()]


def test_the_bundled_model_is_small_and_has_80_labels() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 16e6
    with Recognizer.from_engine(demo_engine()) as recognizer:
        assert len(recognizer.labels) == 80
        assert {"person", "car", "bicycle"} <= set(recognizer.labels)


def test_the_metrics_in_the_card_are_those_of_the_engine_on_the_photos(photos: Path) -> None:
    part = read_dataset(photos).split("val")
    with Recognizer.from_engine(demo_engine()) as recognizer:
        scores = []
        for image in part.images:
            with open_source(image.path) as frames:
                scores.append(recognizer(next(iter(frames))).scores)
    measured = np.nanmean(average_precisions(np.stack(scores), part.targets(), min_positives=3))
    metrics = json.loads((FOLDER / "metrics.json").read_text())["read_outs"]["deployed"]
    assert measured == pytest.approx(metrics["mean_ap"], abs=1e-3)
    assert measured >= 0.70
    assert f"{metrics['mean_ap']:.3f}" in (FOLDER / "MODEL_CARD.md").read_text()


def test_person_comes_and_goes_with_the_person(clips: Path) -> None:
    """Times judged by eye: nobody at first, then visitors with the empty room between them."""
    clip = clips / "one-by-one-person-detection.mp4"
    there = [12.8, 25.6, 38.4, 51.2, 64.0, 78.0, 100.8, 113.6, 126.4]
    nobody = [0.6, 48.0, 72.0, 88.0, 138.0]
    assert presence(clip, "person", there) == [True] * len(there)
    assert presence(clip, "person", nobody) == [False] * len(nobody)
