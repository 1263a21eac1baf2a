"""Sources and outputs of whoever uses the SDK, and what they must not be able to do to each other."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge import Recognizer
from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.capture.live import SourceState
from cmlr_edge.errors import CaptureError, OutputError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import Streams
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.guarded import GuardedSink
from tests.cmlr_edge.pipeline.stand_ins import SlowBackend, recognizer_of


class Own(ClosesItself):
    """Two frames, and then what a test wants."""

    name, num_frames, fps, files = "own", None, 5.0, ()

    def __init__(self, *times_s: float, ends: type[BaseException] | None = None) -> None:
        self.times_s, self.ends = times_s, ends

    def __iter__(self) -> Iterator[Frame]:
        for index, time_s in enumerate(self.times_s):
            yield Frame(np.zeros((4, 6, 3), np.uint8), index, time_s, 1.0, 0.1, "own")
        if self.ends is not None:
            raise self.ends("I go")


@pytest.fixture
def streams() -> Iterator[Streams]:
    with Streams(recognizer_of(SlowBackend())) as streams:
        yield streams


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ZeroDivisionError])
def test_a_source_that_wants_to_end_the_process_has_failed(
    streams: Streams, kind: type[BaseException]
) -> None:
    streams.add(Own(0.0, 0.2, ends=kind))
    streams.start()
    assert streams.wait(20)
    [status] = streams.status()
    assert (status.state, status.reason) == (SourceState.FAILED, "I go")


def test_times_without_end_are_mended(streams: Streams) -> None:
    streams.add(Own(0.0, math.inf, math.nan, -math.inf, 0.5))
    times_s = [result.frame.time_s for result in streams.results()]
    assert times_s == pytest.approx([0.0, 0.001, 0.002, 0.003, 0.5])
    json.dumps(times_s, allow_nan=False)


class Painting:
    """An output that draws on what others get too."""

    def __init__(self, what: str) -> None:
        self.what = what

    def write(self, result: Result) -> None:
        array = result.frame.image_bgr if self.what == "picture" else result.prediction.scores
        array[:] = 7

    def close(self) -> None:
        """Nothing to finish."""


class Seeing:
    """An output that keeps what it was given."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        """Nothing to finish."""


@pytest.mark.parametrize("what", ["picture", "scores"])
def test_no_output_changes_what_the_others_get(streams: Streams, what: str) -> None:
    painting, seeing = GuardedSink(Painting(what)), Seeing()
    streams.add(Own(0.0, 0.2), sinks=[painting, GuardedSink(seeing)])
    streams.start()
    assert streams.wait(20)
    assert painting.lost == 2
    assert "read-only" in painting.status().reason
    assert all(result.frame.image_bgr.max() == 0 for result in seeing.results)
    assert all(result.prediction.scores.max() == 0 for result in seeing.results)


def test_whoever_takes_results_may_draw_on_the_picture(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        for result in recognizer.stream(clip):
            result.frame.image_bgr[:] = 7


@pytest.mark.parametrize("source", [None, ["test://"], b"test://", np.zeros((4, 6, 3)), 0.5])
def test_what_is_no_source_is_refused_in_words(streams: Streams, source: Any) -> None:
    with pytest.raises(CaptureError, match=f"^{type(source).__name__} is no source: give one"):
        streams.add(source)


@pytest.mark.parametrize("sink", [None, object(), "labels.jsonl", print])
def test_what_is_no_output_is_refused_and_not_lost_in_silence(streams: Streams, sink: Any) -> None:
    with pytest.raises(OutputError, match=f"^{type(sink).__name__} is no output"):
        streams.add(Own(0.0), sinks=[sink])
    assert streams.status() == ()


class Watched(Seeing):
    """An output that notes threads that write at once, and whatever comes after its end."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self._is_writing = self._is_closed = False

    def write(self, result: Result) -> None:
        self.faults += ["two at once"] * self._is_writing + ["closed"] * self._is_closed
        self._is_writing = True
        time.sleep(0.002)
        super().write(result)
        self._is_writing = False

    def close(self) -> None:
        self.faults += ["closed twice"] * self._is_closed
        self._is_closed = True


@pytest.mark.parametrize("guarded", [False, True])
def test_an_output_of_two_sources_is_written_in_turn_and_closed_with_the_last(
    streams: Streams, *, guarded: bool
) -> None:
    watched, failing = Watched(), Painting("picture")
    sinks = [GuardedSink(watched) if guarded else watched, GuardedSink(failing)]
    streams.add(Own(*np.arange(5) / 5), name="a", sinks=[*sinks, sinks[0]])
    streams.add(Own(*np.arange(90) / 5), name="b", sinks=sinks)
    streams.start()
    assert streams.wait(20)
    streams.close()
    assert watched.faults == []
    assert Counter(result.source for result in watched.results) == {"a": 5, "b": 90}
    assert {status.name: status.lost for status in streams.status()} == {"a": 5, "b": 90}
    streams.close()


@pytest.mark.parametrize("number", [0, -1, 1.5, "3", float("nan")])
def test_a_number_of_frames_is_a_whole_one(streams: Streams, number: Any) -> None:
    with pytest.raises(SpecError, match=f"max_frames is {number}: expected a whole number"):
        streams.add(Own(0.0), max_frames=number)
