"""`python -m benchmarks.papers`: train and score the arms of a published table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.papers import recipes
from benchmarks.papers.report import plan_table, write_report
from benchmarks.papers.runs import run_all
from cmlr_edge.errors import DataError
from train import distributed
from train.data import read_dataset
from train.reporting import exit_on_error, progress_bars

_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the file's settings, for example epochs=1."),
]


def compare(
    table: Annotated[str, typer.Argument(help=f"One of {', '.join(recipes.names())}.")],
    data: Annotated[Path | None, typer.Option(help="Data; without it, what is needed.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results; in WORK without.")] = None,
    work: Annotated[Path, typer.Option(help="Run folders are kept here.")] = Path("runs/papers"),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per arm.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this arm; give it again for more.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of the backbone's weights, where no hub is reached.")
    ] = None,
    test_data: Annotated[
        Path | None, typer.Option(help="Test on these instead: labels that both share.")
    ] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to test on.")] = None,
    settings: _Settings = None,
) -> None:
    """Train every arm of a published table with several seeds, and write the table with intervals.

    Interrupted, it goes on where it was. torchrun --nproc-per-node N -m benchmarks.papers ... uses N
    GPUs.

    \b
    python -m benchmarks.papers coco_stuff
    python -m benchmarks.papers coco_stuff --data coco_stuff --seeds 3
    """  # noqa: D301
    chosen = recipes.load(table)
    if data is None:
        Console().print(plan_table(chosen))
        return
    if unknown := set(only or []) - set(chosen.arms):
        raise DataError(f"no arms {sorted(unknown)}: {list(chosen.arms)}")
    arms = only or list(chosen.arms)
    train = read_dataset(data)
    test = train if test_data is None else read_dataset(test_data)
    given = [f"model.weights={weights}"] if weights is not None else []
    with progress_bars(visible=distributed.is_first()) as progress:
        task = progress.add_task("training", total=seeds * len(arms))
        runs = run_all(
            chosen,
            train,
            test,
            test_split or chosen.test,
            arms=arms,
            seeds=seeds,
            settings=[*given, *(settings or [])],
            out=out or work / table,
            work=work / table,
            report=lambda: progress.advance(task),
        )
    if distributed.is_first():
        Console().print(write_report(chosen, runs, out or work / table))


if __name__ == "__main__":
    import os

    with exit_on_error(), distributed.join_processes(os.environ):
        typer.run(compare)
