"""Intervals, a table and pictures from the stored results of `runs`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import records
from benchmarks.context_bias.methods import (
    CONTROL,
    DECODER,
    DEEP_AND_POOLED,
    DEEP_CONTROL,
    DEEP_DECODER,
    DEFAULT,
    EXPERTS,
    FITTED,
    JTT,
    METHODS,
    ML_DECODER,
    POOLED,
    POOLED_EXPERTS,
    Method,
)

_RESAMPLES = 2000
_Value = Callable[[dict[str, Any]], float]  # a number of one run
REFERENCES = (
    *(DECODER, POOLED, ML_DECODER, DEEP_DECODER, DEEP_AND_POOLED, JTT, POOLED_EXPERTS),
    *(CONTROL, DEEP_CONTROL, DEFAULT, FITTED, EXPERTS),
)
AVERAGED = "the same, averaged prior"  # what the own context is compared with as well
MEASURES = (
    ("do", "exclusive"),
    ("do", "co_occur"),
    ("do", "all"),
    ("do", "causal_effects"),
    ("iid", "all"),
    ("cross", "all"),
    ("do", "nll"),
)
GAINS = {  # what the tables of gains show, and under which heading
    "do exclusive": "Exclusive",
    "do co_occur": "Co-occur",
    "do all": "All, do",
    "do causal_effects": "causal effects",
    "iid all": "All, iid",
    "cross all": "All, cross-style",
}
_READ_OUT_NAMES = {
    "deployed": "",
    "prior": ", averaged prior",
    "own": ", own context",
    "chosen": ", as fit chooses",
}


@dataclass(frozen=True)
class Interval:
    """Median over runs, and a 95 % bootstrap interval of the mean over data and training seeds."""

    median: float
    low: float
    high: float


def rounded(value: Any) -> Any:
    """Round every number of a record to what its noise leaves of it, so that it can be stored."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the report: for every method and read-out, every measure and its gain on others.

    Args:
        runs: Records of `runs.run`.
    """
    by_method: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_method.setdefault(run["method"], []).append(run)
    references = {
        name: {_id(run): run for run in by_method[name]} for name in REFERENCES if name in by_method
    }
    rows = []
    for method in METHODS:
        mine = by_method.get(method.name, [])
        if mine:
            rows += [
                _row(method, mine, read_out, references) for read_out in mine[0]["parts"]["do"]
            ]
    return {"cpu_minutes": _cpu_minutes(runs), "rows": rows}


def _row(
    method: Method,
    runs: list[dict[str, Any]],
    read_out: str,
    references: dict[str, dict[tuple[str, int], dict[str, Any]]],
) -> dict[str, Any]:
    links = {}
    if "do-swap" in runs[0]["links"]:
        for key in ("auc", "causal", "spurious"):
            links[key] = float(np.median([run["links"]["do-swap"][key] for run in runs]))
        links["ratio"] = links["spurious"] / max(links["causal"], 1e-9)
    gains = {
        name: _gains(runs, read_out, reference)
        for name, reference in references.items()
        if name != method.name and any(_id(run) in reference for run in runs)
    }
    if read_out == "own":
        itself = {_id(run): run for run in runs}
        gains[AVERAGED] = _gains(runs, read_out, itself, compared_with="prior")
    return {
        "method": method.name,
        "group": method.group,
        "read_out": read_out,
        "knows_pairs": method.knows_pairs,
        "runs": len(runs),
        "values": {
            f"{part} {measure}": vars(_interval(runs, _value(part, measure, read_out)))
            for part, measure in MEASURES
        },
        "gains": gains,
        "links": links,
        "cpu_seconds": _median_cost(runs),
    }


def _cpu_minutes(runs: list[dict[str, Any]]) -> float | None:
    """Of all heads, on one core; None where some were not measured."""
    measured = [run["cpu_seconds"] for run in runs if "cpu_seconds" in run]
    return round(sum(measured) / 60, 1) if len(measured) == len(runs) else None


def _median_cost(runs: list[dict[str, Any]]) -> float | None:
    """CPU seconds of one run; None where none was measured."""
    measured = [run["cpu_seconds"] for run in runs if "cpu_seconds" in run]
    return float(np.median(measured)) if measured else None


def _gains(
    runs: list[dict[str, Any]],
    read_out: str,
    reference: dict[tuple[str, int], dict[str, Any]],
    *,
    compared_with: str | None = None,
) -> dict[str, Any]:
    """Each run against the reference of the same world and training seed.

    Args:
        runs: Of one method.
        read_out: Of those runs.
        reference: By world and seed.
        compared_with: The reference's read-out; None: the same one where it has it.
    """
    paired = [run for run in runs if _id(run) in reference]
    gains = {}
    for part, measure in MEASURES:

        def gain(run: dict[str, Any], part: str = part, measure: str = measure) -> float:
            other = reference[_id(run)]
            theirs = compared_with or _same_read_out(other, read_out)
            return _value(part, measure, read_out)(run) - _value(part, measure, theirs)(other)

        gains[f"{part} {measure}"] = vars(_interval(paired, gain))
    return gains


def _same_read_out(run: dict[str, Any], read_out: str) -> str:
    """The read-out of `run` to compare with: the same one, else the averaged prior or its only."""
    known = run["parts"]["do"]
    return next(name for name in (read_out, "prior", "deployed") if name in known)


def _value(part: str, measure: str, read_out: str) -> _Value:
    return lambda run: float(run["parts"][part][read_out][measure])


def _id(run: dict[str, Any]) -> tuple[str, int]:
    return run["scenes"], run["seed"]


def _interval(runs: list[dict[str, Any]], value: _Value) -> Interval:
    """Resample data seeds, and within each its training seeds."""
    groups: dict[str, list[float]] = {}
    for run in runs:
        groups.setdefault(run["scenes"], []).append(value(run))
    means = _hierarchical_means([np.array(group) for group in groups.values()])
    low, high = np.percentile(means, [2.5, 97.5])
    every = np.concatenate([np.array(group) for group in groups.values()])
    return Interval(float(np.median(every)), float(low), float(high))


def _hierarchical_means(groups: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over drawn groups of the mean over drawn members, for every resample."""
    rng, shape = np.random.default_rng(0), (_RESAMPLES, len(groups))
    means = np.stack(
        [
            group[rng.integers(len(group), size=(*shape, len(group)))].mean(axis=2)
            for group in groups
        ]
    )
    drawn = rng.integers(len(groups), size=(1, *shape))
    return np.asarray(np.take_along_axis(means, drawn, axis=0)[0].mean(axis=1))


