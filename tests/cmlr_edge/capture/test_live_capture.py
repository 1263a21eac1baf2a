"""Live sources with every fault of `test://`, and with readers that misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmlr_edge import Recognizer, open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource, SourceState
from cmlr_edge.capture.pattern import draw_pattern, read_number
from cmlr_edge.capture.readers import EndOfSource, Grab, csi_pipeline, require_backend
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.backoff import Backoff
from tests.conftest import solid, write_video

QUICK = LiveSettings(
    open_timeout_s=0.3,
    read_timeout_s=0.05,
    hang_timeout_s=0.15,
    first_frame_timeout_s=5,
    backoff_first_s=0.01,
    backoff_max_s=0.05,
    frozen_after_s=0.1,
)
# Where nothing hangs, a busy machine shall not seem to.
PATIENT = replace(QUICK, read_timeout_s=10, hang_timeout_s=20)


@contextmanager
def opened(
    uri: str | Path, settings: LiveSettings = QUICK, **options: object
) -> Iterator[LiveSource]:
    with open_source(uri, live=settings, **options) as source:  # type: ignore[arg-type]
        assert isinstance(source, LiveSource)
        yield source


def numbers(frames: list[Frame]) -> list[int]:
    return [read_number(frame.image_bgr) for frame in frames]


def test_the_number_of_a_pattern_is_read_back() -> None:
    for number in (0, 1, 777, 65535):
        assert read_number(draw_pattern(number, (120, 160))) == number


def test_the_policy_every_delivers_every_frame_in_order() -> None:
    with opened("test://?fps=0&frames=200", PATIENT, policy="every") as source:
        frames = list(source)
    assert numbers(frames) == [frame.index for frame in frames] == list(range(200))
    assert source.state is SourceState.ENDED
    assert source.stats.dropped == 0


def test_a_slow_taker_gets_newer_frames_and_every_drop_is_counted() -> None:
    with opened("test://?fps=500&frames=300", PATIENT) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            threading.Event().wait(0.02)
    assert numbers(frames) == sorted(set(numbers(frames)))
    assert read_number(frames[-1].image_bgr) == 299
    assert source.stats.dropped > 100
    assert source.stats.received == source.stats.delivered + source.stats.dropped == 300


def test_a_hang_is_a_timeout_then_a_new_connection_and_no_frame_comes_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = replace(QUICK, hang_timeout_s=1.5)  # no pause of a busy machine
    with opened("test://?fps=200&frames=80&hang=40:2", settings) as source:
        source.call("door")  # as the run does
        frames = list(source)
        assert source.state is SourceState.ENDED
    states = [record.getMessage().split(": ")[1].split()[0] for record in caplog.records]
    shown = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert shown[-1] == "door: ok again"  # who was told of the trouble is told of its end
    # A busy machine may pause for longer than a frame may take, and go on.
    changes = " ".join(states).replace("timeout ok ", "")
    assert changes == "ok timeout reconnecting ok ended"
    assert source.stats.reconnects == 1
    got = numbers(frames)
    assert got == sorted(set(got))
    assert 40 not in got  # what the abandoned read returned later is thrown away


def test_next_frame_never_waits_longer_than_it_was_told() -> None:
    with opened("test://?fps=200&hang=5:2", replace(QUICK, hang_timeout_s=60)) as source:
        while source.next_frame(0.05) is not None:
            pass
        start = time.monotonic()
        assert source.next_frame(0.1) is None
        assert time.monotonic() - start < 0.5
        assert source.state is SourceState.TIMEOUT


class Broadcast:
    """A reader of five pictures: of a broadcast, or of its recording, which has its own times."""

    fps, receives = 50.0, True

    def __init__(self, *, is_recording: bool) -> None:
        self._is_recording, self._given = is_recording, 0

    def read(self) -> Grab | None:
        if self._given == 5:
            if self._is_recording:
                raise EndOfSource
            return None
        self._given += 1
        film_s = self._given / 50 if self._is_recording else None
        return Grab(
            solid(50 * self._given, 0, 255 * self._is_recording), time.time(), film_s=film_s
        )

    def close(self) -> None:
        """Nothing is open."""


def test_a_broadcast_that_ends_and_begins_again_gives_no_recording_and_is_not_over() -> None:
    kinds = [False, True, True, *[False] * 99]

    def open_reader() -> Broadcast:
        return Broadcast(is_recording=kinds.pop(0))

    with LiveSource("news", open_reader, PATIENT, policy="every") as source:
        frames = [frame for _ in range(10) if (frame := source.next_frame(20)) is not None]
    assert len(frames) == 10
    colours = [tuple(int(value) for value in frame.image_bgr[0, 0]) for frame in frames]
    assert colours == [(0, 0, 50 * number) for number in range(1, 6)] * 2  # none of the recording
    times = [frame.time_s or 0.0 for frame in frames]
    assert times == sorted(times)


def test_a_lost_camera_comes_back_soon_after_its_return() -> None:
    with opened("test://?fps=100&frames=60&none=30:0.4", LiveSettings()) as source:
        frames = list(source)
    gap_s = max(np.diff([frame.time_s for frame in frames if frame.time_s is not None]))
    assert 0.4 <= gap_s < 0.4 + 2.0
    assert source.stats.reconnects >= 1
    assert set(range(31, 60)) & set(numbers(frames))


def test_a_frozen_picture_is_marked_until_it_moves_again() -> None:
    with opened("test://?fps=50&frames=70&frozen=20:40", PATIENT, policy="every") as source:
        frames = list(source)
    frozen = [frame.index for frame in frames if frame.status == "frozen"]
    assert frozen == list(range(frozen[0], 60))
    before_s, since_s = (
        frames[i].captured_at - frames[20].captured_at for i in (frozen[0] - 1, frozen[0])
    )
    assert before_s - 0.05 < 0.1 < since_s + 0.05  # however late a busy machine shows them
    assert source.stats.frozen == len(frozen)


def test_a_frame_that_waited_too_long_is_stale() -> None:
    late_s = [0.0]
    reader_done = threading.Event()

    class OneFrame:
        fps: float | None = None
        left = 1

        def read(self) -> Grab | None:
            if self.left:
                self.left -= 1
                return Grab(solid(1, 2, 3), 0.0)
            reader_done.wait(10)
            return None

        def close(self) -> None:
            pass

    settings = LiveSettings(read_timeout_s=1e6, hang_timeout_s=1e6)
    source = LiveSource("x", OneFrame, settings, clock=lambda: time.monotonic() + late_s[0])
    while source.stats.received == 0:
        threading.Event().wait(0.001)
    late_s[0] = 3.0
    frame = source.next_frame(1)
    reader_done.set()
    source.close()
    assert frame is not None
    assert frame.status == "stale"
    assert source.stats.stale == 1


@pytest.mark.slow
def test_a_frozen_or_stale_frame_is_an_invalid_prediction(engine: Path) -> None:
    frame = Frame(solid(250, 5, 5), 0, 0.0, 0.0, 0.0, "x")
    with Recognizer.from_engine(engine) as recognizer:
        assert recognizer(frame).valid
        for status in ("frozen", "stale"):
            prediction = recognizer(replace(frame, status=status))
            assert not prediction.valid
            assert prediction.labels == ()


def test_size_clock_burst_and_drop_faults_come_as_ordered() -> None:
    uri = "test://?fps=50&frames=60&resize=10:640x480&clock=20:-3600&burst=30:5&drop=40:7"
    with opened(uri, PATIENT, policy="every") as source:
        frames = {read_number(frame.image_bgr): frame for frame in source}
    assert sorted(frames) == [*range(41), *range(48, 60)]
    assert frames[9].image_bgr.shape == (240, 320, 3)
    assert frames[10].image_bgr.shape == (480, 640, 3)
    assert frames[20].captured_at - frames[19].captured_at == pytest.approx(-3600, abs=1)
    times = [frame.time_s for frame in frames.values() if frame.time_s is not None]
    assert times == sorted(times)
    assert times[20] - times[19] < 1
    assert times[30] - times[29] > 4 / 50  # five frames late ...
    gaps_s = sorted(after - before for before, after in pairwise(times[30:35]))
    assert gaps_s[2] < 1 / 100  # ... all at once, but where the machine is busy


def test_a_source_that_never_gives_a_frame_fails_with_its_reason() -> None:
    def refuse() -> OpenNothing:
        raise CaptureError("cannot open rtsp://admin:hunter2@cam/1")

    settings = replace(QUICK, first_frame_timeout_s=0.1)
    with LiveSource("rtsp://admin:hunter2@cam/1", refuse, settings) as source:
        with pytest.raises(CaptureError, match="never gave a frame") as caught:
            list(source)
        assert source.state is SourceState.FAILED
        assert "hunter2" not in str(caught.value) + source.reason + source.name


@pytest.mark.parametrize("receives", [True, False])
def test_a_stream_that_is_joined_long_before_a_key_picture_is_waited_for(receives: bool) -> None:
    key_s = time.monotonic() + 0.6  # four times what a connection without a frame is given

    class Joined:
        fps: float | None = None

        def __init__(self) -> None:
            self.receives = receives

        def read(self) -> Grab | None:
            threading.Event().wait(max(0.05, key_s - time.monotonic()))
            return Grab(draw_pattern(1, (120, 160)), 0.0)

        def close(self) -> None:
            pass

    with LiveSource("x", Joined, QUICK) as source:
        assert source.next_frame(5) is not None
        assert (source.stats.reconnects == 0) == receives


class OpenNothing:
    fps: float | None = None

    def read(self) -> Grab | None:
        raise RuntimeError("the driver broke")

    def close(self) -> None:
        pass


def test_a_reader_that_raises_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(QUICK, first_frame_timeout_s=None)
    with LiveSource("x", OpenNothing, settings) as source:
        while source.stats.reconnects < 3:
            assert source.next_frame(0.01) is None
        assert source.state is SourceState.RECONNECTING
    assert "the driver broke" in caplog.text


@pytest.mark.parametrize(
    ("frames", "told"), [(0, "no frames came: "), (1, "no more frames came: ")]
)
def test_the_end_tells_whether_a_source_that_is_away_ever_gave_a_frame(
    frames: int, told: str
) -> None:
    left = [Grab(draw_pattern(1, (120, 160)), 0.0)] * frames

    class GivesFew(OpenNothing):
        def read(self) -> Grab | None:
            return left.pop() if left else super().read()

    with LiveSource("x", GivesFew, PATIENT) as source:
        while source.state is not SourceState.RECONNECTING:
            source.next_frame(0.01)
    assert source.reason.startswith(told)


def test_an_open_that_hangs_is_given_up_and_closing_does_not_wait_for_it() -> None:
    release, calls = threading.Event(), []

    def hang() -> OpenNothing:
        calls.append(1)
        release.wait(20)
        raise CaptureError("too late")

    settings = replace(QUICK, open_timeout_s=0.02, first_frame_timeout_s=None)
    source = LiveSource("x", hang, settings)
    while len(calls) < 2:
        source.next_frame(0.01)
    assert source.next_frame(0.2) is None
    assert len(calls) == 2  # hung threads do not pile up
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 3
    release.set()


def test_threads_return_to_the_start_after_closing() -> None:
    before = set(threading.enumerate())
    for _ in range(5):
        with opened("test://?fps=200&none=3&none=6") as source:
            for _ in range(10):
                source.next_frame(1)
    for thread in set(threading.enumerate()) - before:
        thread.join(1)  # it may be in its last line
    assert set(threading.enumerate()) <= before


def test_delays_double_up_to_the_longest_and_are_scattered_by_half() -> None:
    highest, lowest = Backoff(0.2, 1.5, lambda: 1.0), Backoff(0.2, 1.5, lambda: 0.0)
    expected = [0.2, 0.4, 0.8, 1.5, 1.5]
    assert [highest.next_s() for _ in expected] == pytest.approx(expected)
    assert [lowest.next_s() for _ in expected] == pytest.approx([x / 2 for x in expected])
    highest.reset()
    assert highest.next_s() == pytest.approx(0.2)
    for _ in range(5000):
        assert lowest.next_s() <= 1.5


def test_a_file_under_the_policy_newest_plays_at_its_own_pace(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", [solid(10 * i, 0, 0) for i in range(20)], fps=50)
    start = time.monotonic()
    with opened(path, PATIENT, policy="newest") as source:
        frames = list(source)
    assert time.monotonic() - start >= 19 / 50
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert source.state is SourceState.ENDED


def test_a_file_that_loops_starts_again_at_its_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", [solid(60 * i, 0, 0) for i in range(4)], fps=50)
    with open_source(path, policy="newest", loop=True) as source:
        reds = [frame.image_bgr[0, 0, 2] // 50 for frame, _ in zip(source, range(12), strict=False)]
    assert sum(after < before for before, after in pairwise(reds)) >= 2


def test_pictures_have_no_newest(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), solid(1, 2, 3))
    with pytest.raises(CaptureError, match="policy"):
        open_source(tmp_path, policy="newest")
    with pytest.raises(CaptureError, match="newest"):
        open_source(tmp_path, policy="latest")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    ["fps=x", "fps=-3", "size=5x5", "size=99999x99999", "hang=1", "hang=1:-2", "frozen=a:3", "nosuch=1",
     "frames=-1", "resize=4:1x1"],
)  # fmt: skip
def test_orders_that_cannot_be_read_are_refused(query: str) -> None:
    with pytest.raises(CaptureError, match="test://"):
        open_source(f"test://?{query}")


def test_a_csi_camera_needs_gstreamer_and_says_how_to_get_it() -> None:
    assert "nvarguscamerasrc sensor-id=1 !" in csi_pipeline("csi://1")
    assert "width=640, height=480, framerate=15/1" in csi_pipeline(
        "csi://0?width=640&height=480&fps=15"
    )
    for wrong in ("csi://", "csi://x", "csi://0?width=1 ! fakesink", "csi://0?zoom=2", "csi://0/1"):
        with pytest.raises(CaptureError, match="expected csi://0"):
            csi_pipeline(wrong)
    if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        pytest.skip("this OpenCV has GStreamer, so nothing is missing")
    with pytest.raises(CaptureError, match="JetPack's python3-opencv"):
        open_source("csi://0")
    require_backend("FFMPEG", "x")


def test_arrays_of_frames_are_not_shared() -> None:
    with opened("test://?fps=0&frames=3", PATIENT, policy="every") as source:
        first, second, _ = list(source)
    assert not np.shares_memory(first.image_bgr, second.image_bgr)


@pytest.mark.parametrize("uri", ["test://640x480", "test://door?fps=5", "test:///clip"])
def test_a_pattern_has_no_address(uri: str) -> None:
    with pytest.raises(CaptureError, match="has no address"):
        open_source(uri)
