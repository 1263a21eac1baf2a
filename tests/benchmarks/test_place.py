from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.place import __main__ as command
from benchmarks.place import alarms, tables, worlds
from benchmarks.place.alarms import stream
from benchmarks.place.shifted import SHIFTS, calibration_error, draw, f1, label_shift, shares_of
from tests.benchmarks.noise_scenes import typer_app, use_noise

ROOT = Path(__file__).parents[2]


def test_an_error_of_calibration_is_the_gap_between_what_is_said_and_what_is_there() -> None:
    said = np.full((1000, 1), 0.7)
    there = (np.arange(1000)[:, None] < 400).astype(np.float32)
    assert calibration_error(said, there) == pytest.approx(0.3)
    assert calibration_error(np.full((1000, 1), 0.4), there) == pytest.approx(0)
    assert f1(said >= 0.5, there) == pytest.approx(2 * 400 / 1400)


def test_expectation_maximisation_finds_how_frequent_labels_are_here() -> None:
    rng = np.random.default_rng(0)

    def scored(rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated for a rate of one half."""
        truth = rng.random(20_000) < rate
        seen = rng.normal(np.where(truth, 1.0, -1.0), 1.0)
        return 1 / (1 + np.exp(-2 * seen)), truth

    (seen, _), (judged, truth) = scored(0.1), scored(0.1)
    moved = label_shift(seen[:, None], judged[:, None], np.array([0.5]))
    targets = truth[:, None].astype(np.float32)
    assert calibration_error(moved, targets) < 0.02 < calibration_error(judged[:, None], targets)


@pytest.mark.parametrize("shift", SHIFTS)
def test_scenes_are_drawn_with_the_shares_of_the_shift(shift: str) -> None:
    truth = np.repeat(np.arange(8), [10, 20, 30, 40, 50, 60, 70, 80])
    shares = shares_of(shift, 8, np.random.default_rng(3))
    assert shares.sum() == pytest.approx(1)
    drawn = draw(truth, np.arange(len(truth)), shares, 20_000, seed=1)
    np.testing.assert_allclose(np.bincount(truth[drawn], minlength=8) / 20_000, shares, atol=0.02)


def test_a_stream_shows_each_scene_for_its_time() -> None:
    contexts = np.arange(6.0)[:, None]
    assert stream(contexts, np.array([3, 1]), 2.0, 4).ravel().tolist() == [3, 3, 1, 1]
    assert stream(contexts, np.array([1, 3, 5, 5]), 0.5, 2).ravel().tolist() == [2, 5]


@pytest.mark.slow
def test_one_command_measures_all_that_the_page_tells_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    use_noise(monkeypatch, work / "scale-0.01", worlds, alarms)
    monkeypatch.setattr(command, "run_real", lambda *_, **__: {"clips": {}})
    given = [f"--{name}={tmp_path / name}" for name in ("photos", "clips", "work", "out")]
    command_of = partial(CliRunner().invoke, typer_app(command.place))
    for _ in range(2):
        done = command_of([*given, "--scale=0.01", "--worlds=2"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        monkeypatch.setattr(worlds, "fit_head", None)  # the second time all is there
    found = {path.name: path for path in out.iterdir()}
    assert {*found} == {"scenes.json", "place.png", "clips.json", "cost.json"}
    record = json.loads(found["scenes.json"].read_text())
    assert record["counts"] == {"train": 80, "val": 80, "iid": 80, "do": 0, "cross": 0}
    stored = tables.read("scenes")
    for part in ("prior", "alarms"):
        assert shape_of(record[part]) == shape_of(stored[part])
    cost = json.loads(found["cost.json"].read_text())
    assert min(cost[f"{way}, median ms"] for way in ("counted", "counted and averaged")) > 0
    refused = command_of(["--only=scenes", "--scale=0.01"])
    assert refused.exit_code == 2  # it would be written over what is stored
    assert command_of(["--only=clips"], env={"CMLR_PHOTOS": "", "CMLR_CLIPS": ""}).exit_code == 2


def shape_of(value: Any) -> Any:
    """What keys there are."""
    return {k: shape_of(v) for k, v in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.pages
@pytest.mark.parametrize("name", [*tables.TABLES])
def test_the_page_holds_the_stored_numbers(name: str) -> None:
    page = (ROOT / "docs/place.md").read_text()
    text = tables.TABLES[name]()
    assert text in (page if "|" in text else " ".join(page.split()))
