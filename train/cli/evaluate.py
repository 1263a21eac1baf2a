"""`python -m train evaluate`: how good a run is on a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.wording import counted
from train.cli.options import CheckpointOption, DataOption, write_report


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


def _read_out_table(report: dict[str, Any]) -> Table:
    """One row per read-out; Exclusive and Co-occur where the data names biased pairs."""
    read_outs = report["read_outs"]
    first = next(iter(read_outs.values()))
    left_out = f", {report['num_skipped']} damaged left out" if report["num_skipped"] else ""
    biased = "context_bias" in first
    scores = table(
        "read-out",
        right=("mAP", "CF1", "OF1", *(("exclusive", "co-occur") if biased else ())),
        title=f"{counted(report['num_images'], 'image')} of {report['split']}{left_out}",
        caption=f"mAP, CF1, OF1 over the {first['num_labels_scored']} of {len(first['ap'])} labels "
        f"with at least {counted(report['min_positives'], 'positive')}",
    )
    for name, metrics in read_outs.items():
        cells = [f"{metrics[key]:.3f}" for key in ("mean_ap", "cf1", "of1")]
        if biased:
            found = (metrics["context_bias"][key]["value"] for key in ("exclusive", "co_occur"))
            cells += ["-" if value is None else f"{value:.3f}" for value in found]
        scores.add_row(name, *cells)
    return scores
