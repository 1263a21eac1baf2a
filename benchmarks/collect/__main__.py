"""`python -m benchmarks.collect`: what labelled frames are worth, what collecting costs, and what a kill does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.collect.cost import run_cost
from benchmarks.collect.kills import run_kills
from benchmarks.collect.report import plot, summarize, table
from benchmarks.collect.sampling import CONTRADICTION, ENTROPY, RANDOM, WAYS
from benchmarks.collect.worlds import alone_of, counts_of, run_world
from benchmarks.records import write_record, write_text
from benchmarks.side_by_side import one_thread
from benchmarks.size import Size
from train.reporting import exit_on_error

WORLDS = (0, 1, 6)
PARTS = ("worlds", "cost", "kills")
_STORED = (RANDOM, CONTRADICTION, ENTROPY)  # ways of the page
_OUT = Path("benchmarks/results/collect")


def collect(
    out: Annotated[Path, typer.Option(help="Folder for the JSON files and the picture.")] = _OUT,
    work: Annotated[
        Path,
        typer.Option(
            help="Scenes, tokens and findings are kept here, and used again: an interrupted run goes on."
        ),
    ] = Path("build/collect"),
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}.")] = None,
    world: Annotated[list[int] | None, typer.Option(help="Seeds of the worlds.")] = None,
    way: Annotated[
        list[str] | None,
        typer.Option(help=f"To choose frames; of {'; '.join(WAYS)}. Default: the page's three."),
    ] = None,
    trainings: Annotated[int, typer.Option(min=1, help="Of each way in each world.")] = 1,
    kills: Annotated[int, typer.Option(min=1, help="Moments at which a run is killed.")] = 50,
    scale: Annotated[
        float, typer.Option(min=0.001, max=1, help="Of all numbers: to see that it works.")
    ] = 1.0,
) -> None:
    """Measure all that docs/collect.md tells.

    Example: python -m benchmarks.collect
    """
    chosen, ways = only or PARTS, way or _STORED
    for given, known in ((chosen, PARTS), (ways, WAYS)):
        if unknown := {*given} - {*known}:
            raise typer.BadParameter(f"there is no {sorted(unknown)}: {', '.join(known)}")
    size = Size(scale)
    work = size.folders(work, out, _OUT)
    if "worlds" in chosen:
        with one_thread():
            runs = [run_world(seed, trainings, work, ways, size) for seed in world or WORLDS]
        summary = summarize(runs)
        counts = {"scenes": counts_of(size), "of do in the pool": alone_of(size)}
        write_record(out / "worlds.json", {"counts": counts, "summary": summary, "worlds": runs})
        write_text(out / "worlds.md", table(summary))
        plot(summary, out / "worlds.png")
    if "cost" in chosen:
        write_record(out / "cost.json", run_cost())
    if "kills" in chosen:
        write_record(out / "kills.json", run_kills(size.of(kills), work / "kills"))


if __name__ == "__main__":
    with exit_on_error():
        typer.run(collect)
