"""`python -m train explain`: what a model takes for a cause."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from train.cli.options import CheckpointOption, DataOption


def explain(
    checkpoint: CheckpointOption,
    data: DataOption,
    cause: Annotated[str, typer.Option(help="Label whose influence is drawn as bars.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and explanation.json.")],
    split: Annotated[str, typer.Option(help="Split to look at.")] = "val",
    beside: Annotated[
        Path | None, typer.Option(help="Another run to compare with, as one without intervention.")
    ] = None,
    absent: Annotated[
        str | None,
        typer.Option(help="Label to look for where it is not; each picture's surest without it."),
    ] = None,
) -> None:
    """Show what a model takes for a cause: do-swaps, the map of links, heat maps, label features.

    Example: python -m train explain --checkpoint runs/first --data photos --cause person --out why
    """
    from train.data import read_dataset
    from train.explaining.explain import explain as run_explain
    from train.explaining.explain import write_explanation
    from train.network.checkpoint import load_model

    model, spec = load_model(checkpoint)
    with Console(stderr=True).status("loading") as status:
        record = run_explain(
            model,
            spec,
            read_dataset(data).split(split),
            cause,
            out,
            beside=None if beside is None else load_model(beside),
            absent=absent,
            names=_names(checkpoint, beside),
            report=status.update,
        )
    write_explanation(record, out)
    _print_links(record)
    _print_absent(record["absent"])
    if not record["readable"]:
        Console(stderr=True).print(
            f"the links are too weak to read: setting a label moves no probability by more than "
            f"{record['strongest_effect']:.0e}"
        )
    Console(stderr=True).print(f"wrote the figures and explanation.json into {out}")


def _names(checkpoint: Path, beside: Path | None) -> tuple[str, str]:
    """What both runs are called: their folders, with those above where these are alike."""
    if beside is None or checkpoint.name != beside.name:
        return checkpoint.name, "" if beside is None else beside.name
    return str(checkpoint), str(beside)


def _print_links(record: dict[str, Any]) -> None:
    for title, key in (("strongest links", "strongest"), ("suppressed", "most_suppressed")):
        table = Table("cause", "effect", title=title)
        table.add_column("causal", justify="right")
        table.add_column("co-occurrence", justify="right")
        for link in record[key]:
            numbers = (f"{link[name]:+.3f}" for name in ("causal", "cooccurrence"))
            table.add_row(escape(link["cause"]), escape(link["effect"]), *numbers)
        Console().print(table)


def _print_absent(absent: dict[str, list[dict[str, Any]]]) -> None:
    """Mean scores of labels that are not there, with their company and without."""
    for name, found in absent.items():
        table = Table("label that is not there", "company", title=escape(name))
        for heading in ("score with it", "without it", "pictures"):
            table.add_column(heading, justify="right")
        for item in found:
            scores = (f"{item[key]:.3f}" for key in ("with_company", "without_company"))
            pictures = " / ".join(map(str, item["pictures"]))
            table.add_row(escape(item["label"]), escape(item["company"]), *scores, pictures)
        Console().print(table)
