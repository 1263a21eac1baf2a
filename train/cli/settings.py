"""`python -m train settings`: every setting that a training has."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.padding import Padding

from cmlr_edge.cli.tables import stdout
from train.recipes import NO_RECIPE
from train.settings import build_config
from train.settings_list import list_settings

_TITLES = {
    "": "the training",
    "model.": "the network",
    "model.confounders.": "confounders: kinds of surroundings",
}


def settings(
    recipe: Annotated[
        str, typer.Option(help="Show the values of this recipe: few, thousands or many.")
    ] = NO_RECIPE,
) -> None:
    """List every setting as `NAME=DEFAULT`, and what it means; `fit --set NAME=VALUE` changes it.

    Example: python -m train settings --recipe few
    """
    console = stdout(highlight=False)
    listed = list_settings(build_config({}, [], recipe))
    for above, title in _TITLES.items():
        console.print(f"[bold]{title}[/bold]")
        for item in listed:
            if item.name.rpartition(".")[0] != above.rstrip("."):
                continue
            choices = f"one of {', '.join(item.choices)}" if item.choices else ""
            meaning = ". ".join(filter(None, (item.meaning.rstrip("."), choices)))
            # As it is typed again, in one piece on a narrow terminal too.
            console.print(escape(f"  {item.name}={item.value}"), style="cyan", soft_wrap=True)
            console.print(Padding(escape(meaning), (0, 0, 0, 6), expand=False))
