"""`python -m train search`: find settings that suit your pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.cli.tables import stdout, table
from train.cli.options import DataOption
from train.recipes import AUTO, recipe_for
from train.settings import as_options, check_names


def search(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the search; given again, it goes on.")],
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 20,
    recipe: Annotated[str, typer.Option(help="That each starts from; auto, as in fit.")] = AUTO,
    epochs: Annotated[int | None, typer.Option(help="Of each training.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting that stays, as in fit.")
    ] = None,
) -> None:
    """Train several times with other settings, and print what was best on validation pictures.

    Searched are learning rate, weight decay, dropout, and the share of steps on united pictures.
    The best of many is optimistic: measure it on pictures that no training saw.

    \b
    python -m train search --data photos --out search --trials 20
    """  # noqa: D301
    check_names(settings or [], recipe)
    from train.data import read_dataset
    from train.fitting.searching import SearchPlan, search

    pictures = read_dataset(data)
    if recipe == AUTO:
        recipe = recipe_for(sum(image.split == "train" for image in pictures.images))
    given = {} if epochs is None else {"epochs": epochs}
    given |= {"seed": seed, "compare_plain": False}
    found = search(pictures, out, SearchPlan(recipe, given, settings or [], trials, seed))
    best_trials = table("trial", "validation mAP", "settings")
    for trial in sorted(found["trials"], key=lambda trial: -trial["val_map"])[:5]:
        best_trials.add_row(
            str(trial["trial"]), f"{trial['val_map']:.3f}", as_options(trial["settings"])
        )
    console = stdout()
    console.print(best_trials)
    kept = [f"--set {shlex.quote(setting)}" for setting in settings or []]
    kept += [] if epochs is None else [f"--epochs {epochs}"]
    kept += [] if seed == 0 else [f"--seed {seed}"]
    best = " ".join([*kept, as_options(found["best"]["settings"])])
    console.print(
        f"next: python -m train fit --data {shlex.quote(str(data))} --recipe {recipe} {best} --out DIR",
        markup=False,
        soft_wrap=True,
    )
