"""`python -m benchmarks.collect`: what frames that contradict the model are worth, and what a kill does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.collect.report import plot, summarize, table
from benchmarks.collect.worlds import ALONE, COUNTS, run_world
from benchmarks.records import write_record
from benchmarks.side_by_side import one_thread
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error

WORLDS = (0, 1, 6)
PARTS = ("worlds", "cost", "kills")


def collect(
    out: Annotated[Path, typer.Option(help="Folder for the JSON files and the picture.")] = Path(
        "benchmarks/results/collect"
    ),
    work: Annotated[Path, typer.Option(help="Scenes, tokens and runs are kept here.")] = Path(
        "build/collect"
    ),
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}.")] = None,
    world: Annotated[list[int] | None, typer.Option(help="Seeds of the worlds.")] = None,
    trainings: Annotated[int, typer.Option(min=1, help="Of each way in each world.")] = 1,
    kills: Annotated[int, typer.Option(min=1, help="Moments at which a run is killed.")] = 50,
) -> None:
    """Measure what collecting is worth.

    Example: python -m benchmarks.collect --only kills
    """
    if unknown := {*(only or [])} - {*PARTS}:
        raise typer.BadParameter(f"there is no {sorted(unknown)}: {', '.join(PARTS)}")
    out.mkdir(parents=True, exist_ok=True)
    chosen = only or PARTS
    if "worlds" in chosen:
        with one_thread():
            runs = [run_world(seed, trainings, work) for seed in world or WORLDS]
        summary = summarize(runs)
        counts = {"scenes": COUNTS, "of do in the pool": ALONE}
        write_record(out / "worlds.json", {"counts": counts, "summary": summary, "worlds": runs})
        write_atomically(out / "worlds.md", (table(summary) + "\n").encode())
        plot(summary, out / "worlds.png")
    if "cost" in chosen:
        from benchmarks.collect.cost import run_cost

        write_record(out / "cost.json", run_cost())
    if "kills" in chosen:
        from benchmarks.collect.kills import run_kills

        write_record(out / "kills.json", run_kills(kills, work))


if __name__ == "__main__":
    with exit_on_error():
        typer.run(collect)
