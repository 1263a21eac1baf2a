"""`python -m train biased-pairs`: labels that a model recognises by their company."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.wording import counted
from train.cli.options import DataOption, SkipDamagedOption, write_report

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from train.judging.biased_pairs import BiasedPair


def biased_pairs(
    data: DataOption,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Run folder that scores the pictures.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="CSV file,<label>,... of scores from elsewhere.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to search; without a val split, the part held out of train.")
    ] = "val",
    min_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="A context is on at least this share of its pictures."),
    ] = 0.2,
    min_images: Annotated[
        int, typer.Option(min=1, help="Least pictures with both labels, and with one alone.")
    ] = 1,
    count: Annotated[int, typer.Option(min=1, help="Pairs to list.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the pairs.")] = None,
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Find labels that a model recognises by their company: b scores low where c is missing.

    Example: python -m train biased-pairs --data photos --checkpoint runs/first --json pairs.json
    """
    from train.judging.biased_pairs import find_biased_pairs, score_part

    part, values = score_part(data, split, run=checkpoint, table=scores, skip_damaged=skip_damaged)
    pairs = find_biased_pairs(
        values,
        part.targets(),
        part.classes,
        known=part.known(),
        min_share=min_share,
        min_images=min_images,
        count=count,
    )
    report = {"data": part.name, "split": split, "num_images": len(part.images)}
    write_report(json_file, {**report, "pairs": [dataclasses.asdict(pair) for pair in pairs]})
    looked_at = f"{counted(len(part.images), 'image')} of {split}"
    if pairs:
        stdout().print(_pairs_table(pairs, looked_at))
    else:
        stdout().print(
            f"no bias above 1 on {looked_at}: no label scores lower without its company",
            soft_wrap=True,
        )


def _pairs_table(pairs: tuple[BiasedPair, ...], title: str) -> Table:
    numbers = ("bias", "score with", "score without", "pictures with", "without")
    caption = "score: mean over its pictures"
    found = table("label", "context", right=numbers, title=title, caption=caption)
    for pair in pairs:
        found.add_row(
            escape(pair.label),
            escape(pair.context),
            f"{pair.bias:.2f}",
            f"{pair.mean_together:.3f}",
            f"{pair.mean_apart:.3f}",
            str(pair.num_together),
            str(pair.num_apart),
        )
    return found
