"""A table of many runs: means over seeds with intervals, and paired gains on the first arm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import t_interval
from benchmarks.papers.recipes import Table
from benchmarks.records import markdown_table, write_json, write_text

_TITLES = {
    "mean_ap": "mAP",
    "exclusive": "Exclusive",
    "co_occur": "Co-occur",
    "all_labels": "All",
    "non_biased": "Non-biased",
}


def results_table(table: Table, runs: list[dict[str, Any]]) -> str:
    """Format the runs of one test set.

    Behind a mean stands the 95 % interval over seeds (Student's t); of a single run the one over test
    pictures. Gains are paired by seed.
    """
    reference = next(iter(table.arms))
    heads = [head for name in table.measures for head in (_TITLES[name], "gain")]
    rows = []
    of_arm = {
        arm: {run["seed"]: run["measures"] for run in runs if run["arm"] == arm}
        for arm in table.arms
    }
    for arm, own in of_arm.items():
        if own:
            cells = [
                cell
                for name in table.measures
                for cell in (_value(own, name), _gain(own, of_arm[reference], name))
            ]
            rows.append((arm, len(own), *cells))
    return markdown_table(("arm", "runs", *heads), rows)


def _value(own: dict[int, Any], name: str) -> str:
    found = [measures[name] for measures in own.values() if measures[name]["value"] is not None]
    if not found:
        return "-"
    values = np.array([item["value"] for item in found])
    low, high = t_interval(values) if len(values) > 1 else (found[0]["low"], found[0]["high"])
    return f"{values.mean():.1f}{_brackets(low, high)}"


def _gain(own: dict[int, Any], other: dict[int, Any], name: str) -> str:
    gains = [
        own[seed][name]["value"] - other[seed][name]["value"]
        for seed in sorted(own.keys() & other.keys())
        if None not in {own[seed][name]["value"], other[seed][name]["value"]}
    ]
    if not gains or own is other:
        return ""
    return f"{np.mean(gains):+.1f}{_brackets(*t_interval(np.array(gains)))}"


def _brackets(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None or np.isnan(low) else f" ({low:.1f} - {high:.1f})"


def plan_table(table: Table) -> str:
    """What is to be downloaded, and how long the runs are expected to take."""
    rows = [
        (arm, table.config(arm, 0, []).epochs, *(f"{value:.1f}" for value in table.hours(arm)))
        for arm in table.arms
    ]
    head = "arm", "epochs", "h on 1 GPU", "h on 8"
    return "\n".join([table.title, table.download, markdown_table(head, rows)])


def write_report(table: Table, runs: list[dict[str, Any]], out: Path) -> str:
    """Write results.json and table.md; return the tables, one per test set."""
    tests = list(dict.fromkeys(run["test"] for run in runs))
    tables = [
        f"{test}\n\n{results_table(table, [run for run in runs if run['test'] == test])}"
        for test in tests
    ]
    record = {"table": table.name, "arms": table.arms, "runs": runs}
    write_json(out / "results.json", record)
    write_text(out / "table.md", text := "\n\n".join(tables))
    return text
