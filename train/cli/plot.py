"""`python -m train plot`: the log of a run as a picture."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from train.config import PLAIN
from train.reporting import say


def plot(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("log.png"),
    csv_file: Annotated[
        Path | None, typer.Option("--csv", help="Also write loss and metrics as a table.")
    ] = None,
) -> None:
    """Draw the loss and the validation mAP of a run over its epochs.

    Example: python -m train plot runs/first --out first.png
    """
    from train.explaining.plot import deploys_another, plot_log, write_table

    if csv_file is not None:
        write_table(run, csv_file)
        say(f"wrote {csv_file}")
    plot_log(run, out)
    say(f"wrote {out}")
    if deploys_another(run):
        say(
            f"it shows the network with links; deployed is the one without, `{PLAIN}`: python -m train plot "
            f"{shlex.quote(str(run / PLAIN))}"
        )
