"""Runs of the default beside those of the decoder, and the page's table of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.no_harm import Pair, fill, read_pairs, table

ROOT = Path(__file__).parents[2]


def test_one_run_that_is_far_behind_is_counted_whatever_the_others_gain() -> None:
    pairs = [Pair("a", "1", 50.0, 40.0), Pair("a", "2", 30.0, 33.0), Pair("b", "1", 9.0, 11.0)]
    rows = table(pairs).splitlines()[2:]
    assert rows == ["| a | 2 | +3.5 | -3.0 | 1 |", "| b | 1 | -2.0 | -2.0 | 0 |"]
    page = fill("before\n<!-- no harm -->\nold\n<!-- end -->\nafter", "new")
    assert page == "before\n<!-- no harm -->\nnew\n<!-- end -->\nafter"


@pytest.mark.pages
def test_no_other_stored_run_is_far_behind_and_the_page_lists_them() -> None:
    pairs = read_pairs(ROOT / "benchmarks" / "results")
    record = json.loads((ROOT / "benchmarks/results/no_harm.json").read_text())
    assert [run["gain"] for run in record["runs"]] == [round(pair.gain, 2) for pair in pairs]
    behind = [pair.benchmark for pair in pairs if pair.gain < -record["tolerated"]]
    assert record["behind"] == len(behind)
    # Known, and said on the page: new objects before new photographs, surroundings as in training.
    assert sorted(behind) == [
        *3 * ["cut-out photographs, development, like the training"],
        "cut-out photographs, reported, like the training",
    ]
    page = (ROOT / "docs/natural.md").read_text()
    assert page == fill(page, table(pairs))
