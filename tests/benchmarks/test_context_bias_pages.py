"""What the pages say of heads and worlds is what the stored runs gave."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.context_bias import cutouts_page
from benchmarks.context_bias.methods import (
    DECODER,
    DEEP,
    DEFAULT,
    FITTED,
    METHODS,
    THOUSANDS,
)
from benchmarks.context_bias.report import (
    AVERAGED,
    GAINS,
    gains_table,
    references_table,
    summarize,
)
from benchmarks.records import fill_marks
from train.settings import build_config

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "context_bias"
SHORTER = {"deployed", "prior"}  # the read-outs of the shorter tables
PAGE = ROOT / "docs" / "context_scenes.md"
FOLDERS = (
    "", "development", "fit", "fit/development", "fit/untouched", "fit/untouched_full", "mixed", "unbiased",
    "two_contexts", "weak_bias", "cutouts", "cutouts/development", "cutouts/candidates", "cutouts/drawn",
)  # fmt: skip


@pytest.mark.pages
def test_every_method_of_the_results_is_still_compared() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {m.name for m in METHODS if m.group != "fit"}


@pytest.mark.pages
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_results_follow_from_the_stored_runs(folder: str) -> None:
    lines = (RESULTS / folder / "runs.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    stored = json.loads((RESULTS / folder / "results.json").read_text())["rows"]
    for row, again in zip(stored, summarize(runs)["rows"], strict=True):
        assert (row["method"], row["read_out"]) == (again["method"], again["read_out"])
        for column, value in again["values"].items():
            assert row["values"][column] == pytest.approx(value)
        for reference, gains in again["gains"].items():
            for column, value in gains.items():
                assert row["gains"][reference][column] == pytest.approx(value)


@pytest.mark.pages
@pytest.mark.parametrize(
    ("folder", "text"),
    [
        (
            "mixed",
            "Matrix links keep {} of the strength of causal links on spurious ones there, gated attention {}",
        ),
        ("two_contexts", "Matrix links keep {} there, gated attention {}"),
    ],
)
def test_the_page_says_how_strong_spurious_links_stay(folder: str, text: str) -> None:
    rows = json.loads((RESULTS / folder / "results.json").read_text())["rows"]
    ratios = {row["method"]: row["links"].get("ratio") for row in rows}
    page = " ".join(PAGE.read_text().split())
    names = (DEFAULT, "back-door, gated attention links")
    assert text.format(*(f"{ratios[name]:.2f}" for name in names)) in page


@pytest.mark.pages
def test_the_page_says_how_many_heads_were_trained_and_for_how_long() -> None:
    report = json.loads((RESULTS / "results.json").read_text())
    runs = (RESULTS / "runs.jsonl").read_text().splitlines()
    text = f"trains {len(runs)} heads, {report['cpu_minutes']:.0f} minutes of one core"
    assert text in " ".join(PAGE.read_text().split())


@pytest.mark.pages
def test_the_page_says_what_sparsity_does_to_spurious_links() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    ratios = {row["method"]: row["links"].get("ratio") for row in rows}
    names = (
        DEFAULT,
        "back-door, sparse matrix links",
        DEEP,
        "back-door, sparser matrix links, two decoder layers, K = 80",
        "back-door, two decoder layers",
    )
    text = (
        "from {} of that of causal ones to {} with one layer; with two layers it is {}, {} with "
        "twice the sparsity and {} with none"
    )
    page = " ".join(PAGE.read_text().split())
    assert text.format(*(f"{ratios[name]:.2f}" for name in names)) in page


@pytest.mark.pages
def test_every_method_has_five_runs_or_more() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    assert min(row["runs"] for row in rows) >= 5


@pytest.mark.pages
@pytest.mark.parametrize(("group", "only"), [("main", None), ("ablation", SHORTER)])
def test_the_page_has_the_gains_of_every_method(group: str, only: set[str] | None) -> None:
    report = json.loads((RESULTS / "results.json").read_text())
    assert gains_table(report, group, only=only) in PAGE.read_text()


@pytest.mark.pages
@pytest.mark.parametrize("method", [DEFAULT, DEEP])
def test_the_page_says_what_a_head_gains_on_each_reference(method: str) -> None:
    report = json.loads((RESULTS / "results.json").read_text())
    assert references_table(report, method) in PAGE.read_text()


@pytest.mark.pages
def test_intervals_of_two_layers_and_of_the_label_decoder_do_not_overlap() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    values = {row["method"]: row["values"] for row in rows if row["read_out"] != "own"}
    for column in ("do exclusive", "do co_occur", "do all"):
        assert values[DEEP][column]["low"] > values[DECODER][column]["high"]


@pytest.mark.pages
def test_the_rule_for_the_read_out_is_what_was_measured() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    mine = [row for row in rows if row["read_out"] == "own" and row["group"] == "main"]
    assert len(mine) == 5
    gains = [row["gains"][AVERAGED] for row in mine]
    page = " ".join(PAGE.read_text().split())
    for column, sign, text in (
        ("do exclusive", -1, "{} to {} points less of Exclusive"),
        ("do all", -1, "{} to {} less of All"),
        ("iid all", 1, "{} to {} points more of All on the iid part"),
    ):
        medians = sorted(sign * gain[column]["median"] for gain in gains)
        assert text.format(*(f"{medians[place]:.1f}" for place in (0, -1))) in page
        assert all(sign * gain[column][end] > 0 for gain in gains for end in ("low", "high"))


WORLDS = (
    ("direct cause too", "mixed"),
    ("two contexts", "two_contexts"),
    ("weaker bias", "weak_bias"),
    ("no bias", "unbiased"),
)


OTHER_ROWS = {
    "matrix, averaged prior": ("back-door, matrix links", "prior"),
    "matrix, own context": ("back-door, matrix links", "own"),
    "gated attention, averaged prior": ("back-door, gated attention links", "prior"),
    "gated attention, own context": ("back-door, gated attention links", "own"),
    "matrix, no confounders": ("matrix links, no confounders", "deployed"),
}


@pytest.mark.pages
@pytest.mark.parametrize(("title", "folder"), WORLDS)
@pytest.mark.parametrize("name", OTHER_ROWS)
def test_the_page_says_what_was_measured_in_other_worlds(
    title: str, folder: str, name: str
) -> None:
    assert_page_holds(f"{title}: {name}", RESULTS / folder / "results.json", *OTHER_ROWS[name])


def assert_page_holds(name: str, results: Path, method: str, read_out: str) -> None:
    report = json.loads(results.read_text())
    row = next(r for r in report["rows"] if r["method"] == method and r["read_out"] == read_out)
    page = PAGE.read_text()
    line = next(text for text in page.splitlines() if text.startswith(f"| {name} |"))
    numbers = [float(n) for n in re.findall(r"(?<![\w.])[+-]?\d+\.\d", line)]
    expected = [
        round(row["gains"][DECODER][column][key], 1)
        for column in GAINS
        for key in ("median", "low", "high")
    ]
    assert numbers == pytest.approx(expected)


@pytest.mark.pages
@pytest.mark.parametrize(
    ("folder", "method"),
    [
        ("", THOUSANDS),
        ("fit", FITTED),
        ("fit", THOUSANDS),
        ("fit/untouched", THOUSANDS),
        ("fit/untouched_full", THOUSANDS),
    ],
)
def test_the_page_says_what_the_recipes_heads_gain(folder: str, method: str) -> None:
    report = json.loads((RESULTS / folder / "results.json").read_text())
    assert references_table(report, method) in PAGE.read_text()


@pytest.mark.pages
@pytest.mark.parametrize("folder", ["fit/development"])
def test_the_page_has_the_gains_of_every_candidate(folder: str) -> None:
    report = json.loads((RESULTS / folder / "results.json").read_text())
    assert gains_table(report, None, only=SHORTER) in PAGE.read_text()


@pytest.mark.pages
def test_the_recipe_for_thousands_trains_the_head_that_was_compared() -> None:
    method = next(method for method in METHODS if method.name == THOUSANDS)
    config = build_config({}, [], "thousands")
    names = ("decoder_layers", "pooled_skip", "united_share", "intervention", "label_links")
    for name in names:
        assert getattr(config.model, name) == getattr(method.model, name)
    assert config.model.confounders == method.model.confounders
    assert config.link_sparsity == method.link_sparsity
    assert (config.model.token_stages, config.model.standardize_tokens) == (2, True)


@pytest.mark.pages
@pytest.mark.parametrize(
    "folder", ["", "fit", "fit/development", "fit/untouched", "fit/untouched_full"]
)
def test_links_of_the_recipes_head_are_at_most_a_tenth_spurious(folder: str) -> None:
    rows = json.loads((RESULTS / folder / "results.json").read_text())["rows"]
    (ratio,) = {row["links"]["ratio"] for row in rows if row["method"] == THOUSANDS}
    assert ratio <= 0.1
    assert f"{ratio:.2f}" in PAGE.read_text()


@pytest.mark.pages
def test_the_page_of_cut_outs_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "cutouts.md").read_text()
    found = cutouts_page.tables(cutouts_page.RESULTS)
    assert all(f"<!-- {name} -->" in page for name in found)
    assert fill_marks(page, found) == page
