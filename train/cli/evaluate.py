"""`python -m train evaluate`: how good a run is on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.wording import counted
from train.cli.options import CheckpointOption, DataOption, write_report
from train.reporting import say


def evaluate(
    checkpoint: CheckpointOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    min_positives: Annotated[
        int, typer.Option(min=1, help="Labels with fewer positives are left out of the averages.")
    ] = 3,
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leave out pictures that cannot be read; count them."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers, per-label AP too.")
    ] = None,
) -> None:
    """Score a run: mAP, CF1 and OF1 of every read-out; the AP of each label with --json.

    Example: python -m train evaluate --checkpoint runs/first --data photos --json first.json
    """
    from train import distributed
    from train.data import read_dataset
    from train.judging.evaluate import evaluate_run

    report = evaluate_run(
        checkpoint,
        read_dataset(data),
        split,
        min_positives=min_positives,
        skip_damaged=skip_damaged,
    )
    if not distributed.is_first():
        return
    write_report(json_file, report)
    stdout().print(_read_out_table(report))
    if report["chose_before"]:
        say(
            "these pictures also chose the run's epoch, read-out and thresholds, so new ones will show less: "
            "measure it on a split that no training saw, as --split test"
        )


def _read_out_table(report: dict[str, Any]) -> Table:
    """One row per read-out; Exclusive and Co-occur where the data names biased pairs."""
    read_outs = report["read_outs"]
    first = next(iter(read_outs.values()))
    left_out = f", {report['num_skipped']} damaged left out" if report["num_skipped"] else ""
    biased = "context_bias" in first
    positives = sum(n for name, n in first["positives"].items() if first["ap"][name] is not None)
    scores = table(
        "read-out",
        right=("mAP", "CF1", "OF1", *(("exclusive", "co-occur") if biased else ())),
        title=f"{counted(report['num_images'], 'image')} of {report['split']}{left_out}",
        caption=f"mAP, CF1, OF1 over the {first['num_labels_scored']} of {len(first['ap'])} labels "
        f"with at least {counted(report['min_positives'], 'positive')}, {counted(positives, 'positive')} in all; in brackets what "
        "95 % of redrawn sets of pictures give",
    )
    for name, metrics in read_outs.items():
        bounds = metrics["mean_ap_interval"] or (None, None)
        cells = [
            _bounded(metrics["mean_ap"] if positives else None, *bounds),
            # Over no label all of them are 0, which nobody measured.
            *(_bounded(metrics[key] if positives else None, None, None) for key in ("cf1", "of1")),
        ]
        if biased:
            found = (metrics["context_bias"][key] for key in ("exclusive", "co_occur"))
            cells += [_bounded(item["value"], item["low"], item["high"]) for item in found]
        scores.add_row(name, *cells)
    return scores


def _bounded(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if low is None else f"{value:.3f} ({low:.2f} to {high:.2f})"
