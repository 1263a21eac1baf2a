"""Values, and paired gains on a reference with two kinds of interval, from the stored runs."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks import records
from benchmarks.intervals import photo_interval, t_interval
from benchmarks.natural.measures import MEASURES
from benchmarks.natural.methods import CHOSEN, DECODER, METHODS, POOLED
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error

REFERENCES = (DECODER, POOLED)
_TITLES = ("Exclusive", "Co-occur", "All")

Runs = dict[tuple[int, int], dict[str, Any]]  # (split, seed) -> measures of one read-out


def summarize(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Build a row per method and read-out.

    A gain is paired: the same split, and the same training seed. It has two 95 % intervals.
    "splits": Student's t over the means of the splits, for other divisions of the same photos and other
    trainings. "photos": percentiles where photos and splits are drawn anew, for other photos too.
    """
    table: dict[tuple[str, str], Runs] = defaultdict(dict)
    for run in runs:
        for read_out, measures in run["read_outs"].items():
            table[run["method"], read_out][run["split"], run["seed"]] = measures
    return [_row(*key, table) for key in _in_order(table)]


def _in_order(table: dict[tuple[str, str], Runs]) -> list[tuple[str, str]]:
    order = [method.name for method in METHODS]
    return sorted(table, key=lambda key: (order.index(key[0]), key[1]))


def _row(method: str, read_out: str, table: dict[tuple[str, str], Runs]) -> dict[str, Any]:
    own = table[method, read_out]
    against = [(name, "deployed") for name in REFERENCES]
    if method == CHOSEN:
        against = [key for key in _in_order(table) if key[0] != CHOSEN]
    return {
        "method": method,
        "read_out": read_out,
        "runs": len(own),
        "values": {
            name: round(float(np.mean([run["values"][name] for run in own.values()])), 2)
            for name in MEASURES
        },
        "gains": {
            _title(*key): {name: _gain(own, table[key], name) for name in MEASURES}
            for key in against
            if key in table
        },
    }


def _gain(own: Runs, other: Runs, name: str) -> dict[str, Any]:
    common = sorted(own.keys() & other.keys())
    splits = sorted({split for split, _ in common})

    def of_splits(pick: Any) -> NDArray[np.float64]:
        """Mean over seeds of each split."""
        return np.array(
            [
                np.mean([pick(own[key]) - pick(other[key]) for key in common if key[0] == split], 0)
                for split in splits
            ]
        )

    gains = of_splits(lambda run: run["values"][name])
    resampled = of_splits(lambda run: np.array(run["resampled"][name]))
    return {
        "mean": _round(gains.mean()),
        "splits": [_round(bound) for bound in t_interval(gains)],
        "photos": [_round(bound) for bound in photo_interval(resampled)],
        "worst_run": _round(
            min(own[key]["values"][name] - other[key]["values"][name] for key in common)
        ),
    }


def _round(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def markdown_table(rows: list[dict[str, Any]], reference: str) -> str:
    """Format values and gains on one reference."""
    lines = []
    for row in rows:
        name = _title(row["method"], row["read_out"])
        values = [f"{row['values'][measure]:.1f}" for measure in MEASURES]
        gains = [_cell(row["gains"][reference][measure]) for measure in MEASURES]
        lines.append((name, row["runs"], *values, *gains))
    head = "head, read-out", "runs", *_TITLES, *(f"{title}, gain" for title in _TITLES)
    return records.markdown_table(head, lines)


def chosen_table(rows: list[dict[str, Any]]) -> str:
    """Format what the chosen head gains on every other; empty where it was not trained."""
    lines = []
    for gains in (row["gains"] for row in rows if row["method"] == CHOSEN):
        for other, gain in gains.items():
            cells = [_cell(gain[measure]) for measure in MEASURES]
            lines.append((other, *cells, f"{gain['all']['worst_run']:+.1f}"))
    head = f"{CHOSEN}, gain on", *_TITLES, "worst run of All"
    return records.markdown_table(head, lines) if lines else ""


def _title(method: str, read_out: str) -> str:
    names = {"prior": ", averaged prior", "own": ", own context"}
    return method + names.get(read_out, "")


def _cell(gain: dict[str, Any]) -> str:
    bounds = [
        [f"{bound:.1f}" if bound is not None else "?" for bound in gain[kind]]  # ? of one split
        for kind in ("splits", "photos")
    ]
    splits, photos = (f"{low} - {high}" for low, high in bounds)
    return f"{gain['mean']:+.1f} ({splits}; {photos})"


def write_report(runs: list[dict[str, Any]], pairs: list[tuple[str, str]], out: Path) -> str:
    """Write results.json and tables.md, which follow from the runs; return the tables."""
    rows = summarize(runs)
    report = {
        "pairs": pairs,
        "photos": sorted({tuple(run["photos"]) for run in runs}),
        "cpu_minutes": round(sum(run["cpu_seconds"] for run in runs) / 60, 1),
        "rows": rows,
    }
    records.write_json(out / "results.json", report)
    known = [name for name in REFERENCES if any(name in row["gains"] for row in rows)]
    tables = "\n\n".join(
        [
            *(f"Gains on: {name}\n\n{markdown_table(rows, name)}" for name in known),
            chosen_table(rows),
        ]
    ).rstrip()
    records.write_text(out / "tables.md", tables)
    return tables


def fill_page(page: str, rows: list[dict[str, Any]]) -> str:
    """Put the tables between the marks `<!-- NAME -->` and `<!-- end -->` of a page."""
    tables = {"chosen": chosen_table(rows)}
    tables |= {name: markdown_table(rows, name) for name in REFERENCES}
    return records.fill_marks(page, tables)


def rewrite(
    folder: Annotated[Path, typer.Argument(help="With runs.jsonl.")],
    page: Annotated[Path | None, typer.Option(help="Page whose tables are filled in.")] = None,
) -> None:
    """Compute results.json and tables.md anew from stored runs.

    Example: python -m benchmarks.natural.report benchmarks/results/natural --page docs/natural.md
    """
    pairs = json.loads((folder / "results.json").read_bytes())["pairs"]
    runs = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    Console().print(write_report(runs, pairs, folder))
    if page is not None:
        rows = json.loads((folder / "results.json").read_bytes())["rows"]
        write_atomically(page, fill_page(page.read_text(), rows).encode())


if __name__ == "__main__":
    with exit_on_error():
        typer.run(rewrite)
