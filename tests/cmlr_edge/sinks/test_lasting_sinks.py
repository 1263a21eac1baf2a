"""What sinks do in runs that last: rotation, full disks, failures that come and go."""

from __future__ import annotations

import csv
import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge.errors import OutputError
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.csv_table import CsvTable
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.jsonl import EventLines, JsonLines
from cmlr_edge.sinks.line_file import LineFile
from cmlr_edge.sinks.outputs import Outputs
from tests.cmlr_edge.sinks.results import of_events, result
from tests.cmlr_edge.sinks.samples import event, frame, prediction

ROOT = Path(__file__).parents[3]


def test_rotated_files_hold_every_line_once_and_stay_below_the_limit(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "log", header="head", rotate_bytes=100, keep=3)
    for i in range(30):
        lines.append(f"line {i:014d}")
    lines.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2", "log.3"]
    kept = [(tmp_path / name).read_text().splitlines() for name in reversed(names)]
    assert all(rows[0] == "head" for rows in kept)
    assert all((tmp_path / name).stat().st_size <= 100 for name in names)
    numbers = [int(row.split()[1]) for rows in kept for row in rows[1:]]
    assert numbers == list(range(numbers[0], 30))
    assert len(numbers) >= 13


def test_a_line_longer_than_the_limit_is_a_file_of_its_own(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "log", rotate_bytes=10)
    for text in ("a" * 50, "b", "c" * 50):
        lines.append(text)
    lines.close()
    assert (tmp_path / "log").read_text() == "c" * 50 + "\n"
    assert (tmp_path / "log.2").read_text() == "a" * 50 + "\n"


def test_events_rotate_too(tmp_path: Path) -> None:
    sink = EventLines(tmp_path / "e.jsonl", rotate_bytes=300)
    for i in range(4):
        sink.write(of_events(event(i)))
    sink.close()
    assert json.loads((tmp_path / "e.jsonl").read_text())["id"] == "3"
    assert len(list(tmp_path.iterdir())) == 4


def test_the_csv_table_is_read_back_by_another_reader(tmp_path: Path) -> None:
    labels = ["dog", 'a "quoted", name', "čeština"]
    sink = CsvTable(tmp_path / "t.csv", labels)
    scores = np.array([0.25, 0.5, 1.0], np.float32)
    sink.write(result(frame(3), replace(prediction("dog"), scores=scores)))
    sink.write(result(replace(frame(4), status="frozen"), replace(prediction(), valid=False)))
    sink.write(result(replace(frame(5), time_s=None, source="a,b.png"), prediction()))
    sink.close()
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][label] for label in labels] == ["0.25000", "0.50000", "1.00000"]
    assert (rows[0]["frame"], rows[0]["time_s"], rows[0]["valid"]) == ("3", "0.3000", "true")
    assert (rows[1]["status"], rows[1]["valid"], rows[1]["dog"]) == ("frozen", "false", "")
    assert (rows[2]["time_s"], rows[2]["source"]) == ("", "a,b.png")


