"""`python -m train refit-thresholds`: thresholds for the place an engine works in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.errors import DataError
from cmlr_edge.wording import counted, few_of
from train.cli.options import DataOption, SkipDamagedOption, write_report
from train.reporting import progress_bars, say

if TYPE_CHECKING:
    from cmlr_edge.model.thresholds import LabelExpectation


def refit(
    data: DataOption,
    engine: Annotated[Path, typer.Option(help="Exported model, or the folder it is in.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Run that the engine was exported from: where the data has no val split, the "
            "pictures that it held out."
        ),
    ] = None,
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
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Fit an exported engine's thresholds again, on labelled pictures of your own.

    Example: python -m train refit-thresholds --engine models/first --data photos --rule precision=0.9
    """
    from cmlr_edge.model.files import model_path, signature_path, spec_path
    from cmlr_edge.model.thresholds import ThresholdRule
    from train.data import read_dataset
    from train.data.damaged import whole_pictures
    from train.judging.refit import refit_thresholds

    whole = read_dataset(data)
    if checkpoint is not None:
        from train.network.checkpoint import held_out_by  # imports PyTorch

        whole = held_out_by(checkpoint, whole)
    elif split == "val" not in whole.splits:
        raise DataError(
            f"{whole.name} has no split val: give pictures that the engine was not trained on, as those "
            "that its run held out with --checkpoint RUN, or another --split"
        )
    part = whole_pictures(whole.split(split), skip_damaged=skip_damaged)
    path = model_path(engine)
    was_signed = signature_path(path).exists()
    with progress_bars() as progress:
        task = progress.add_task("pictures scored", total=len(part.images))
        expected = refit_thresholds(
            engine,
            part,
            ThresholdRule.parse(rule),
            shrinkage=shrinkage,
            report=lambda done: progress.advance(task, done),
        )
    write_report(json_file, {name: dataclasses.asdict(item) for name, item in expected.items()})
    title = f"thresholds for {rule} on {counted(len(part.images), 'picture')}"
    stdout().print(_table(title, expected))
    for hint in _hints(expected, rule, shrinkage):
        say(hint)
    say(f"wrote the thresholds into {spec_path(path)}")
    if was_signed:
        say(f"the signature was of the old ones and is gone; sign again: cmlr-edge sign {path}")


def _hints(expected: dict[str, LabelExpectation], rule: str, shrinkage: float) -> list[str]:
    """What to do about labels that are on the pictures and never named, and about those never named rightly."""
    own = "--shrinkage 0, by which rare labels get thresholds of their own"
    more = "more pictures of them"
    silent = [name for name, item in expected.items() if item.positives and not item.named]
    wrong = [
        f"{name} ({counted(item.named, 'picture')})"
        for name, item in expected.items()
        if item.named and not item.precision
    ]
    lower, other = ["a lower precision"], ["--rule precision=0.5"]
    lower, other = (lower, []) if rule.startswith("precision") else ([], other)
    return [
        f"{what}: {few_of(names, 8)}; try {', or '.join([*[own][: shrinkage > 0], *remedies, more])}"
        for what, names, remedies in (
            ("never named on these pictures", silent, lower),
            ("named, and never rightly", wrong, other),
        )
        if names
    ]


def _table(title: str, expected: dict[str, LabelExpectation]) -> Table:
    expectations = table(
        "label",
        right=("threshold", "precision", "at least", "recall", "positives"),
        title=title,
        caption="at least: lower 95 % bound of the precision, given so many pictures",
    )
    for name, item in expected.items():
        shares = [
            "-" if v is None else f"{v:.2f}"
            for v in (item.precision, item.precision_at_least, item.recall)
        ]
        expectations.add_row(escape(name), f"{item.threshold:.3f}", *shares, str(item.positives))
    return expectations
