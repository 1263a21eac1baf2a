"""Intervals, a table and pictures from the stored results of `runs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.context_bias.methods import DECODER, METHODS, Method

_RESAMPLES = 2000
MEASURES = (
    ("do", "exclusive"),
    ("do", "co_occur"),
    ("do", "all"),
    ("do", "causal_effects"),
    ("iid", "all"),
    ("cross", "all"),
    ("do", "nll"),
)


@dataclass(frozen=True)
class Interval:
    """Median over runs, and a 95 % bootstrap interval of the mean over data and training seeds."""

    median: float
    low: float
    high: float


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the report: for every method and read-out, every measure and its gain on the decoder.

    Args:
        runs: Records of `runs.run`.
    """
    by_method: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_method.setdefault(run["method"], []).append(run)
    reference = {(run["scenes"], run["seed"]): run for run in by_method.get(DECODER, [])}
    rows = []
    for method in METHODS:
        mine = by_method.get(method.name, [])
        if mine:
            rows += [_row(method, mine, read_out, reference) for read_out in mine[0]["parts"]["do"]]
    return {"reference": DECODER, "rows": rows}


def _row(
    method: Method,
    runs: list[dict[str, Any]],
    read_out: str,
    reference: dict[tuple[str, int], dict[str, Any]],
) -> dict[str, Any]:
    pairs = [(run, reference[run["scenes"], run["seed"]]) for run in runs if _id(run) in reference]
    values, gains = {}, {}
    for part, measure in MEASURES:
        name = f"{part} {measure}"

        def of(run: dict[str, Any], part: str = part, measure: str = measure) -> float:
            return float(run["parts"][part].get(read_out, {}).get(measure, np.nan))

        def gain(pair: Any, part: str = part, measure: str = measure) -> float:
            ours = pair[0]["parts"][part][read_out][measure]
            return float(ours - pair[1]["parts"][part]["deployed"][measure])

        values[name] = vars(_interval(runs, of))
        if pairs and method.name != DECODER:
            gains[name] = vars(_interval(pairs, gain))
    links = {}
    if "do-swap" in runs[0]["links"]:
        for key in ("auc", "causal", "spurious"):
            links[key] = float(np.median([run["links"]["do-swap"][key] for run in runs]))
        links["ratio"] = links["spurious"] / max(links["causal"], 1e-9)
    return {
        "method": method.name,
        "group": method.group,
        "read_out": read_out,
        "knows_pairs": method.knows_pairs,
        "runs": len(runs),
        "values": values,
        "gains": gains,
        "links": links,
        "seconds": float(np.median([run["seconds"] for run in runs])),
    }


def _id(run: dict[str, Any]) -> tuple[str, int]:
    return run["scenes"], run["seed"]


def _interval(items: list[Any], value: Callable[[Any], float]) -> Interval:
    """Resample data seeds, and within each its training seeds."""
    groups: dict[str, list[float]] = {}
    for item in items:
        run = item[0] if isinstance(item, tuple) else item
        groups.setdefault(run["scenes"], []).append(value(item))
    means = _hierarchical_means([np.array(group) for group in groups.values()])
    low, high = np.percentile(means, [2.5, 97.5])
    every = np.concatenate([np.array(group) for group in groups.values()])
    return Interval(float(np.median(every)), float(low), float(high))


def _hierarchical_means(groups: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    means = np.empty(_RESAMPLES)
    for i in range(_RESAMPLES):
        drawn = [groups[k] for k in rng.integers(len(groups), size=len(groups))]
        means[i] = np.mean([rng.choice(group, len(group)).mean() for group in drawn])
    return means


def markdown_table(report: dict[str, Any], group: str) -> str:
    """Medians and 95 % intervals as a Markdown table."""
    columns = [f"{part} {measure}" for part, measure in MEASURES]
    lines = [
        "| method, read-out | runs | " + " | ".join(c.replace("_", "-") for c in columns) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    for row in report["rows"]:
        if row["group"] != group:
            continue
        name = row["method"] + (" *" if row["knows_pairs"] else "")
        if row["read_out"] != "deployed":
            name += f", {row['read_out']} context"
        cells = [_cell(row["values"][column], column) for column in columns]
        lines.append(f"| {name} | {row['runs']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: dict[str, float], column: str) -> str:
    digits = 3 if column.endswith("nll") else 1
    median, low, high = (f"{interval[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} - {high})"


def plot_gains(report: dict[str, Any], path: Path) -> None:
    """Draw every method's gain on the decoder under do(context), with its interval."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in report["rows"] if row["gains"]]
    figure, axes = plt.subplots(
        1, 3, figsize=(13, 0.32 * len(rows) + 1.2), sharey=True, layout="constrained"
    )
    names = [
        row["method"]
        + (" *" if row["knows_pairs"] else "")
        + ("" if row["read_out"] == "deployed" else f", {row['read_out']}")
        for row in rows
    ]
    places = np.arange(len(rows))[::-1]
    titles = {"do exclusive": "Exclusive", "do co_occur": "Co-occur", "iid all": "All, iid"}
    for axis, (measure, title) in zip(axes, titles.items(), strict=True):
        gains = [row["gains"][measure] for row in rows]
        middle = np.array([gain["median"] for gain in gains])
        low = np.array([gain["low"] for gain in gains])
        high = np.array([gain["high"] for gain in gains])
        axis.hlines(places, low, high, color="tab:blue", linewidth=3, alpha=0.4)
        axis.plot(middle, places, "o", color="tab:blue", markersize=4)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{title}: gain on the label decoder, points", fontsize=9)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, names, fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
