"""What goes wrong on a site, one fault at a time, beside a source that must not notice."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge import Recognizer, Streams, open_source
from cmlr_edge.capture.live import LiveSettings, SourceState
from cmlr_edge.capture.pattern import read_number
from cmlr_edge.sinks import Result
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.jsonl import EventLines, JsonLines
from tests.cmlr_edge.cli.command import read_lines, run
from tests.cmlr_edge.pipeline.faults import FAULTS
from tests.cmlr_edge.pipeline.stand_ins import Noted, SlowBackend, recognizer_of

LIVE = LiveSettings(
    read_timeout_s=0.2, hang_timeout_s=0.4, frozen_after_s=0.3, backoff_first_s=0.05
)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*FAULTS])
def test_a_fault_neither_loses_nor_doubles_an_event_nor_disturbs_a_neighbour(fault: str) -> None:
    uri = f"test://?fps=50&frames=110&{FAULTS[fault]}"
    events, neighbour = Noted(), Noted()
    streams = Streams(recognizer_of(SlowBackend(), threshold=0.1))
    streams.add(open_source(uri, live=LIVE), name="faulty", sinks=[events])
    streams.add(open_source("test://?fps=50", live=LIVE), name="neighbour", sinks=[neighbour])
    results: list[Result] = []
    for result in streams.results():
        if result.source == "faulty":
            results.append(result)
        if streams.status()[0].state is SourceState.ENDED:
            streams.request_end()
    numbers = [read_number(result.frame.image_bgr) for result in results]
    shown = numbers if fault != "frozen picture" else sorted(set(numbers))
    assert shown == sorted(set(shown))
    assert numbers[-1] >= 100
    kinds = [event.kind for event in events.events]
    assert kinds == ["start"] * 3 + ["end"] * 3
    assert len({event.id for event in events.events}) == 3
    invalid = [result for result in results if not result.prediction.valid]
    assert {result.frame.status for result in invalid} <= {"frozen", "stale"}
    assert any(result.frame.status == "frozen" for result in invalid) == (fault == "frozen picture")
    gaps = np.diff(neighbour.times_s)
    assert gaps.max() < 1.0
    assert streams.status()[0].state is SourceState.ENDED


def test_a_model_that_gives_no_numbers_for_a_while_neither_starts_nor_ends_an_event() -> None:
    class Nan(SlowBackend):
        def infer(self, frames: np.ndarray) -> np.ndarray:
            scores = super().infer(frames)
            first = sum(self.batches) - len(frames)
            numbers = np.arange(first, first + len(frames))
            scores[(numbers >= 50) & (numbers < 70)] = np.nan
            scores[numbers < 20] = np.inf
            return scores

    events = Noted()
    streams = Streams(recognizer_of(Nan(), threshold=0.1))
    source = open_source("test://?fps=50&frames=120", policy="every")
    streams.add(source, sinks=[events])
    results = list(streams.results())
    invalid = [r.frame.index for r in results if not r.prediction.valid]
    assert invalid == [*range(20), *range(50, 70)]
    assert all(r.prediction.labels == () for r in results if not r.prediction.valid)
    assert [event.kind for event in events.events] == ["start"] * 3 + ["end"] * 3
    assert min(event.start_s for event in events.events) == results[20].frame.time_s


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KB that are full soon."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and not subprocess.run(
        command, capture_output=True, check=False
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("no tmpfs may be mounted here, so a FULL DISK IS NOT TESTED on a real one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_costs_the_lines_until_it_is_freed_and_no_part_of_one(
    small_disk: Path, engine: Path
) -> None:
    ballast = small_disk / "ballast"
    with Recognizer.from_engine(engine, thresholds=0.1) as recognizer:
        streams = Streams(recognizer)
        lines = GuardedSink(JsonLines(small_disk / "o.jsonl"), "lines")
        events = GuardedSink(EventLines(small_disk / "e.jsonl"), "events")
        source = open_source("test://?fps=0&frames=400", policy="every")
        streams.add(source, sinks=[lines, events])
        lost = 0
        for result in streams.results():
            if result.frame.index == 50:
                ballast.write_bytes(b"x" * 40_000)
            if result.frame.index == 200:
                lost = lines.lost
                ballast.unlink()
    written = [int(str(line["frame"])) for line in read_lines(small_disk / "o.jsonl")]
    assert written == sorted(set(written))
    assert lost > 0
    assert len(written) + lines.lost == 400
    assert written[-1] == 399 or lines.lost > lost  # the freed disk may have filled up again
    assert [status.state for status in streams.status()] == [SourceState.ENDED]


@pytest.mark.slow
def test_label_on_a_full_disk_says_so_and_the_other_outputs_are_whole(
    small_disk: Path, engine: Path, tmp_path: Path
) -> None:
    done = run(
        "label", "test://?fps=100&frames=300", "--policy", "every", "--engine", engine,
        "--threshold", "0.1", "--out", small_disk / "o.jsonl", "--overlay", small_disk / "o.mp4",
        "--events", tmp_path / "e.jsonl", "--csv", tmp_path / "t.csv",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "outputs failed to take results" in done.stderr
    assert re.search("the disk is full|No space left", " ".join(done.stderr.split()))
    frames = [int(str(line["frame"])) for line in read_lines(small_disk / "o.jsonl")]
    # The overlay that does not fit is removed at the end, and the last lines may find room again.
    assert frames == sorted(set(frames))
    until_full = next(i for i, number in enumerate([*frames, -1]) if i != number)
    assert 0 < until_full < 300
    said = re.search(
        r"o\.jsonl (?:is \w+|works again), (\d+) results or events lost",
        " ".join(done.stderr.split()),
    )
    assert said, done.stderr
    assert int(said[1]) == 300 - len(frames) > 0
    assert not (small_disk / "o.mp4").exists()
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 301
    kinds = [event["kind"] for event in read_lines(tmp_path / "e.jsonl")]
    assert kinds.count("start") == kinds.count("end")
