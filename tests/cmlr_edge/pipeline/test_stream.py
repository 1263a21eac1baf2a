from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from cmlr_edge import LabelStability, Recognizer, open_source
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.model.stability import stability_from_thresholds
from cmlr_edge.pipeline import Streams
from cmlr_edge.sinks import Result
from tests.cmlr_edge.cli.command import COMMAND, read_lines, run
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.conftest import solid
from tests.waiting import wait_until


class Collected:
    """A sink of events that keeps what comes."""

    takes = "events"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def write(self, result: Result) -> None:
        assert not self.closed
        self.events += result.events

    def close(self) -> None:
        self.closed = True


def test_streaming_a_file_gives_every_frame_and_the_labels_events(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        direct = {
            label: replace(settings, smoothing_s=0, min_gap_s=0.3)
            for label, settings in stability_from_thresholds(recognizer.thresholds).items()
        }
        results = list(recognizer.stream(clip, stability=direct))
    assert [result.frame.index for result in results] == list(range(20))
    told = [
        (event.kind, event.label, event.start_s, result.frame.index)
        for result in results
        for event in result.events
    ]
    # Red is there from 0 s, blue from 1 s; each start waits 0.5 s, red's end 0.3 s.
    assert told == [
        ("start", "red", 0.0, 5),
        ("end", "red", 0.0, 13),
        ("start", "blue", 1.0, 15),
    ]


def test_open_events_are_ended_when_the_source_ends_or_the_taker_leaves(
    engine: Path, clip: Path
) -> None:
    for max_frames, leave_at in ((None, None), (10, None), (None, 12)):
        sink = Collected()
        with Recognizer.from_engine(engine) as recognizer:
            streams = Streams(recognizer)
            streams.add(open_source(clip), sinks=[sink], max_frames=max_frames)
            results = streams.results()
            for result in results:
                if result.frame.index == leave_at:
                    results.close()
        assert sink.closed
        started = [event.id for event in sink.events if event.kind == "start"]
        ended = [event.id for event in sink.events if event.kind == "end"]
        assert started
        assert started == ended


def test_pictures_stream_without_events(engine: Path, tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), solid(255, 0, 0))
    with Recognizer.from_engine(engine) as recognizer:
        results = list(recognizer.stream(tmp_path))
    assert [result.events for result in results] == [()] * 3


def test_a_live_source_streams_and_frozen_frames_start_no_event(engine: Path) -> None:
    with Recognizer.from_engine(engine, thresholds=0.1) as recognizer:
        results = list(recognizer.stream("test://?fps=100&frames=100"))
    assert results[-1].frame.index == 99
    assert {event.label for result in results for event in result.events} == {
        "red", "green", "blue",
    }  # fmt: skip


def test_unknown_labels_and_sources_are_refused(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        with pytest.raises(SpecError, match="unicorn"):
            next(recognizer.stream("test://", stability={"unicorn": LabelStability(0.5, 0.4)}))
        with pytest.raises(CaptureError):
            next(recognizer.stream("missing.mp4"))


@pytest.mark.slow
def test_label_writes_events_with_the_times_of_the_clip(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    done = run("label", clip, "--engine", engine, "--events", tmp_path / "e.jsonl")
    assert done.returncode == 0, done.stderr
    events = read_lines(tmp_path / "e.jsonl")
    ends = {event["label"]: event for event in events if event["kind"] == "end"}
    assert set(ends) == {"red", "blue"}
    # Smoothing over 0.3 s: red (0.98) falls below 0.4 after 0.3 * ln(0.98 / 0.4) = 0.27 s.
    assert (ends["red"]["start_s"], ends["blue"]["end_s"]) == (0.0, 1.9)
    assert ends["red"]["end_s"] == pytest.approx(1.27, abs=0.1)
    assert set(events[0]) == {
        "kind", "id", "source", "label", "time_s", "start_s", "end_s", "score", "max_score",
        "captured_at", "run",
    }  # fmt: skip


@pytest.mark.slow
def test_label_takes_a_camera_that_loses_its_connection(engine: Path, tmp_path: Path) -> None:
    done = run(
        "label", "test://?fps=100&frames=80&none=40:0.3", "--engine", engine, "--threshold", "0.1",
        "--out", tmp_path / "o.jsonl", "--events", tmp_path / "e.jsonl", "--policy", "every", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["frames"] == record["capture"]["received"] == 79
    assert record["capture"]["reconnects"] >= 1
    assert "reconnecting" in done.stderr
    events = read_lines(tmp_path / "e.jsonl")
    for label in ("red", "green", "blue"):  # the outage neither ends nor doubles an event
        assert [e["kind"] for e in events if e["label"] == label] == ["start", "end"]


def test_a_full_disk_does_not_stop_a_live_run_and_is_said(engine: Path, tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this system has no device /dev/full: a full disk is NOT TESTED")
    done = run(
        "label", "test://?fps=0&frames=30", "--policy", "every", "--engine", engine,
        "--out", "/dev/full", "--csv", tmp_path / "t.csv", "--rotate-mb", "0.001",
    )  # fmt: skip
    assert done.returncode == 1
    assert "outputs failed to take results or events 30 times" in done.stderr
    assert "No space left on device" in " ".join(done.stderr.split())  # it may be wrapped
    rows = [path.read_text().splitlines() for path in tmp_path.glob("t.csv*")]
    assert len(rows) > 1
    assert all(row[0].endswith("valid,red,green,blue") for row in rows)
    assert sum(len(row) - 1 for row in rows) == 30


def test_events_go_to_a_webhook_from_the_command_line(engine: Path, receiver: Receiver) -> None:
    done = run(
        "label", "test://?fps=50&frames=60", "--engine", engine, "--threshold", "0.1",
        "--webhook", receiver.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(receiver.taken) == 1 + 6  # that it begins, and a start and an end of each label
    assert len(set(receiver.taken)) == 1 + 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_live_run_ends_its_open_events(
    engine: Path, tmp_path: Path, number: signal.Signals
) -> None:
    events = tmp_path / "e.jsonl"
    command = [*COMMAND, "label", "test://?fps=60", "--engine", engine, "--threshold", "0.1"]
    command += ["--events", events]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.PIPE)
    wait_until(lambda: events.exists() and events.read_bytes().count(b'"start"') >= 3, process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    kinds = [event["kind"] for event in read_lines(events)]
    assert kinds.count("start") == kinds.count("end") == 3


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("a.png", ["--events", "e.jsonl"], "no times"),
        ("a.png", ["--policy", "newest"], "policy"),
        ("test://", ["--policy", "latest"], "newest"),
        ("test://?nosuch=1", [], "nosuch"),
        ("rtsp//admin:hunter2@cam/1", [], "***@cam"),
    ],
)
def test_wrong_sources_and_options_are_one_line_without_a_password(
    engine: Path, tmp_path: Path, source: str, options: list[str], word: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), solid(1, 2, 3))
    done = run("label", source, "--engine", engine, *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert sys.executable not in done.stderr
