from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.why import tables
from benchmarks.why.scenes import MARGINS, PARTS, _flag, _hits, summarize
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.why import Reasons

ROOT = Path(__file__).parents[2]


def test_a_cell_counts_where_its_middle_is_in_the_box() -> None:
    assert _hits(0, (0, 0, 32, 32), 0)  # its middle is at 16, 16
    assert not _hits(0, (17, 0, 32, 32), 0)
    assert _hits(0, (17, 0, 32, 32), 15)
    assert _hits(48, (200, 200, 224, 224), 0)  # the last one, at 208, 208
    assert not _hits(6, (200, 200, 224, 224), 0)  # the last of the first row


def test_the_flag_is_judged_on_what_is_said() -> None:
    meaning = ExplanationSpec({}, (0.0, 0.0), surroundings="own")
    own = np.array([[1.0, -1.0], [-1.0, -3.0]], np.float32)
    surroundings = np.array([[0.5, 2.0], [2.0, 0.5]], np.float32)
    scores = (1 / (1 + np.exp(-(own + surroundings)))).astype(np.float32)
    thresholds = np.full(2, 0.5, np.float32)
    reasons = [
        Reasons(
            ("a", "b"),
            scores[i],
            {"own_evidence": own[i], "surroundings": surroundings[i]},
            meaning,
            thresholds,
        )
        for i in range(2)
    ]
    targets = np.array([[1, 0], [1, 0]], np.float32)
    found = _flag(reasons, scores, targets, thresholds)
    assert (found["said"], found["false_alarms"]) == (3, 1)
    at_zero = next(point for point in found["curve"] if point["margin"] == 0)
    assert at_zero == {"margin": 0, "flagged": 2, "precision": 0.5, "recall": 1.0}
    assert found["curve"][0]["flagged"] == 0
    assert found["curve"][-1]["flagged"] == 3


def test_worlds_are_summed_up_with_intervals() -> None:
    def world(share: float) -> dict[str, Any]:
        pointing = {"labels": 10, "attention": share, "Grad-CAM": 0.2, "a random cell": 0.05}
        curve = [{"margin": m, "flagged": 4, "precision": share, "recall": 0.5} for m in MARGINS]
        flag = {"said": 20, "false_alarms": 5, "curve": curve}
        return {"parts": {part: {"pointing": pointing, "flag": flag} for part in PARTS}}

    summary = summarize([world(0.3), world(0.4), world(0.5)])["do"]
    assert summary["pointing"]["attention"]["mean"] == pytest.approx(0.4)
    low, high = summary["attention less Grad-CAM"]["interval"]
    assert low < 0.2 < high
    assert (summary["labels"], summary["share_false"]) == (30, 0.25)
    assert summary["curve"][0]["precision"]["mean"] == pytest.approx(0.4)


@pytest.mark.pages
@pytest.mark.parametrize("table", ["sums", "cost", "pointing", "flag"])
def test_the_page_holds_the_stored_numbers(table: str) -> None:
    page = (ROOT / "docs/why.md").read_text()
    assert getattr(tables, f"{table}_table")() in page
    assert getattr(tables, f"{table}_sentence")() in " ".join(page.split())
