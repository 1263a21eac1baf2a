"""Each event has a clip: with the seconds before and after it, as it was sent, whole, and none of what is masked."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from cmlr_edge.capture import has_packets, open_source
from cmlr_edge.errors import OutputError, SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.packet_ring import PacketRing
from cmlr_edge.session import Session, SessionConfig
from cmlr_edge.session.config import EngineSettings, SourceSettings
from cmlr_edge.sinks import Clips, Result
from cmlr_edge.sinks.clips import _decoding_times
from cmlr_edge.sinks.opening import SinkSettings
from tests.cmlr_edge.capture.films import turn, write_film
from tests.cmlr_edge.cli.command import read_lines, run
from tests.cmlr_edge.session.front_ends import command_of
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.cmlr_edge.sinks.samples import prediction
from tests.conftest import Image

FPS = 10
RED = range(60, 90)  # frames that are: an event from 6 to 9 s
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def picture(number: int, is_red: bool) -> Image:
    """Red or dark, with a strip that tells its number to whoever compares."""
    image = np.zeros((96, 128, 3), np.uint8)
    image[..., 2] = 230 if is_red else 0
    image[:8] = np.random.default_rng(number).integers(0, 256, (8, 128, 3))
    return image


def film(path: Path, codec: str = "libx264", frames: int = 150, **more: Any) -> Path:
    options = {"g": "25", **({"bf": "2"} if codec == "libx264" else {}), **more.pop("options", {})}
    pictures = [picture(number, number in RED) for number in range(frames)]
    return write_film(path, pictures, codec=codec, fps=FPS, options=options, **more)


def decoded(path: Path) -> list[Image]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def numbers(clip: Path, source: Path) -> list[int]:
    """Which pictures of a film a clip of it shows: the same ones, for nothing was encoded again."""
    known = {image.tobytes(): number for number, image in enumerate(decoded(source))}
    return [known[image.tobytes()] for image in decoded(clip)]


def configured(engine: Path, source: SourceSettings, folder: Path, **spans: Any) -> SessionConfig:
    clips = SinkSettings("clips", path=str(folder / "clips"), before_s=2.0, after_s=1.0)
    sinks = replace(clips, **spans), SinkSettings("events", path=str(folder / "events.jsonl"))
    return SessionConfig(EngineSettings(path=str(engine)), (source,), sinks)


def clips_of(config: SessionConfig, folder: Path) -> list[dict[str, Any]]:
    """Run to the end; return the messages of events."""
    with Session(config, folder=folder) as session:
        session.streams.start()
        assert session.streams.wait(60)
    assert session.lost == 0
    lines: list[Any] = read_lines(folder / "events.jsonl")
    return [line for line in lines if line["kind"] != "begin"]


def test_a_clip_shows_what_was_before_and_after(
    engine: Path, tmp_path: Path, receiver: Receiver
) -> None:
    source = film(tmp_path / "film.mp4")
    config = configured(engine, SourceSettings(str(source), "door"), tmp_path)
    others = SinkSettings("snapshots", path="s"), SinkSettings("webhook", url=receiver.url)
    events = clips_of(replace(config, sinks=(*config.sinks, *others)), tmp_path)
    posted = [json.loads(body) for body in receiver.bodies]
    assert [event for event in posted if event["kind"] != "begin"] == events
    assert {event["picture"] for event in events} == {
        str(path) for path in (tmp_path / "s").glob("*/*.jpg")
    }
    assert {event["label"] for event in events} == {"red"}
    [path] = {event["clip"] for event in events}
    assert path == str(tmp_path / "clips" / "door" / f"red_{events[0]['id']}.mp4")
    shown = numbers(Path(path), source)
    assert shown == [*range(shown[0], shown[-1] + 1)]
    begin_s, end_s = events[0]["start_s"] - 2, events[-1]["end_s"] + 1
    assert abs(shown[0] / FPS - begin_s) <= 0.11  # though key pictures are 2.5 s apart
    assert abs(shown[-1] / FPS - end_s) <= 0.31  # the encoder's order brings one or two more
    with av.open(path) as container:
        assert container.duration / 1e6 == pytest.approx(len(shown) / FPS, abs=0.11)


CODECS = [
    ("film.mkv", "libx265", {"options": {"preset": "ultrafast", "x265-params": "log-level=none"}}, ".mkv"),
    ("film.avi", "mpeg4", {}, ".mkv"),
    ("film.avi", "mjpeg", {"pix_fmt": "yuvj420p"}, ".mkv"),
    ("film.ts", "libx264", {}, ".mp4"),
    ("film.ts", "libx265", {"options": {"preset": "ultrafast", "x265-params": "log-level=none"}}, ".mkv"),
    ("film.flv", "libx264", {}, ".mp4"),
    ("film.mkv", "libx264", {"options": {"bf": "0"}}, ".mp4"),
    ("film.webm", "libvpx", {"options": {"deadline": "realtime", "cpu-used": "8"}}, ".mkv"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "more", "suffix"), CODECS)
def test_clips_of_other_codecs_and_containers(
    engine: Path, tmp_path: Path, name: str, codec: str, more: dict[str, Any], suffix: str
) -> None:
    source = film(tmp_path / name, codec, **dict(more))
    events = clips_of(configured(engine, SourceSettings(str(source), "door"), tmp_path), tmp_path)
    [path] = {event["clip"] for event in events}
    assert path.endswith(suffix)
    shown = numbers(Path(path), source)
    begin = RED[0] - 2 * FPS
    assert shown[0] <= begin + 2
    assert shown[0] >= begin - (2 if suffix == ".mp4" else 26)  # Matroska begins at a key picture
    assert RED[-1] + FPS - 3 <= shown[-1] <= RED[-1] + FPS + 6  # libx265 sends far ahead


def test_a_clip_is_no_longer_where_the_film_is_read_before_its_event_ends(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Clips.write

    def write_late(self: Clips, result: Result) -> None:
        deadline_s = time.monotonic() + 5
        ring = result.frame.ring
        while ring is not None and not ring.was_read_ahead and time.monotonic() < deadline_s:
            time.sleep(0.01)
        write(self, result)

    monkeypatch.setattr(Clips, "write", write_late)
    source = film(tmp_path / "film.mp4")
    events = clips_of(configured(engine, SourceSettings(str(source), "door"), tmp_path), tmp_path)
    shown = numbers(Path(events[0]["clip"]), source)
    assert RED[-1] + FPS - 3 <= shown[-1] <= RED[-1] + FPS + 3


def test_a_film_that_is_turned_has_clips_that_are(engine: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "film.mp4")
    turn(source)
    events = clips_of(configured(engine, SourceSettings(str(source), "door"), tmp_path), tmp_path)
    with av.open(events[0]["clip"]) as container:
        assert next(container.decode(video=0)).rotation == 90


def test_an_event_at_the_beginning_and_one_that_never_ends(engine: Path, tmp_path: Path) -> None:
    red = [picture(number, is_red=True) for number in range(100)]
    source = write_film(tmp_path / "red.mp4", red, fps=FPS)
    config = configured(engine, SourceSettings(str(source), "door"), tmp_path, longest_s=5.0)
    events = clips_of(config, tmp_path)
    shown = numbers(Path(events[0]["clip"]), source)
    assert shown[0] == 0
    assert 30 - 1 <= shown[-1] <= 30 + 3  # 5 s, from 2 s before the beginning


def test_a_film_that_plays_as_a_camera_has_clips(engine: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "film.mp4", frames=110, options={"g": "10"})
    paced = SourceSettings(str(source), "door", policy="newest")
    config = configured(engine, paced, tmp_path, before_s=1.0, after_s=0.5)
    events = clips_of(config, tmp_path)
    shown = numbers(Path(events[0]["clip"]), source)
    begin_s = events[0]["start_s"] - 1  # a slow machine sees the first red picture late
    assert abs(shown[0] / FPS - begin_s) <= 0.21


def test_masked_sources_have_no_clips_nor_packets(
    engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corner = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1))
    source = SourceSettings(str(film(tmp_path / "film.mp4")), "door", masks=(corner,))
    with caplog.at_level(logging.WARNING):
        events = clips_of(configured(engine, source, tmp_path), tmp_path)
    assert "door has no clips: its packets would show what its masks hide" in caplog.text
    assert events
    assert not any("clip" in event for event in events)
    assert not [*(tmp_path / "clips").rglob("*")]


def test_a_mask_takes_the_packets_from_a_frame(tmp_path: Path) -> None:
    from cmlr_edge.pipeline.intake import Intake, IntakeSettings

    with open_source(film(tmp_path / "film.mp4", frames=5), keep_packets_s=1.0) as source:
        frame = next(iter(source))
    assert frame.ring is not None
    assert Intake(IntakeSettings()).masked(frame).ring is not None
    assert Intake(IntakeSettings(masks=(WHOLE,))).masked(frame).ring is None


@pytest.mark.parametrize("source", ["test://?fps=20&frames=20", "${CAMERA}"])
def test_sources_without_packets_say_so_in_a_line(
    engine: Path, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA", "test://?fps=20&frames=20")
    found = run(
        "label", f"yard={source}", "--engine", engine, "--threshold", "0.2",
        "--clips", tmp_path / "clips", "--events", tmp_path / "e.jsonl",
    )  # fmt: skip
    assert found.returncode == 0
    assert found.stderr.count("yard has no clips: only streams of the network and video files") == 1
    assert not [*(tmp_path / "clips").rglob("*")]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("rtsp://a/b", True), ("HTTP://a/b", True), ("film.mp4", True), ("0", False), ("/dev/video0", False),
        ("csi://0", False), ("test://", False), ("v4l2src ! videoconvert ! appsink", False),
    ],
)  # fmt: skip
def test_which_sources_have_packets(uri: str, expected: bool) -> None:
    assert has_packets(uri) is expected


# ---- the ring of packets ----


# ---- the folder ----


def test_times_of_decoding_rise_and_are_never_late() -> None:
    for shown in ([0, 3, 1, 2, 6, 4, 5], [5, 5, 5], [-9, -3, -6], [7]):
        times = _decoding_times(shown)
        assert all(b > a for a, b in itertools.pairwise(times))
        assert all(d <= p for d, p in zip(times, shown, strict=True))


def frame_of(source: Path) -> Any:
    with open_source(source, keep_packets_s=30.0) as opened:
        return [*opened][-1]


def told(kind: str, number: int, frame: Any, *, ending: bool = False) -> Result:
    end_s = None if kind == "start" else frame.time_s
    event = Event(kind, f"{number:032x}", "door", "red", frame.time_s, 1.0, end_s, 0.9, 0.9, 0.0)  # type: ignore[arg-type]
    return Result(frame, prediction(), (event,), "door", ending=ending)


def clips_in(folder: Path) -> list[str]:
    return sorted(path.stem[-1] for path in folder.glob("*/*.mp4"))


def test_older_clips_make_room_and_parts_of_a_killed_process_go(tmp_path: Path) -> None:
    frame, folder = frame_of(film(tmp_path / "film.mp4", frames=40)), tmp_path / "clips"
    sink = Clips(folder)
    sink.write(told("start", 0, frame))
    sink.close()
    [path] = folder.glob("*/*.mp4")
    size = path.stat().st_size
    part = path.with_name(f"{path.name}.77.part")
    strangers = [path.with_name("holiday.mp4"), path.with_name("notes.77.part")]
    for stray in (part, *strangers):
        stray.write_bytes(b"x")
        os.utime(stray, (time.time() - 100,) * 2)
    sink = Clips(folder, keep_bytes=2.5 * size)
    sink.tend()  # as its guard does once a second
    assert not part.exists()
    for number in (1, 2, 3):
        sink.write(told("start", number, frame))
        sink.write(told("end", number, frame, ending=True))
    assert clips_in(folder) == ["2", "3", "y"]
    assert all(stranger.exists() for stranger in strangers)


def test_a_full_disk_loses_the_clip_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cmlr_edge.sinks import kept_files

    frame, folder = frame_of(film(tmp_path / "film.mp4", frames=40)), tmp_path / "clips"
    sink = Clips(folder)

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    for number in (1, 2):
        sink.write(told("start", number, frame))
    first, second = (told("end", number, frame, ending=True) for number in (1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(kept_files, "write_atomically", full)
        with pytest.raises(OutputError, match="No space left") as caught:
            sink.write(replace(first, events=(*first.events, *second.events)))
        assert caught.value.lost == 2
    sink.write(told("start", 3, frame))
    sink.close()
    assert clips_in(folder) == ["3"]


def test_packets_that_make_no_film_are_one_line(tmp_path: Path) -> None:
    frame = frame_of(film(tmp_path / "film.mp4", frames=40))
    frame.ring.template = open_source(film(tmp_path / "b.mp4", frames=1))  # no stream at all
    empty = PacketRing("h264", frame.ring.template, 1.0)
    sink = Clips(tmp_path / "clips")
    sink.write(told("start", 1, replace(frame, ring=empty)))
    with pytest.raises(OutputError, match="no picture"):
        sink.close()


def test_what_could_not_be_meant_is_refused() -> None:
    for spans in ({"before_s": -1.0}, {"after_s": 61.0}, {"longest_s": 4.0}):
        with pytest.raises(SpecError, match=next(iter(spans))):
            SinkSettings("clips", path="c", **spans)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--clip-before", "3"], "need --clips"),
        (["--keep-days", "3"], "need --snapshots, --clips or --collect"),
        (["--clips", "{}/c", "--clip-after", "99"], "clip-after"),
        (["--clips", "{}/no/c"], "its folder must exist"),
    ],
)
def test_flags_of_clips_that_cannot_be_meant(tmp_path: Path, flags: list[str], said: str) -> None:
    found = run("label", "test://?frames=1", *(flag.format(tmp_path) for flag in flags))
    assert found.returncode == 2
    assert said in found.stderr


@pytest.mark.slow
def test_a_kill_leaves_whole_clips(engine: Path, tmp_path: Path) -> None:
    pictures = [picture(number, number < 15) for number in range(40)]
    source = write_film(tmp_path / "film.mp4", pictures, fps=25, options={"g": "5"})
    more = ["--policy", "newest", "--loop", "--clips", str(tmp_path / "c")]
    more += ["--clip-before", "0.5", "--clip-after", "0.2"]
    for setting in ("min_duration_s=0.05", "min_gap_s=0.1", "smoothing_s=0"):
        more += ["--stability", setting]
    command = command_of("label", [f"door={source}"], engine, tmp_path, *more)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 30
        while len(found := [*(tmp_path / "c").glob("*/*.mp4")]) < 3:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for path in found:
        assert len(decoded(path)) > 3