def test_a_disk_that_fills_up_and_is_freed_costs_only_the_lines_in_between(tmp_path: Path) -> None:
    # A limit on the file's size stands for the full disk; lifted again, it stands for the freed one.
    script = """
import json, resource, signal, sys
from pathlib import Path
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.jsonl import JsonLines
from tests.cmlr_edge.sinks.results import result
from tests.cmlr_edge.sinks.samples import frame, prediction
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
sink = GuardedSink(JsonLines(path), "out")
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for i in range(30):
    if i == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, hard))
    if i == 20:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    sink.write(result(frame(i), prediction("dog")))
    sink.flush()
sink.close()
frames = [json.loads(line)["frame"] for line in path.read_text().splitlines()]
assert frames == [*range(10), *range(20, 30)], frames
assert sink.lost == 10
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "o.jsonl")],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on without it") == 1
    assert "File too large" in done.stderr  # of which the first write of a line says nothing
    assert "works again; 10 results lost" in done.stderr


class Broken:
    """Fails for the frames and events it is told to."""

    takes = "both"

    def __init__(self, failing: set[int]) -> None:
        self.failing, self.taken = failing, list[int]()

    def write(self, taken: Result) -> None:
        number = int(taken.events[0].id) if taken.events else taken.frame.index
        if number in self.failing:
            raise ZeroDivisionError("something nobody thought of")
        self.taken.append(number)

    def close(self) -> None:
        raise OutputError("cannot be closed")


class BrokenEvents(Broken):
    takes = "events"


@pytest.mark.parametrize("inline", [True, False])
def test_a_broken_sink_is_isolated_counted_and_told_once(
    caplog: pytest.LogCaptureFixture, inline: bool
) -> None:
    caplog.set_level(logging.WARNING)
    inner, inner_events = Broken({3, 4, 5, 8}), BrokenEvents({1})
    inner.inline = inner_events.inline = inline  # type: ignore[attr-defined]
    sink, events = GuardedSink(inner, "overlay"), GuardedSink(inner_events, "mqtt")
    for i in range(10):
        sink.write(result(frame(i), prediction(), "door"))
        events.write(of_events(event(i)))
        events.write(result(frame(i), prediction()))  # no event, nothing to take
    sink.flush()
    events.flush()
    assert inner.taken == [0, 1, 2, 6, 7, 9]
    assert (sink.lost, events.lost) == (4, 1)
    assert (sink.lost_of("door"), events.lost_of("door"), events.lost_of("yard")) == (4, 1, 0)
    assert caplog.text.count("overlay fails") == 2
    assert "overlay works again; 3 results lost" in caplog.text
    assert sink.status().state == "ok"
    sink.close()
    events.close()
    assert (sink.lost, events.lost) == (5, 2)
    assert sink.status().state == "failing"
    assert sink.status().reason == "cannot be closed"


def test_jsonl_says_which_frames_are_frozen(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "o.jsonl")
    sink.write(result(replace(frame(0), status="frozen"), replace(prediction(), valid=False)))
    sink.close()
    assert json.loads((tmp_path / "o.jsonl").read_text())["status"] == "frozen"


class Waiting:
    """Takes what comes once it may; notes in which thread."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.taken: list[int] = []
        self.closed = False

    def write(self, taken: Result) -> None:
        assert self.may.wait(30)
        if taken.frame.index == 3:
            raise OutputError("the fourth does not fit")
        self.taken.append(taken.frame.index)

    def close(self) -> None:
        self.closed = True


def test_a_guard_before_an_output_that_hangs_lets_writers_wait_once_and_keeps_the_order() -> None:
    inner = Waiting()
    sink = GuardedSink(inner, "file", max_waiting=10)
    start = time.monotonic()
    for i in range(13):
        sink.write(result(frame(i), prediction()))  # 10 find room, the next waits for a second
    assert time.monotonic() - start < 2
    assert (sink.lost, inner.taken) == (3, [])
    assert sink.status().state == "hanging"
    inner.may.set()
    sink.close()
    sink.close()
    assert inner.taken == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (sink.lost, inner.closed) == (4, True)


def test_writers_that_may_not_wait_never_do_and_what_finds_no_room_is_counted() -> None:
    inner = Waiting()
    sink = GuardedSink(inner, "file", max_waiting=2)
    start = time.monotonic()
    for i in range(10, 30):
        sink.write(result(frame(i), prediction(), "door"), wait=False)
    assert time.monotonic() - start < 0.5
    assert sink.lost_of("door") == 18
    inner.may.set()
    sink.close()
    assert (inner.taken, sink.lost) == ([10, 11], 18)


