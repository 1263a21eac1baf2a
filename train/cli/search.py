"""`python -m train search`: find settings that suit your pictures."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.tables import stdout, table
from train.cli.options import DataOption
from train.cli.training import TrainingFlags, choose_recipe
from train.settings import as_options


@takes_flags
def search(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the search; given again, it goes on.")],
    flags: TrainingFlags,
    trials: Annotated[int, typer.Option(min=1, help="Trainings in all.")] = 20,
) -> None:
    """Train several times with other settings, and print what was best on validation pictures.

    Searched are learning rate, weight decay, dropout, and the share of steps on united pictures.
    The best of many is optimistic: measure it on pictures that no training saw. Other options stay the
    same in all, as in fit.

    \b
    python -m train search --data photos --out search --trials 20
    """  # noqa: D301
    flags.check()
    from train.data import read_dataset
    from train.fitting.searching import SearchPlan, search

    asked = flags.given() | {"compare_plain": False}
    pictures = read_dataset(data)
    given, settings, recipe = choose_recipe(flags.recipe, pictures, asked, flags.settings or [])
    found = search(pictures, out, SearchPlan(recipe, given, settings, trials, flags.seed))
    best_trials = table("trial", "validation mAP", "settings")
    for trial in sorted(found["trials"], key=lambda trial: -trial["val_map"])[:5]:
        best_trials.add_row(
            str(trial["trial"]), f"{trial['val_map']:.3f}", as_options(trial["settings"])
        )
    console = stdout()
    console.print(best_trials)
    best = " ".join([*flags.words(), as_options(found["best"]["settings"])])
    console.print(
        f"next: python -m train fit --data {shlex.quote(str(data))} --recipe {recipe} {best} --out DIR",
        markup=False,
        soft_wrap=True,
    )
