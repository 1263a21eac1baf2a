"""Frames are chosen as each way says, halves are found, and the page holds what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.collect import __main__ as command
from benchmarks.collect import worlds
from benchmarks.collect.kills import BAD, run_kills
from benchmarks.collect.report import MARKS, frames_until_half, summarize, table
from benchmarks.collect.sampling import (
    CONTRADICTION,
    ENTROPY,
    MARGIN,
    RANDOM,
    WAYS,
    choose,
    kinds_of,
)
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.why import Reasons
from tests.benchmarks.noise_scenes import typer_app, use_noise
from tests.placed_engine import write_placed_engine

ROOT = Path(__file__).parents[2]


def pool(own: list[list[float]], surroundings: list[list[float]]) -> list[Reasons]:
    meaning = ExplanationSpec({}, (0.0, 0.0), surroundings="own")
    rows = zip(np.array(own, np.float32), np.array(surroundings, np.float32), strict=True)
    return [
        Reasons(
            ("a", "b"),
            (1 / (1 + np.exp(-(first + second)))).astype(np.float32),
            {"own_evidence": first, "surroundings": second},
            meaning,
            np.full(2, 0.5, np.float32),
        )
        for first, second in rows
    ]


def test_every_way_chooses_by_what_it_says() -> None:
    frames = pool(
        [[-9, 9], [-2, 9], [0.1, 9], [0.6, 0.6], [9, -9]],
        [[0, 0], [4, 0], [0, 0], [0, 0], [0, 0]],
    )
    assert choose(CONTRADICTION, frames, 1, 0).tolist() == [1]
    assert choose(MARGIN, frames, 1, 0).tolist() == [2]
    assert choose(ENTROPY, frames, 1, 0).tolist() == [3]
    assert sorted(choose(RANDOM, frames, 5, 0)) == [0, 1, 2, 3, 4]
    assert sorted(choose(CONTRADICTION, frames, 2, 0)) == [1, 2]  # what is near comes after
    assert kinds_of(frames, np.array([0, 1, 2])) == {"surroundings": 1, "near": 1}


def test_half_is_found_between_two_numbers_of_frames() -> None:
    budgets = [0, 40, 80]
    assert frames_until_half(budgets, np.array([0.4, 0.3, 0.1])) == pytest.approx(60)
    assert frames_until_half(budgets, np.array([0.4, 0.3, 0.21])) is None


def test_worlds_are_summed_up_with_intervals() -> None:
    def world(gain: float) -> dict[str, Any]:
        def points(way: str) -> list[dict[str, Any]]:
            left = 0.2 - gain * (way == CONTRADICTION)
            names = ("missed_alone", "said_without", "exclusive_ap", "all_ap", "alone")
            return [
                {"budget": b, "exclusive_error": e} | dict.fromkeys(names, 0.5)
                for b, e in ((0, 0.4), (40, left))
            ]

        return {"runs": [{"way": way, "seed": 0, "points": points(way)} for way in WAYS]}

    summary = summarize([world(0.02), world(0.03), world(0.04)])
    gain = summary["contradictions less"][RANDOM][1]
    assert gain["mean"] == pytest.approx(-0.03)
    assert gain["interval"][0] < -0.03 < gain["interval"][1]
    assert summary["ways"][RANDOM]["until_half"] == [40.0] * 3
    assert "| random | 40.0 | 20.0 | 40, 40, 40 |" in table(summary)


@pytest.mark.slow
def test_one_command_measures_all_that_the_page_tells_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    use_noise(monkeypatch, work / "scale-0.01", worlds)
    monkeypatch.setattr(command, "run_kills", lambda kills, _: {"kills": kills})
    words = [f"--work={work}", f"--out={out}", "--scale=0.01", "--world=0", "--world=1"]
    for _ in range(2):
        done = CliRunner().invoke(typer_app(command.collect), words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        monkeypatch.setattr(worlds, "fit_head", None)  # the second time all is there
    names = {"worlds.json", "worlds.md", "worlds.png", "cost.json", "kills.json"}
    assert {path.name for path in out.iterdir()} == names
    record = json.loads((out / "worlds.json").read_text())
    stored = json.loads((ROOT / "benchmarks/results/collect/worlds.json").read_text())
    assert record["counts"].keys() == stored["counts"].keys()
    assert record["summary"]["ways"].keys() == stored["summary"]["ways"].keys()
    assert [p["budget"] for p in record["worlds"][0]["runs"][0]["points"]] == [0, 4, 8]


@pytest.mark.slow
def test_kills_lose_and_double_nothing_and_lock_nobody_out(tmp_path: Path) -> None:
    found = run_kills(2, tmp_path, write_placed_engine(tmp_path / "engine"))
    bad = [f"{what}{name}" for what in ("", "blocks_") for name in BAD]
    assert {name: found[name] for name in bad} == dict.fromkeys(bad, 0)
    assert found["frames"] > 30
    assert found["blocks"] == 9  # of the ten seconds; the last one was not yet whole


@pytest.mark.pages
def test_the_page_holds_the_stored_numbers() -> None:
    page = (ROOT / "docs/collect.md").read_text()
    stored = json.loads((ROOT / "benchmarks/results/collect/worlds.json").read_text())
    assert MARKS[0] + table(stored["summary"]) + "\n" + MARKS[1] in page
    kills = json.loads((ROOT / "benchmarks/results/collect/kills.json").read_text())
    assert [kills[name] for name in BAD] == [0, 0, 0, 0]
    assert f"killed at {kills['kills']} random moments" in " ".join(page.split())
    storm = json.loads((ROOT / "tests/cmlr_edge/place/kill_storm.json").read_text())
    assert [storm[f"{what}{name}"] for what in ("", "blocks_") for name in BAD] == [0] * 8
    assert f"{storm['kills']} kills" in page
