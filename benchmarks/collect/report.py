"""Summary, table and picture of what labelled frames are worth, from the stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.collect.sampling import CONTRADICTION, WAYS
from benchmarks.intervals import mean_with_interval
from benchmarks.records import markdown_table, picture

MARKS = "<!-- collect -->\n", "<!-- end -->"
ERROR = "exclusive_error"


def summarize(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over worlds, each the mean of its trainings, with 95 % intervals (Student's t)."""
    budgets = [point["budget"] for point in worlds[0]["runs"][0]["points"]]
    summary: dict[str, Any] = {"budgets": budgets, "ways": {}}
    found = {run["way"] for run in worlds[0]["runs"]}
    curves = {way: _curves(worlds, way, ERROR) for way in WAYS if way in found}  # (W, B)
    for way, of_worlds in curves.items():
        until = [frames_until_half(budgets, curve) for curve in of_worlds]
        summary["ways"][way] = {
            name: [mean_with_interval(values) for values in _curves(worlds, way, name).T]
            for name in (ERROR, "missed_alone", "said_without", "exclusive_ap", "all_ap", "alone")
        } | {"until_half": until}
    summary["contradictions less"] = {
        way: [mean_with_interval(gain) for gain in (curves[CONTRADICTION] - curves[way]).T]
        for way in curves
        if way != CONTRADICTION
    }
    return summary


def frames_until_half(budgets: list[int], curve: NDArray[np.float64]) -> float | None:
    """Labelled frames, interpolated, at which an error first is half of what it began with; None: never."""
    half = curve[0] / 2
    for i in range(1, len(curve)):
        if curve[i] <= half:
            share = (curve[i - 1] - half) / (curve[i - 1] - curve[i])
            return float(budgets[i - 1] + share * (budgets[i] - budgets[i - 1]))
    return None


def table(summary: dict[str, Any]) -> str:
    """Markdown: Exclusive errors in percent, by way and number of labelled frames."""
    budgets = summary["budgets"]
    rows: list[tuple[str, ...]] = []
    for way, found in summary["ways"].items():
        cells = [f"{100 * point['mean']:.1f}" for point in found[ERROR]]
        rows.append((way, *cells, _said(found["until_half"], budgets)))
    for way, gains in summary["contradictions less"].items():
        cells = [
            f"{100 * g['mean']:+.1f} [{100 * g['interval'][0]:+.1f}, {100 * g['interval'][1]:+.1f}]"
            for g in gains
        ]
        rows.append((f"contradictions less {way}", *cells, ""))
    return markdown_table(("chosen by", *(f"{b} labelled" for b in budgets), "until half"), rows)


def _said(until: list[float | None], budgets: list[int]) -> str:
    return ", ".join(f"> {budgets[-1]}" if n is None else f"{n:.0f}" for n in until)


def plot(summary: dict[str, Any], path: Path) -> None:
    """Draw Exclusive errors over labelled frames, and how many of them showed a label alone."""
    with picture(path, 110, columns=2, figsize=(10, 3.8)) as (left, right):
        colors = dict(zip(WAYS, ("tab:grey", "tab:blue", "tab:orange", "tab:green"), strict=True))
        for way, found in summary["ways"].items():
            for axes, name, scale in ((left, ERROR, 100), (right, "alone", 1)):
                values = [scale * point["mean"] for point in found[name]]
                axes.plot(
                    summary["budgets"], values, "o-", color=colors[way], markersize=4, label=way
                )
        start = 100 * summary["ways"][CONTRADICTION][ERROR][0]["mean"]
        left.axhline(start / 2, color="black", linestyle=":", linewidth=1)
        left.set_ylim(0)
        left.set_title("Exclusive errors, %; dotted: half of those at the start", fontsize=9)
        right.set_title("labelled frames that were drawn without the usual company", fontsize=9)
        for axes in (left, right):
            axes.set_xlabel("labelled frames")
        left.legend(fontsize=8)


def _curves(worlds: list[dict[str, Any]], way: str, name: str) -> NDArray[np.float64]:
    return np.array(
        [
            np.mean(
                [[p[name] for p in run["points"]] for run in world["runs"] if run["way"] == way],
                axis=0,
            )
            for world in worlds
        ]
    )
