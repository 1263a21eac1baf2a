"""How frames of many sources become batches: large ones in time, and in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import Recognizer, open_source
from cmlr_edge.capture.live import LiveSettings
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import Streams, StreamsSettings
from cmlr_edge.pipeline.seats import BatchSize, FairQueue
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of
from tests.conftest import SIZE_HW


@pytest.fixture
def recognizer(engine: Path) -> Iterator[Recognizer]:
    with Recognizer.from_engine(engine) as recognizer:
        yield recognizer


def test_two_recognizers_share_the_frames_and_each_source_stays_in_order(clip: Path) -> None:
    met = threading.Barrier(2)
    backends = [SlowBackend(lambda _: met.wait(20)) for _ in range(2)]
    streams = Streams(
        [recognizer_of(backend) for backend in backends], StreamsSettings(max_batch=1)
    )
    streams.add(open_source(clip))
    assert [result.frame.index for result in streams.results()] == list(range(20))
    assert [len(backend.batches) for backend in backends] == [10, 10]


def test_batches_are_as_large_as_the_latency_budget_allows() -> None:
    for budget_s, expected in ((100.0, 8), (0.0, 1)):
        backend = SlowBackend(lambda _: threading.Event().wait(0.01))
        settings = StreamsSettings(latency_budget_s=budget_s, frames_ahead=8)
        streams = Streams(recognizer_of(backend), settings)
        for i in range(4):
            uri = "test://?frames=20&fps=0"
            streams.add(open_source(uri, policy="every"), name=str(i))
        assert sum(1 for _ in streams.results()) == 80
        assert sum(backend.batches) == 80
        assert max(backend.batches) == expected


def test_the_batch_size_follows_the_time_that_the_model_needs() -> None:
    size = BatchSize(max_batch=8, run_budget_s=0.1)
    for _ in range(20):
        size.learn(size.limit, 0.02 * size.limit)
    assert size.limit == 5  # 5 * 0.02 s
    size.learn(5, 0.25)  # slower now: 0.05 s each
    assert size.limit == 2
    for _ in range(20):
        size.learn(size.limit, 0.001)
    assert size.limit == 8
    size.learn(1, 5.0)
    assert size.limit == 1
    patient = BatchSize(max_batch=2, run_budget_s=float("inf"))
    for _ in range(3):
        patient.learn(patient.limit, 1.0)
    assert patient.limit == 2


def test_owners_are_served_in_turn_whoever_put_most() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.put(item[0], item)
    assert queue.take(2) == ["a1", "b1"]
    assert queue.take(3) == ["c1", "a2", "c2"]
    queue.put("b", "b2")
    assert queue.take(9) == ["a3", "b2"]
    queue.close()
    assert queue.take(1) == []


def test_frames_that_waited_too_long_for_the_model_are_stale() -> None:
    waited = threading.Event()
    backend = SlowBackend(lambda _: waited.wait(0.3))
    streams = Streams(recognizer_of(backend))
    live = LiveSettings(stale_after_s=0.2)
    streams.add(open_source("test://?fps=100", live=live))
    for count, result in enumerate(streams.results()):
        if count == 0:
            assert result.frame.status == "ok"
        elif count == 1:  # taken at once, then it waited for the first batch
            assert (result.frame.status, result.prediction.valid) == ("stale", False)
            waited.set()
        elif count > 3:
            assert result.frame.status == "ok"
            break


def test_prepared_frames_give_what_a_call_gives(recognizer: Recognizer) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40 + i, 50, 3), dtype=np.uint8) for i in range(3)]
    frames = [Frame(image, i, None, 5.0, 1.5, "x") for i, image in enumerate(images)]
    prepared = [recognizer.prepare(frame) for frame in frames]
    assert prepared[0].pixels.shape == (*SIZE_HW, 3)
    for frame, prediction in zip(frames, recognizer.recognize_prepared(prepared), strict=True):
        np.testing.assert_allclose(prediction.scores, recognizer(frame).scores, atol=1e-6)
        assert (prediction.captured_at, prediction.latency_ms.capture) == (5.0, 1.5)
    assert recognizer.recognize_prepared([]) == []
