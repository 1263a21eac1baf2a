"""`python -m train refit-thresholds`: thresholds for the place an engine works in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from train.cli.options import DataOption, write_report

if TYPE_CHECKING:
    from cmlr_edge.model.thresholds import LabelExpectation


def refit(
    data: DataOption,
    engine: Annotated[Path, typer.Option(help="Exported model, or the folder it is in.")],
    split: Annotated[str, typer.Option(help="Split to fit on.")] = "val",
    rule: Annotated[
        str,
        typer.Option(
            help="f1; precision=P: most recall with that precision; cost=C: a missed label costs "
            "C times a wrong one."
        ),
    ] = "f1",
    shrinkage: Annotated[
        float, typer.Option(min=0, help="Pull of the common threshold on rare labels, positives.")
    ] = 5.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write what to expect of every label.")
    ] = None,
) -> None:
    """Fit an exported engine's thresholds again, on labelled pictures of your own.

    Example: python -m train refit-thresholds --engine models/first --data photos --rule precision=0.9
    """
    from rich.progress import Progress

    from cmlr_edge.model.thresholds import ThresholdRule
    from train.data import read_dataset
    from train.judging.refit import refit_thresholds

    part = read_dataset(data).split(split)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring", total=len(part.images))
        expected = refit_thresholds(
            engine,
            part,
            ThresholdRule.parse(rule),
            shrinkage=shrinkage,
            report=lambda done: progress.advance(task, done),
        )
    write_report(json_file, {name: dataclasses.asdict(item) for name, item in expected.items()})
    title = f"thresholds for {rule} on {len(part.images)} pictures"
    Console().print(_table(title, expected))


def _table(title: str, expected: dict[str, LabelExpectation]) -> Table:
    table = Table(
        "label",
        title=title,
        caption="at least: lower 95 % bound of the precision, given so many pictures",
    )
    for heading in ("threshold", "precision", "at least", "recall", "positives"):
        table.add_column(heading, justify="right")
    for name, item in expected.items():
        shares = [
            "-" if v is None else f"{v:.2f}"
            for v in (item.precision, item.precision_at_least, item.recall)
        ]
        table.add_row(escape(name), f"{item.threshold:.3f}", *shares, str(item.positives))
    return table