def gains_table(
    report: dict[str, Any], group: str | None, *, only: Collection[str] | None = None
) -> str:
    """Gains on the label decoder as a Markdown table, in points.

    Args:
        report: Of `summarize`.
        group: "main", "fit" or "ablation"; None: all of them.
        only: Read-outs to show; None: all of them.
    """
    rows = [
        (row["method"] + _READ_OUT_NAMES[row["read_out"]], row["runs"], *_gain_cells(row, DECODER))
        for row in report["rows"]
        if group in {None, row["group"]}
        and DECODER in row["gains"]
        and (only is None or row["read_out"] in only)
    ]
    return records.markdown_table(("head, read-out", "runs", *GAINS.values()), rows)


def references_table(report: dict[str, Any], method: str, read_out: str | None = None) -> str:
    """Gains of one method on every reference as a Markdown table.

    Args:
        report: Of `summarize`.
        method: Its name.
        read_out: Of the method, and of a reference that has it; None: the averaged prior if any.
    """
    rows = (row for row in report["rows"] if row["method"] == method)
    wanted = {read_out} if read_out else {"prior", "deployed"}
    row = next(row for row in rows if row["read_out"] in wanted)
    cells = [(name, *_gain_cells(row, name)) for name in row["gains"]]
    return records.markdown_table(("against", *GAINS.values()), cells)


def _gain_cells(row: dict[str, Any], reference: str) -> list[str]:
    return [gain_cell(row["gains"][reference][key]) for key in GAINS]


def gain_cell(gain: dict[str, float]) -> str:
    """A gain as the tables tell it, with its interval."""
    return f"{gain['median']:+.1f} ({gain['low']:.1f} - {gain['high']:.1f})"


def markdown_table(report: dict[str, Any], group: str) -> str:
    """Medians and 95 % intervals as a Markdown table."""
    columns = [f"{part} {measure}" for part, measure in MEASURES]
    lines = []
    for row in report["rows"]:
        if row["group"] != group:
            continue
        name = row["method"] + (" *" if row["knows_pairs"] else "")
        if row["read_out"] == "chosen":
            name += _READ_OUT_NAMES["chosen"]
        elif row["read_out"] != "deployed":
            name += f", {row['read_out']} context"
        cells = [_cell(row["values"][column], column) for column in columns]
        lines.append((name, row["runs"], *cells))
    head = "method, read-out", "runs", *(column.replace("_", "-") for column in columns)
    return records.markdown_table(head, lines)


def _cell(interval: dict[str, float], column: str) -> str:
    digits = 3 if column.endswith("nll") else 1
    median, low, high = (f"{interval[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} - {high})"


def plot_gains(report: dict[str, Any], path: Path) -> None:
    """Draw the gain of every main method on the decoder, with its interval."""
    rows = [row for row in report["rows"] if DECODER in row["gains"] and row["group"] == "main"]
    size = 13, 0.32 * len(rows) + 1.2
    with records.picture(path, 130, columns=3, figsize=size, sharey=True) as axes:
        names = [
            row["method"]
            + (" *" if row["knows_pairs"] else "")
            + ("" if row["read_out"] == "deployed" else f", {row['read_out']}")
            for row in rows
        ]
        places = np.arange(len(rows))[::-1]
        titles = {"do exclusive": "Exclusive", "do co_occur": "Co-occur", "iid all": "All, iid"}
        for axis, (measure, title) in zip(axes, titles.items(), strict=True):
            gains = [row["gains"][DECODER][measure] for row in rows]
            middle = np.array([gain["median"] for gain in gains])
            low = np.array([gain["low"] for gain in gains])
            high = np.array([gain["high"] for gain in gains])
            axis.hlines(places, low, high, color="tab:blue", linewidth=3, alpha=0.4)
            axis.plot(middle, places, "o", color="tab:blue", markersize=4)
            axis.axvline(0, color="black", linewidth=0.8)
            axis.set_title(f"{title}: gain on the label decoder, points", fontsize=9)
            axis.grid(axis="x", alpha=0.3)
            axis.margins(y=0.02)
        axes[0].set_yticks(places, names, fontsize=8)
