"""`python -m train explain`: what a model takes for a cause."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
            model, spec, read_dataset(data).split(split), cause, out, report=status.update
        )
    write_explanation(record, out)
    for title, key in (("strongest links", "strongest"), ("suppressed", "most_suppressed")):
        table = Table("cause", "effect", title=title)
        table.add_column("causal", justify="right")
        table.add_column("co-occurrence", justify="right")
        for link in record[key]:
            numbers = (f"{link[name]:+.3f}" for name in ("causal", "cooccurrence"))
            table.add_row(escape(link["cause"]), escape(link["effect"]), *numbers)
        Console().print(table)
    Console(stderr=True).print(f"wrote the figures and explanation.json into {out}")
