"""`python -m benchmarks.why`: sums, cost, pointing game and flag, each into a JSON file of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.records import write_record
from benchmarks.side_by_side import one_thread
from benchmarks.why.cost import run_cost
from benchmarks.why.plot import plot_flag
from benchmarks.why.scenes import COUNTS, run_world, summarize
from benchmarks.why.sums import largest, run_sums
from train.reporting import exit_on_error

PARTS = ("sums", "cost", "scenes")


def why(
    out: Annotated[Path, typer.Option(help="Folder for the JSON files and the picture.")] = Path(
        "benchmarks/results/why"
    ),
    work: Annotated[Path, typer.Option(help="Scenes and tokens are kept here.")] = Path(
        "build/why"
    ),
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}.")] = None,
    worlds: Annotated[int, typer.Option(min=1, help="Small worlds of scenes.")] = 3,
    first_world: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 3,
    rounds: Annotated[int, typer.Option(min=3, help="Turns of timings.")] = 100,
) -> None:
    """Hold explanations against what is known.

    Example: python -m benchmarks.why --only sums
    """
    if unknown := {*(only or [])} - {*PARTS}:
        raise typer.BadParameter(f"there is no {sorted(unknown)}: {', '.join(PARTS)}")
    out.mkdir(parents=True, exist_ok=True)
    chosen = only or PARTS
    if "sums" in chosen:
        found = run_sums()
        write_record(out / "sums.json", {"largest": largest(found), "heads": found})
    if "cost" in chosen:
        write_record(out / "cost.json", {"load": os.getloadavg()[0], "lite0": run_cost(rounds)})
    if "scenes" in chosen:
        with one_thread():
            runs = [run_world(seed, work) for seed in range(first_world, first_world + worlds)]
        summary = summarize(runs)
        write_record(out / "scenes.json", {"counts": COUNTS, "summary": summary, "worlds": runs})
        plot_flag(summary, out / "flag.png")


if __name__ == "__main__":
    with exit_on_error():
        typer.run(why)
