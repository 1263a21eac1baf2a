"""`cmlr-edge label` with several sources and with the options of long runs."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import cv2
import pytest

from cmlr_edge import demo_engine
from tests.cmlr_edge.cli.command import COMMAND, read_lines, run
from tests.cmlr_edge.cli.long_label import count_lines, start_label, terminate
from tests.cmlr_edge.sinks.receiver import Receiver
from tests.conftest import free_port, solid, write_video
from tests.waiting import wait_until

pytestmark = pytest.mark.slow


def test_several_sources_share_files_that_name_them_and_have_pictures_of_their_own(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    other = write_video(tmp_path / "green.avi", [solid(5, 250, 5)] * 15)
    done = run(
        "label", clip, other, "--engine", engine, "--out", tmp_path / "o.jsonl", "--events",
        tmp_path / "e.jsonl", "--csv", tmp_path / "t.csv", "--overlay", tmp_path / "o.mp4",
        "--contact-sheet", tmp_path / "o.png", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {str(clip): ["red"] * 10 + ["blue"] * 10, str(other): ["green"] * 15}
    lines = read_lines(tmp_path / "o.jsonl")
    for name, labels in expected.items():
        mine = [line for line in lines if line["source"] == name]
        assert [line["frame"] for line in mine] == list(range(len(labels)))
        assert [line["labels"][0]["label"] for line in mine] == labels  # type: ignore[index]
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["source"] for row in rows) == sorted([str(clip)] * 20 + [str(other)] * 15)
    events = read_lines(tmp_path / "e.jsonl")
    found = {(event["source"], event["label"], event["kind"]) for event in events}
    found -= {(str(path), "", "begin") for path in (clip, other)}
    assert found == {
        (source, label, kind)
        for source, label in ((str(clip), "red"), (str(clip), "blue"), (str(other), "green"))
        for kind in ("start", "end")
    }
    for number, count in ((1, 20), (2, 15)):
        capture = cv2.VideoCapture(str(tmp_path / f"o-{number}.mp4"))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == count
        capture.release()
        assert (tmp_path / f"o-{number}.png").stat().st_size > 0
    record = json.loads(done.stdout)
    assert [source["frames"] for source in record["sources"]] == [20, 15]
    assert {source["state"] for source in record["sources"]} == {"ended"}


def test_nobody_is_told_that_lost_results_were_written(engine: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), solid(9, 9, 9))
    (tmp_path / "gone").symlink_to("no/file")
    with socket.socket(socket.AF_UNIX) as nobodys:
        nobodys.bind(str(tmp_path / "socket"))
        for name in ("socket", "gone"):
            place = tmp_path / name
            done = run("label", tmp_path / "a.png", "--engine", engine, "--out", place)
            assert done.returncode == 1
            assert f"{place} is failing, 1 result or event lost" in done.stderr
            assert name not in done.stdout


def test_a_source_that_fails_is_told_and_the_others_are_done(
    engine: Path, tmp_path: Path, clip: Path
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "1.png").write_text("no picture")
    done = run(
        "label", tmp_path / "bad", clip, clip, "--engine", engine, "--out", tmp_path / "o.jsonl"
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'bad'} failed" in done.stderr
    names = [line["source"] for line in read_lines(tmp_path / "o.jsonl")]
    assert sorted(set(map(str, names))) == [str(clip), f"{clip} #2"]
    assert len(names) == 40
    all_bad = run("label", tmp_path / "bad", tmp_path / "bad", "--engine", engine)
    assert all_bad.returncode == 2
    missing = run("label", clip, "missing.mp4", "--engine", engine, "--out", tmp_path / "p.jsonl")
    assert missing.returncode == 2
    assert not (tmp_path / "p.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--out", "o-1.png", "--contact-sheet", "o.png"], "same name"),
        (["--stability", "min_gap=2"], "min_gap_s"),
        (["--stability", "unicorn.enter=0.5"], "unicorn"),
        (["--stability", "enter=2"], "enter 2.0"),
        (["--skip-unchanged", "0"], "above 0"),
        (["--metrics-port", "1"], "127.0.0.1:1"),
    ],
)
def test_wrong_options_for_many_are_one_line(
    engine: Path, clip: Path, tmp_path: Path, options: list[str], word: str
) -> None:
    if options[0] == "--metrics-port" and os.geteuid() == 0:
        options = ["--metrics-port", str(port := free_port())]
        word = str(port)
        blocker = socket.create_server(("127.0.0.1", port))
    else:
        blocker = socket.socket()
    with blocker:
        done = run("label", clip, clip, "--engine", engine, *options, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert done.stderr.count("\n") == 1


def test_settings_of_events_and_skipping_are_taken_from_the_command_line(
    engine: Path, clip: Path, tmp_path: Path
) -> None:
    done = run(
        "label", clip, "--engine", engine, "--events", tmp_path / "e.jsonl", "--skip-unchanged", "5",
        "--stability", "smoothing_s=0", "--stability", "min_duration_s=0.2", "--stability",
        "blue.min_duration_s=0.6", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    starts = {
        e["label"]: e["time_s"] for e in read_lines(tmp_path / "e.jsonl") if e["kind"] == "start"
    }
    assert starts == {"red": 0.2, "blue": 1.6}
    record = json.loads(done.stdout)
    assert (record["frames"], record["repeated_frames"]) == (20, 18)


def test_metrics_are_served_while_a_frozen_camera_runs(engine: Path) -> None:
    port = free_port()
    command = [*COMMAND, "label", "test://?fps=50&frozen=5:100000", "test://?fps=50", "--engine"]
    command += [str(engine), "--metrics-port", str(port), "--frozen-after", "0.2"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    text = ""
    while 'cmlr_frames_total{source="test://?fps=50&frozen=5:100000",valid="false"}' not in text:
        assert time.monotonic() < deadline
        assert process.poll() is None
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
        except URLError:
            time.sleep(0.01)
    assert 'cmlr_source_ok{source="test://?fps=50"} 1.0' in text
    assert 'source="test://?fps=50",valid="false"' not in text
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def handles_sigterm(process: subprocess.Popen[bytes]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(
        next(row for row in status.splitlines() if row.startswith("SigCgt")).split()[1], 16
    )
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_sigterm_while_the_model_is_loaded_leaves_nothing(tmp_path: Path) -> None:
    process = start_label(demo_engine(), tmp_path, "test://")
    wait_until(lambda: handles_sigterm(process), process)
    terminate(process, 10)
    assert not count_lines(tmp_path / "o.jsonl")


def test_sigterm_while_a_camera_does_not_answer_ends_at_once(
    engine: Path, tmp_path: Path, silent_server: socket.socket
) -> None:
    process = start_label(engine, tmp_path, f"http://127.0.0.1:{silent_server.getsockname()[1]}/")
    connection, _ = silent_server.accept()
    with connection:
        terminate(process, 10)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("source", ["test://?fps=50", "test://?fps=50&hang=10:600"])
def test_sigterm_while_frames_come_or_a_read_hangs_ends_open_events(
    engine: Path, tmp_path: Path, source: str
) -> None:
    process = start_label(engine, tmp_path, source, "--policy", "every")
    wait_until(lambda: count_lines(tmp_path / "o.jsonl") >= 10, process)
    terminate(process, 10)
    lines, events = read_lines(tmp_path / "o.jsonl"), read_lines(tmp_path / "e.jsonl")
    assert [line["valid"] for line in lines] == [True] * len(lines)
    kinds = [event["kind"] for event in events]
    assert kinds.count("start") == kinds.count("end") == 3


def test_a_terminal_that_is_closed_ends_open_events_and_is_no_second_signal(
    engine: Path, tmp_path: Path
) -> None:
    process = start_label(engine, tmp_path, "test://?fps=50", "--policy", "every")
    wait_until(lambda: count_lines(tmp_path / "o.jsonl") >= 10, process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.15)
    process.send_signal(signal.SIGHUP)  # nothing, if it has ended
    # The second one may find that all is done, and Python on its way out.
    assert process.wait(20) in {128 + signal.SIGHUP, -signal.SIGHUP}
    kinds = [event["kind"] for event in read_lines(tmp_path / "e.jsonl")]
    assert kinds.count("start") == kinds.count("end") == 3


def test_sigterm_while_outputs_are_finished_keeps_what_was_done(
    engine: Path, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = ["hang"]
    process = start_label(
        engine, tmp_path, "test://?fps=0&frames=30", "--policy", "every", "--webhook", receiver.url
    )
    wait_until(lambda: bool(receiver.requests) and count_lines(tmp_path / "e.jsonl") == 7, process)
    terminate(process, 20)
    assert count_lines(tmp_path / "o.jsonl") == 30


def test_a_second_signal_does_not_wait_for_what_hangs(engine: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "o.jsonl")  # opening it waits for a reader, who never comes
    settings = tmp_path / "a.toml"  # by itself it would end after 96 s, however slow the machine is
    settings.write_text(
        f'[engine]\npath = "{engine}"\n[[sources]]\nuri = "test://?fps=50"\nname = "a"\n'
        "[limits]\ndrain_s = 120\n"
    )
    process = start_label(engine, tmp_path, "--config", str(settings))
    events = tmp_path / "e.jsonl"
    wait_until(lambda: events.exists() and b'"start"' in events.read_bytes(), process)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: b'"end"' in events.read_bytes(), process)
    time.sleep(0.2)  # nobody takes it for the first one once more
    terminate(process, 30)


def test_an_output_that_hangs_neither_stops_the_others_nor_the_end(
    engine: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "o.jsonl")  # opening it waits for a reader, who never comes
    process = start_label(
        engine, tmp_path, "test://?fps=50", "test://?fps=40", "--csv", str(tmp_path / "t.csv")
    )
    wait_until(lambda: count_lines(tmp_path / "t.csv") > 200, process)
    terminate(process, 15)
    with (tmp_path / "t.csv").open(newline="") as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert min(sources.count("test://?fps=50"), sources.count("test://?fps=40")) > 20
    kinds = [event["kind"] for event in read_lines(tmp_path / "e.jsonl")]
    assert kinds.count("start") == kinds.count("end") == 6
