"""Scenes that stay the same: the model rests, and nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from cmlr_edge.capture.images import ImageFiles
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import Streams
from cmlr_edge.sinks import Result
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of
from tests.conftest import solid


class Played(ImageFiles):
    """Frames made by a formula, as a clip that was decoded already."""

    fps = 25.0

    def __init__(self, images: list[np.ndarray], fps: float = 25) -> None:
        super().__init__("played", [])
        self._images, self._step_s = images, 1 / fps

    def __iter__(self) -> Iterator[Frame]:
        for index, image in enumerate(self._images):
            yield Frame(image, index, index * self._step_s, 1e9 + index, 0.1, "played")


def play(
    images: list[np.ndarray], skip_unchanged_s: float | None
) -> tuple[list[Result], SlowBackend]:
    backend = SlowBackend()
    streams = Streams(recognizer_of(backend))
    streams.add(Played(images), skip_unchanged_s=skip_unchanged_s)
    return list(streams.results()), backend


def starts(results: list[Result]) -> dict[str, float]:
    events = [event for result in results for event in result.events]
    return {event.label: event.time_s for event in events if event.kind == "start"}


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)


def test_a_still_scene_costs_a_tenth_of_the_inference_and_every_frame_has_its_result() -> None:
    rng = np.random.default_rng(3)
    images = [noisy(solid(200, 40, 40, (120, 160)), rng) for _ in range(250)]  # 10 s
    results, backend = play(images, skip_unchanged_s=2.0)
    plain, _ = play(images, None)
    assert sum(backend.batches) == 5  # at 0, 2, 4, 6 and 8 s
    assert [result.prediction.repeated for result in results].count(False) == 5
    assert [result.frame.index for result in results] == list(range(250))
    assert all(result.prediction.labels[0].label == "red" for result in results)
    assert [result.prediction.captured_at for result in results] == [1e9 + i for i in range(250)]
    assert starts(results) == starts(plain) == {"red": pytest.approx(0.52, abs=0.05)}


def test_a_change_is_seen_at_once_and_one_too_small_to_see_within_the_bound() -> None:
    still = solid(100, 40, 40, (120, 160))
    there = still.copy()
    there[:60, :80] = (40, 40, 255)  # an object in a quarter of the picture
    for changed, bound_s in ((there, 0.0), (solid(104, 40, 40, (120, 160)), 2.0)):
        images = [still] * 110 + [changed] * 140
        level = float(changed[..., 2].mean()) / 255
        streams = Streams(recognizer_of(backend := SlowBackend(), threshold=level - 0.005))
        streams.add(Played(images), skip_unchanged_s=2.0)
        skipping = starts(list(streams.results()))
        streams = Streams(recognizer_of(SlowBackend(), threshold=level - 0.005))
        streams.add(Played(images))
        plain = starts(list(streams.results()))
        assert plain.keys() == skipping.keys() == {"red"}
        assert 0 <= skipping["red"] - plain["red"] <= bound_s + 1e-9
        assert sum(backend.batches) <= 8


def test_nothing_invalid_is_repeated_for_longer_than_a_moment() -> None:
    calls = []

    class OnceNan(SlowBackend):
        def infer(self, frames: np.ndarray) -> np.ndarray:
            calls.append(len(frames))
            scores = super().infer(frames)
            return scores * np.nan if len(calls) == 1 else scores

    streams = Streams(recognizer_of(OnceNan()))
    streams.add(Played([solid(200, 0, 0)] * 100), skip_unchanged_s=60)
    valid = [result.prediction.valid for result in streams.results()]
    assert not valid[0]
    assert all(valid[10:])
    assert len(calls) < 10
