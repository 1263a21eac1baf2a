"""`python -m train settings`: every setting that a training has."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from cmlr_edge.cli.tables import stdout, table
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
    """List every setting with its default and what it means; `fit --set NAME=VALUE` changes it.

    Example: python -m train settings --recipe few
    """
    listed = list_settings(build_config({}, [], recipe))
    value = "default" if recipe == NO_RECIPE else f"in {recipe}"
    for above, title in _TITLES.items():
        shown = table("setting", value, "meaning", title=title, title_justify="left")
        for item in listed:
            if item.name.rpartition(".")[0] != above.rstrip("."):
                continue
            choices = f"one of {', '.join(item.choices)}" if item.choices else ""
            meaning = ". ".join(filter(None, (item.meaning.rstrip("."), choices)))
            shown.add_row(item.name, escape(item.value), escape(meaning))
        stdout().print(shown)
