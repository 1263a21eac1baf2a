from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.streams.endurance import endure
from benchmarks.streams.flicker import blend, count_flicker, find_events, report_rates
from benchmarks.streams.stand_in import write_stand_in
from cmlr_edge import Frame, LabelStability, Recognizer, demo_engine, open_source

RESULTS = Path("benchmarks/results/streams")


@pytest.fixture(scope="module")
def flicker() -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RESULTS / "flicker.json").read_text())
    return record


def test_a_short_run_is_counted_and_leaves_no_thread_and_no_file(tmp_path: Path) -> None:
    with Recognizer.from_engine(write_stand_in(tmp_path)) as recognizer:
        report = endure(recognizer, sources=3, fps=10, duration_s=3, size="160x120")
    assert [source["fails"] for source in report["sources"]] == [True, True, False]
    for source in report["sources"]:
        assert source["due"] == 30
        assert 0.3 < source["kept"] < 1.2  # a busy machine keeps fewer
        assert source["events"] == {"start": 3, "update": 0, "end": 3}
        assert source["events_lost_or_doubled"] == 0
    assert report["before"]["threads"] == report["after"]["threads"]
    assert report["before"]["files"] == report["after"]["files"]
    assert not report["passed"]  # too short for an outage, so nothing was proved


def test_flicker_counts_rises_and_events_bridge_them() -> None:
    scores = np.array([0.9, 0.4, 0.9, 0.9, 0.4, 0.9, 0.1, 0.1, 0.1, 0.1], np.float32)
    times_s = [i / 2 for i in range(10)]
    assert count_flicker(scores, 0.5) == 3
    settings = LabelStability(0.5, 0.3, smoothing_s=0, min_duration_s=0.5, min_gap_s=1)
    assert find_events(times_s, scores, settings) == [[0.0, 3.0]]


def test_a_blended_frame_lies_between_its_neighbours() -> None:
    dark, light = (
        Frame(np.full((2, 2, 3), grey, np.uint8), 0, 0.0, 0.0, 0.0, "") for grey in (30, 60)
    )
    assert np.unique(blend(dark, light, 1 / 3)).tolist() == [40]


@pytest.mark.pages
def test_each_visit_of_a_person_is_one_event_at_every_frame_rate(flicker: dict[str, Any]) -> None:
    scores = np.array(flicker["scores"], np.float32)
    settings = LabelStability(**flicker["settings"])
    found = report_rates(flicker["clip_fps"], scores, flicker["threshold"], settings)
    assert found == flicker["by_frame_rate"]
    assert {float(name.partition(",")[0]) for name in found} == {5, 10, 30}
    visits = np.array(flicker["visits"])  # seen by eye
    for rate in found.values():
        events = np.array(rate["events"])
        assert events.shape == visits.shape
        assert (np.abs(events - visits) < 1.5).all()
    # More frames flicker more, and make no other event.
    assert found["30"]["rises_above_threshold"] > 4 * len(visits)
    slowest = np.array(found["5"]["events"])
    for name, rate in found.items():
        a_frame_of_each_s = 1 / 5 + 1 / float(name.partition(",")[0]) + 1e-6
        np.testing.assert_allclose(rate["events"], slowest, atol=a_frame_of_each_s, rtol=0)


@pytest.mark.pages
def test_the_page_says_what_was_measured(flicker: dict[str, Any]) -> None:
    page = " ".join(Path("docs/label_a_camera.md").read_text().split())
    run = json.loads((RESULTS / "endurance.json").read_text())
    assert run["passed"]
    assert "lite2" in run["machine"]["model"]
    assert "(EfficientNet-Lite2)" in page
    assert run["settings"]["duration_s"] == 600
    kept = min(source["kept"] for source in run["sources"] if not source["fails"])
    failing = [source for source in run["sources"] if source["fails"]]
    assert f"kept {kept * 100 - 0.05:.1f} %" in page
    assert f"at most {max(s['recovery_s'] for s in failing):.1f} s after" in page
    assert f"over {sum(s['outages'] for s in failing)} outages" in page
    assert f"was {run['memory']['growth'] * 100:.1f} % above" in page
    rises = [(rate["rises_above_threshold"], 6) for rate in flicker["by_frame_rate"].values()]
    rows = re.findall(r"\| (\d+) \| (\d+) \|", page)
    assert sorted((int(a), int(b)) for a, b in rows) == sorted(rises)
    whole = flicker["all_labels_by_frame_rate"]["10"]
    assert f"{whole['rises_above_threshold']} rises at 10" in page
    assert f"are {whole['events']} events" in page


def test_the_stored_scores_are_those_of_the_clip(clips: Path, flicker: dict[str, Any]) -> None:
    with (
        Recognizer.from_engine(demo_engine()) as recognizer,
        open_source(clips / flicker["clip"]) as source,
    ):
        column = recognizer.labels.index(flicker["label"])
        for frame in source:
            if frame.index % 97 == 0:
                score = recognizer(frame).scores[column]
                # The runtime that was fastest then may have computed in bfloat16.
                assert score == pytest.approx(flicker["scores"][3 * frame.index], abs=1e-2)


@pytest.mark.pages
def test_the_page_says_what_clips_cost() -> None:
    record = json.loads((RESULTS / "clips.json").read_text())
    page = " ".join(Path("docs/label_a_camera.md").read_text().split())
    cost = {
        name: [run["cpu_ms_per_frame"] for run in runs] for name, runs in record["runs"].items()
    }
    plain, clips = cost["without"], cost["with clips"]
    assert f"{min(plain):.1f} to {max(plain):.1f} ms of the processor a frame without" in page
    assert f"and {min(clips):.1f} to {max(clips):.1f} ms with them" in page
    parts = record["parts"]
    assert f"keep a packet takes {parts['us_to_keep_a_packet']:.1f} microseconds" in page
    assert f"a clip of {parts['clip_s']} s {parts['ms_to_make_a_clip']:.1f} ms" in page
    assert all(run["clips"] == 24 for run in record["runs"]["with clips"])
