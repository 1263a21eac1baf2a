"""Tables of what `fit` deploys: means, paired gains with their intervals, and every run."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.intervals import photo_interval, t_interval
from benchmarks.photos.fitted import DECODER, FITTED, POOLED
from benchmarks.records import markdown_table

REFERENCES = (DECODER, POOLED)
_KINDS = ("runs", "photos")  # of intervals
_NAMES = {
    "deployed": "",
    "plain": ", without links",
    "decoder": ", decoder alone",
    "own": ", own context",
    "prior": ", with links",
}

Runs = dict[int, dict[str, Any]]  # number -> measures of one read-out


def summarize_fits(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Build a row per arm and read-out, with gains on what both references deploy.

    Gains are paired by the number of the run: the same held-out photos, the same seed.
    """
    table: dict[tuple[str, str], Runs] = defaultdict(dict)
    for run in runs:
        for read_out, measures in run["read_outs"].items():
            table[run["arm"], read_out][run["number"]] = measures
    kept = [key for key in table if key[1] == "deployed" or len(_read_outs(table, key[0])) > 2]
    return [_row(*key, table) for key in kept]


def _read_outs(table: dict[tuple[str, str], Runs], arm: str) -> list[str]:
    return [read_out for name, read_out in table if name == arm]


def _row(arm: str, read_out: str, table: dict[tuple[str, str], Runs]) -> dict[str, Any]:
    own = table[arm, read_out]
    return {
        "arm": arm,
        "read_out": read_out,
        "runs": {number: own[number]["map"] for number in sorted(own)},
        "mean": round(float(np.mean([run["map"] for run in own.values()])), 2),
        "gains": {name: _gain(own, table[name, "deployed"]) for name in REFERENCES},
    }


def _gain(own: Runs, other: Runs) -> dict[str, Any]:
    common = sorted(own.keys() & other.keys())
    gains = np.array([own[n]["map"] - other[n]["map"] for n in common])
    resampled = np.array([np.subtract(own[n]["resampled"], other[n]["resampled"]) for n in common])
    bounds = {"runs": t_interval(gains), "photos": photo_interval(resampled)}
    return {
        "mean": round(float(gains.mean()), 2),
        "worst_run": round(float(gains.min()), 2),
        **{kind: [_round(bound) for bound in found] for kind, found in bounds.items()},
    }


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 2)  # of one run


def fits_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows."""
    lines = []
    for row in rows:
        values = list(row["runs"].values())
        cells = [cell for name in REFERENCES for cell in _cells(row["gains"][name])]
        name = row["arm"] + _NAMES[row["read_out"]]
        spread = f"{min(values):.1f} - {max(values):.1f}"
        lines.append((name, f"{row['mean']:.1f}", spread, *cells))
    gains = "gain on the decoder", "worst run", "gain on pooled", "worst run"
    return markdown_table(("arm", "mAP", "runs", *gains), lines)


def _cells(gain: dict[str, Any]) -> tuple[str, str]:
    bounds = [[f"{b:.1f}" if b is not None else "?" for b in gain[kind]] for kind in _KINDS]
    runs, photos = (f"{low} - {high}" for low, high in bounds)
    return f"{gain['mean']:+.1f} ({runs}; {photos})", f"{gain['worst_run']:+.1f}"


def runs_table(runs: list[dict[str, Any]]) -> str:
    """List every run of the two references and the default, and what was chosen."""
    by_arm = {(run["arm"], run["number"]): run for run in runs}
    lines = []
    for number in sorted({run["number"] for run in runs if run["arm"] == FITTED}):
        cells = [
            f"{by_arm[arm, number]['read_outs']['deployed']['map']:.1f}"
            for arm in (*REFERENCES, FITTED)
        ]
        chosen = _NAMES[by_arm[FITTED, number]["chosen"]].removeprefix(", ")
        lines.append((number, *cells, chosen))
    return markdown_table(("seed", *REFERENCES, FITTED, "chosen"), lines)
