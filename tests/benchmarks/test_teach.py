"""What teaching and contracts are measured by, and that the pages say what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import event_contract
from benchmarks.event_contract import measure
from benchmarks.teach import __main__ as command
from benchmarks.teach.lessons import Part, draw, teach
from benchmarks.teach.report import fill_page, table
from cmlr_edge.events.contract import Wish
from cmlr_edge.events.replay import Counts
from tests.cmlr_edge.teaching.patches import write_patch_engine, write_pictures
from train.data import LabeledImages
from train.data.base import LabeledImage

ROOT = Path(__file__).parents[2]


def part(count: int, seed: int, *, scale: float = 1.0) -> Part:
    """Pictures of 6 tokens in 8 channels, a label shown by one token in a channel of that scale."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(count, 6, 8))
    there = rng.random(count) < 0.4
    tokens[there, rng.integers(0, 6, there.sum()), 3] += 6
    tokens[:, :, 3] *= scale
    return Part(tokens.astype(np.float16), there[:, None].astype(np.float32))


def test_a_label_that_one_token_shows_is_learned_from_a_few_pictures() -> None:
    lesson = teach(part(200, 0), part(100, 1), 0, 20, 40, seed=0)
    assert (lesson["positives"], lesson["negatives"]) == (20, 40)
    assert lesson["ap"] > 85


def test_a_label_is_learned_as_well_from_a_channel_whose_numbers_are_small() -> None:
    usual, small = (
        teach(part(200, 0, scale=scale), part(100, 1, scale=scale), 0, 20, 40, seed=0)["ap"]
        for scale in (1.0, 1e-3)
    )
    assert small == pytest.approx(usual, abs=1)


def test_pictures_are_drawn_with_and_without_the_label_and_never_twice() -> None:
    targets = np.array([1, 0, 1, 0, 0, 1], np.float32)
    rows = draw(targets, 50, 2, seed=0)
    assert len(set(rows.tolist())) == len(rows) == 5
    assert targets[rows].sum() == 3


def test_the_seconds_of_a_lesson_with_its_certificate_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = write_patch_engine(tmp_path / "engine")
    monkeypatch.setattr(command, "demo_engine", lambda: engine)
    monkeypatch.setattr(command, "_PROVIDERS", ("cpu",))
    monkeypatch.setattr(command, "_TAUGHT", (12, 20))
    images = [
        LabeledImage(path, "train", (0,) if yellow else ())
        for yellow in (True, False)
        for path in write_pictures(tmp_path / str(yellow), 25, yellow=yellow).iterdir()
    ]
    monkeypatch.setattr(
        command, "read_dataset", lambda _: LabeledImages("made", ("person",), tuple(images))
    )
    out = tmp_path / "r.json"
    command.main(tmp_path, out=out, work=tmp_path / "work", only="time")
    found = json.loads(out.read_bytes())["time"]
    assert found["pictures"] == [12, 20]
    compared = found["frames_by_step"]["comparing old scores in cpu"]
    assert found["bit_equal"] == {"cpu": compared}
    assert compared >= 12 + 20 + 8  # patterns, besides
    for seconds in (found["wall_seconds"], found["cpu_seconds"]):
        assert {"looking at pictures", "fitting", "comparing old scores in cpu"} <= seconds.keys()
        assert seconds["all"] == pytest.approx(sum(seconds.values()) / 2, abs=0.05)


def counts(false_events: int, found: int) -> Counts:
    none = np.array([[0]])
    return Counts(
        np.array([[found]]), np.array([4]), np.array([[false_events]]), none, none, np.array([1.0])
    )


def test_coverage_counts_how_often_the_truth_lies_in_the_bounds() -> None:
    rng = np.random.default_rng(0)
    pool = [counts(int(rng.poisson(1)), int(rng.binomial(4, 0.8))) for _ in range(60)]
    found = measure(pool, Wish(48.0, 0.5), draws=200, seed=0)
    assert min(found["covered"].values()) > 0.9
    assert found["proven_and_untrue"] <= 0.05
    # A place whose recordings never err is proven, and truly.
    sure = measure([counts(0, 4)] * 30, Wish(24.0, 0.5), draws=5, seed=0)
    assert sure["proven"] == 1.0
    assert sure["covered"]["either"] == 1.0


@pytest.mark.pages
def test_the_pages_say_what_was_measured() -> None:
    results = ROOT / "benchmarks" / "results"
    page = (ROOT / "docs" / "teach.md").read_text()
    record = json.loads((results / "teach" / "results.json").read_bytes())
    assert table(record) in page
    assert f"takes {record['time']['wall_seconds']['all']:.1f} s with its certificate" in page
    assert fill_page(page, "x").count("x\n<!-- end -->") == 1
    contract = json.loads((results / "events" / "contract.json").read_bytes())
    assert event_contract.table(contract) in (ROOT / "docs" / "event_contract.md").read_text()
