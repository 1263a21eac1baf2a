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
from cmlr_edge.capture.live import LiveSettings, SourceState
from cmlr_edge.capture.pattern import read_number
from cmlr_edge.errors import CaptureError, EngineError, OutputError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import Streams, StreamsSettings
from cmlr_edge.pipeline.batches import BatchSize, FairQueue
from cmlr_edge.sinks import Result
from tests.cmlr_edge.pipeline.stand_ins import Noted, SlowBackend, recognizer_of
from tests.conftest import SIZE_HW, make_spec, mean_color_model, solid, write_video


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


def test_two_recognizers_share_the_frames_and_each_source_stays_in_order(clip: Path) -> None:
    met = threading.Barrier(2)
    backends = [SlowBackend(lambda _: met.wait(20)) for _ in range(2)]
    streams = Streams(
        [recognizer_of(backend) for backend in backends], StreamsSettings(max_batch=1)
    )
    streams.add(open_source(clip))
    assert [result.frame.index for result in streams.results()] == list(range(20))
    assert [len(backend.batches) for backend in backends] == [10, 10]


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
    assert (good.times_closed, bad.times_closed) == (1, 2)


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


def test_batches_are_as_large_as_the_latency_budget_allows() -> None:
    for budget_s, expected in ((100.0, 8), (0.0, 1)):
        backend = SlowBackend(lambda _: threading.Event().wait(0.002))
        settings = StreamsSettings(latency_budget_s=budget_s, frames_ahead=8)
        streams = Streams(recognizer_of(backend), settings)
        for i in range(4):
            uri = "test://?frames=40&fps=0"
            streams.add(open_source(uri, policy="every"), name=str(i))
        assert sum(1 for _ in streams.results()) == 160
        assert sum(backend.batches) == 160
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
