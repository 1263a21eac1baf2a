"""Many sources at once: nobody is lost, late, or stopped by another."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import Recognizer, open_source
from cmlr_edge.capture.images import ImageFiles
from cmlr_edge.capture.live import SourceState
from cmlr_edge.capture.pattern import read_number
from cmlr_edge.errors import CaptureError, EngineError, OutputError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import Streams, StreamsSettings
from cmlr_edge.sinks import Result
from tests.cmlr_edge.pipeline.stand_ins import Noted, SlowBackend, recognizer_of
from tests.conftest import make_spec, mean_color_model, solid, write_video


@pytest.fixture
def recognizer(engine: Path) -> Iterator[Recognizer]:
    with Recognizer.from_engine(engine) as recognizer:
        yield recognizer


def by_source(results: Iterator[Result]) -> dict[str, list[Result]]:
    sorted_out = defaultdict(list)
    for result in results:
        sorted_out[result.source].append(result)
    return sorted_out


def test_results_of_many_files_are_those_of_each_alone_in_order(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    clips = []
    for i in range(3):
        frames = [solid(*rng.integers(0, 255, 3).tolist()) for _ in range(20 + 5 * i)]
        clips.append(write_video(tmp_path / f"{i}.avi", frames))
    streams = Streams(recognizer)
    for clip in clips:
        streams.add(open_source(clip), name=clip.stem)
    together = by_source(streams.results())
    for clip in clips:
        alone = list(recognizer.stream(clip))
        mine = together[clip.stem]
        assert [result.frame.index for result in mine] == list(range(len(alone)))
        for one, other in zip(alone, mine, strict=True):
            np.testing.assert_allclose(one.prediction.scores, other.prediction.scores, atol=1e-6)
            assert [(e.kind, e.label) for e in one.events] == [
                (e.kind, e.label) for e in other.events
            ]
            assert all(event.source == clip.stem for event in other.events)
    assert [status.state for status in streams.status()] == [SourceState.ENDED] * 3
    assert [status.frames for status in streams.status()] == [20, 25, 30]


def test_a_failing_source_and_a_broken_sink_end_alone(recognizer: Recognizer, clip: Path) -> None:
    class Broken(ImageFiles):
        def __iter__(self) -> Iterator[Frame]:
            raise ZeroDivisionError("rtsp://user:hunter2@camera burns")

    def fail() -> None:
        raise OutputError("no space")

    good, bad = Noted(), Noted(fail)
    streams = Streams(recognizer)
    streams.add(Broken("broken", []))
    streams.add(open_source(clip), name="good", sinks=[good])
    streams.add(open_source(clip), name="bad sink", sinks=[bad])
    streams.add(open_source("test://?frames=30&fps=0", policy="every"), name="live", sinks=[bad])
    streams.start()
    assert streams.wait(30)
    streams.close()
    states = {status.name: status for status in streams.status()}
    assert states["broken"].state is states["bad sink"].state is SourceState.FAILED
    assert "hunter2" not in states["broken"].reason
    assert "burns" in states["broken"].reason
    assert states["bad sink"].reason == "no space"
    assert isinstance(streams.error("bad sink"), OutputError)
    assert (states["good"].state, good.frames) == (SourceState.ENDED, list(range(20)))
    assert (states["live"].frames, states["live"].lost) == (30, 30)
    assert (good.times_closed, bad.times_closed) == (1, 1)  # with the last of its two sources


def test_a_sink_that_hangs_stops_no_source_and_closing_does_not_wait_for_it(
    recognizer: Recognizer, clip: Path
) -> None:
    released = threading.Event()
    hanging, good = Noted(lambda: released.wait(30)), Noted()
    streams = Streams(recognizer, StreamsSettings(drain_s=0.3))
    streams.add(open_source("test://?fps=200"), name="hangs", sinks=[hanging])
    streams.add(open_source(clip), name="good", sinks=[good])
    streams.start()
    while good.times_closed == 0:
        assert not streams.wait(0.01)
    start = time.monotonic()
    streams.close()
    assert time.monotonic() - start < 3
    assert good.frames == list(range(20))
    (status, _) = streams.status()
    assert status.state is SourceState.FAILED
    assert status.frames > 0
    assert "did not end" in status.reason
    released.set()


def test_a_slow_taker_makes_live_sources_drop_and_never_grows_the_memory(
    recognizer: Recognizer,
) -> None:
    streams = Streams(recognizer)
    streams.add(open_source("test://?fps=300&frames=150"), name="live")
    shown = []
    for result in streams.results():
        shown.append(read_number(result.frame.image_bgr))
        streams.wait(0.02)  # a taker that needs its time
    assert shown == sorted(set(shown))
    (status,) = streams.status()
    assert status.capture is not None
    assert status.capture.dropped > 50
    assert status.capture.received == status.capture.dropped + len(shown)


def test_another_recognizer_takes_over_between_two_batches_and_no_frame_is_lost() -> None:
    first, second = SlowBackend(), SlowBackend(offset=10.0)
    old, new = recognizer_of(first), recognizer_of(second)
    streams = Streams(old)
    for i in range(3):
        streams.add(open_source("test://?frames=60&fps=200", policy="every"), name=str(i))
    scores = defaultdict(list)
    for count, result in enumerate(streams.results()):
        if count == 60:
            (returned,) = streams.swap(new)
            assert returned is old
            old.close()  # asserts that it does not run
        scores[result.source].append(float(result.prediction.scores[0]))
    for mine in scores.values():
        assert len(mine) == 60
        assert mine == sorted(mine, key=lambda score: score > 5)  # the old, then the new
        assert mine[-1] > 5
    assert sum(first.batches) + sum(second.batches) == 180
    new.close()


def test_a_swap_changes_the_thresholds_of_events_that_go_on() -> None:
    streams = Streams(recognizer_of(SlowBackend(), threshold=0.9))
    sink = Noted()
    ready = threading.Event()
    source = open_source("test://?fps=50")
    streams.add(source, sinks=[sink, Noted(ready.set)])
    with streams:
        streams.start()
        assert ready.wait(20)
        assert not sink.events
        streams.swap(recognizer_of(SlowBackend(), threshold=0.1))
        while len(sink.events) < 3:
            assert not streams.wait(0.01)
    assert [event.kind for event in sink.events] == ["start"] * 3 + ["end"] * 3


def test_recognizers_that_do_not_fit_are_refused(recognizer: Recognizer) -> None:
    other = Recognizer(SlowBackend(), make_spec(mean_color_model(), ("a", "b", "c")))
    with pytest.raises(SpecError, match="same labels"):
        Streams([recognizer, other])
    streams = Streams(recognizer)
    with pytest.raises(SpecError, match="same labels"):
        streams.swap(other)
    with pytest.raises(SpecError, match="1 recognizers work, 2"):
        streams.swap([recognizer, recognizer])
    streams.close()


def test_sources_come_and_go_while_others_run(recognizer: Recognizer) -> None:
    first, second = Noted(), Noted()
    with Streams(recognizer) as streams:
        streams.add(open_source("test://?fps=100"), name="first", sinks=[first])
        streams.start()
        streams.add(open_source("test://?fps=100"), name="second", sinks=[second])
        with pytest.raises(CaptureError, match="two sources are called first"):
            streams.add(open_source("test://"), name="first")
        while not second.frames:
            assert not streams.wait(0.01)
        assert streams.remove("first").state is SourceState.ENDED
        assert first.times_closed == 1
        seen = len(second.frames)
        while len(second.frames) < seen + 5:
            assert not streams.wait(0.01)
        assert [status.name for status in streams.status()] == ["second"]
        with pytest.raises(CaptureError, match="no source is called first"):
            streams.latest("first")
    assert second.times_closed == 1


def test_ending_answers_what_was_taken_and_ends_open_events() -> None:
    sink = Noted()
    streams = Streams(recognizer_of(SlowBackend(), threshold=0.1))
    streams.add(open_source("test://?fps=100"), sinks=[sink])
    results = []
    for result in streams.results():
        results.append(result)
        if len(sink.events) >= 3:
            streams.request_end()
    assert [result.frame.index for result in results] == sink.frames
    assert [event.kind for event in sink.events] == ["start"] * 3 + ["end"] * 3


def test_a_model_that_fails_ends_the_run_with_its_error() -> None:
    def fail(_: int) -> None:
        raise EngineError("the device is gone")

    sink = Noted()
    streams = Streams(recognizer_of(SlowBackend(fail)))
    streams.add(open_source("test://"), name="a", sinks=[sink])
    streams.add(open_source("test://"), name="b")
    with pytest.raises(EngineError, match="the device is gone"):
        list(streams.results())
    assert sink.times_closed == 1
    assert {status.state for status in streams.status()} == {SourceState.FAILED}


def test_a_model_that_fails_does_not_wait_for_a_source_that_hangs() -> None:
    released = threading.Event()

    class Hanging(ImageFiles):
        def __iter__(self) -> Iterator[Frame]:
            released.wait(30)
            yield from ()

    def fail(_: int) -> None:
        raise EngineError("the device is gone")

    streams = Streams(recognizer_of(SlowBackend(fail)), StreamsSettings(drain_s=0.3))
    streams.add(Hanging("hangs", []))
    streams.add(open_source("test://"), name="a")
    start = time.monotonic()
    with pytest.raises(EngineError, match="the device is gone"):
        list(streams.results())
    assert time.monotonic() - start < 5
    released.set()


def test_a_source_that_never_started_can_be_removed_and_none_is_added_to_an_ended_run(
    recognizer: Recognizer,
) -> None:
    streams, sink = Streams(recognizer), Noted()
    streams.add(open_source("test://"), name="a", sinks=[sink])
    assert streams.remove("a").state is SourceState.ENDED
    assert sink.times_closed == 1
    streams.request_end()
    with open_source("test://") as late, pytest.raises(CaptureError, match="is ending"):
        streams.add(late)
    with pytest.raises(SpecError, match="at least one"):
        Streams([])


def test_no_thread_is_left_behind(recognizer: Recognizer) -> None:
    before = threading.active_count()
    for leave_at in (0, 5, None):
        streams = Streams(recognizer)
        for i in range(3):
            streams.add(open_source("test://?fps=200&frames=20"), name=str(i))
        for count, _ in enumerate(streams.results()):
            if count == leave_at:
                break
        streams.close()
        streams.close()
    Streams(recognizer).close()
    unstarted = Streams(recognizer)
    sink = Noted()
    unstarted.add(open_source("test://"), sinks=[sink])
    unstarted.close()
    unstarted.close()
    assert sink.times_closed == 1
    assert threading.active_count() == before


def test_latest_and_latencies_are_told_per_source(recognizer: Recognizer) -> None:
    with Streams(recognizer) as streams:
        streams.add(open_source("test://?fps=100"), name="a")
        assert streams.latest("a") is None
        assert streams.status()[0].latency_ms == {}
        streams.start()
        while (latest := streams.latest("a")) is None or latest.frame.index < 10:
            assert not streams.wait(0.01)
        (status,) = streams.status()
    assert latest.prediction.scores.shape == (3,)
    assert latest.frame.image_bgr.shape == (240, 320, 3)
    assert set(status.latency_ms) == {
        "capture", "preprocess", "inference", "postprocess", "total", "capture_to_label",
    }  # fmt: skip
    for ranks in status.latency_ms.values():
        assert 0 <= ranks["p50"] <= ranks["p95"] <= ranks["p99"]
    latency = status.latency_ms
    assert latency["capture_to_label"]["p50"] >= latency["inference"]["p50"]
    assert status.frames_per_second == pytest.approx(100, rel=0.5)


def test_a_source_of_somebody_else_whose_times_go_back_gives_times_that_rise(
    recognizer: Recognizer,
) -> None:
    class Odd(ImageFiles):
        fps: float | None = 10.0

        def __iter__(self) -> Iterator[Frame]:
            for index, time_s in enumerate([float("nan"), 0.0, 5.0, 5.0, 1.0, float("nan"), 6.0]):
                yield Frame(solid(250, 5, 5), index, time_s, 0.0, 0.0, "odd")

    with Streams(recognizer) as streams:
        streams.add(Odd("odd", []))
        times = [result.frame.time_s for result in streams.results()]
    assert times == pytest.approx([0, 0.001, 5, 5.001, 5.002, 5.003, 6])


def test_an_end_does_not_wait_for_a_source_that_hangs_for_ever(recognizer: Recognizer) -> None:
    released = threading.Event()

    class Hanging(ImageFiles):
        def __iter__(self) -> Iterator[Frame]:
            released.wait(30)
            yield from ()

    streams = Streams(recognizer, StreamsSettings(drain_s=0.3))
    streams.add(Hanging("hangs", []))
    streams.add(open_source("test://?fps=100"), name="good")
    start = time.monotonic()
    for _ in streams.results():
        streams.request_end()
    assert time.monotonic() - start < 3
    states = [status.state for status in streams.status()]
    assert states == [SourceState.FAILED, SourceState.ENDED]
    released.set()