@pytest.mark.parametrize("count", [1, 4, 33])
def test_all_that_a_hanging_output_never_wrote_is_lost_and_said(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    inner = Waiting()
    sink = GuardedSink(inner, "file", max_waiting=10, patience_s=0.05, flush_s=0.1)
    for i in range(count):
        sink.write(result(frame(i), prediction(), "door"))
    start = time.monotonic()
    sink.close()
    assert time.monotonic() - start < 2
    assert (sink.lost, sink.lost_of("door")) == (count, count)
    assert "hangs and is left behind" in caplog.text
    assert sink.status().state == "hanging"
    inner.may.set()


def test_an_output_that_hangs_while_it_is_finished_is_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NeverDone(Waiting):
        def close(self) -> None:
            self.may.clear()
            self.may.wait(30)

    monkeypatch.setattr("cmlr_edge.sinks.guarded._CLOSE_S", 0.1)
    inner = NeverDone()
    inner.may.set()
    sink = GuardedSink(inner, "file")
    sink.write(result(frame(0), prediction()))
    sink.close()
    assert (sink.lost, sink.status().state) == (1, "hanging")
    inner.may.set()


def test_a_guard_before_a_slow_output_loses_nothing_where_writers_wait() -> None:
    inner = Waiting()
    sink = GuardedSink(inner, "file", max_waiting=2)
    feeder = threading.Timer(0.3, inner.may.set)
    feeder.start()
    for i in range(4, 40):
        sink.write(result(frame(i), prediction()))
    sink.close()
    feeder.join()
    assert (inner.taken, sink.lost) == ([*range(4, 40)], 0)


def test_outputs_change_between_two_results_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    kept = GuardedSink(JsonLines(tmp_path / "kept"))
    path = tmp_path / "o.jsonl"
    former = GuardedSink(JsonLines(path, keep_old=True))
    outputs = Outputs([kept, former])
    stop = threading.Event()
    written = list[int]()

    def write() -> None:
        while not stop.is_set():
            outputs.write(result(frame(len(written)), prediction()), wait=True)
            written.append(len(written))
            time.sleep(0.0005)  # as fast as a loaded machine writes

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(20):
        fresh = GuardedSink(JsonLines(path, keep_old=True), after=outputs.guards[1])
        outputs.change([kept, fresh])
        time.sleep(0.01)
    stop.set()
    writer.join()
    outputs.close()
    for name in ("o.jsonl", "kept"):
        lines = (tmp_path / name).read_text().splitlines()
        assert [json.loads(line)["frame"] for line in lines] == written
    assert outputs.lost == 0


class NoText(Exception):
    lost = "many"

    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoText(), "NoText"),
        (SystemExit(3), "end the process: 3"),
        (StopIteration(), "StopIteration"),
        (OutputError("two\nlines"), "two lines"),
    ],
)
def test_any_error_is_one_line_and_one_loss(error: BaseException, said: str) -> None:
    class Raising:
        def write(self, _result: Result) -> None:
            raise error

        def close(self) -> None:
            raise error

    sink = GuardedSink(Raising(), "odd")
    for i in range(3):
        sink.write(result(frame(i), prediction(), "door"))
    sink.flush()
    assert (sink.lost_of("door"), sink.status().state) == (3, "failing")
    assert said in sink.status().reason
    sink.close()
    assert sink.lost == 4


def test_outputs_that_hang_at_the_end_are_left_behind_together() -> None:
    class HangingEnd(Waiting):
        def close(self) -> None:
            self.may.wait(30)

    inner = [HangingEnd() for _ in range(4)]
    inner[0].may.set()
    guards = [GuardedSink(sink, str(i)) for i, sink in enumerate(inner)]
    outputs = Outputs(guards)
    guards[0].write(result(frame(0), prediction()))
    guards[1].write(result(frame(0), prediction()))  # the others never got anything
    began_s = time.monotonic()
    outputs.close(0.5)
    assert time.monotonic() - began_s < 2
    assert [guard.lost for guard in guards] == [0, 1, 1, 1]
    for sink in inner:
        sink.may.set()


def test_an_output_that_fails_again_and_again_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    sink = GuardedSink(Broken(set(range(0, 200, 2))), "odd")
    for i in range(200):
        sink.write(result(frame(i), prediction()))
    sink.flush()
    sink.close()
    assert sink.lost == 101
    assert len(caplog.records) == 11


def test_a_sink_that_only_says_that_it_never_waits_need_not_be_believed() -> None:
    inner = Waiting()
    inner.inline = True  # type: ignore[attr-defined]
    sink = GuardedSink(inner, "odd", may_inline=False, flush_s=0.1)
    sink.write(result(frame(0), prediction()))
    sink.close()
    assert sink.lost == 1
    inner.may.set()
