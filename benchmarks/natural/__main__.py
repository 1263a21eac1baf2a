"""`python -m benchmarks.natural`: re-sample photos to a known bias, train every head, write the report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.natural.methods import BASE, METHODS, Method
from benchmarks.natural.report import write_report
from benchmarks.natural.runs import Job, run_all
from benchmarks.natural.sampling import PARTS, Pair, choose_pairs
from benchmarks.natural.tokens import load_photos, store_tokens
from benchmarks.records import read_lines
from cmlr_edge.errors import DataError
from train.data import read_dataset
from train.reporting import exit_on_error, progress_bars


def compare(
    photos: Annotated[Path, typer.Option(help="Photos in any layout of docs/datasets.md.")],
    out: Annotated[Path, typer.Option(help="Folder for runs.jsonl, results.json and tables.md.")],
    work: Annotated[Path, typer.Option(help="Tokens are kept here.")] = Path("build/natural"),
    part: Annotated[
        str, typer.Option(help="Pairs and splits: reported, or development to choose on.")
    ] = PARTS[0],
    splits: Annotated[int, typer.Option(min=2, help="Divisions of the photos.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per split and method.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this method; give it again for more.")
    ] = None,
    min_photos: Annotated[
        int, typer.Option(min=2, help="Least photos of a pair together, and of its label alone.")
    ] = 8,
    max_pairs: Annotated[int, typer.Option(min=1, help="Most pairs of a part.")] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Compare heads on real photos whose labels are biased on purpose.

    Interrupted, it goes on where it was: finished runs are in OUT/runs.jsonl.

    Example: python -m benchmarks.natural --photos photos --out benchmarks/results/natural
    """
    if part not in PARTS:
        raise DataError(f"no part {part!r}: there are {PARTS}")
    data = read_dataset(photos)
    methods = _choose(only, part)
    with progress_bars() as progress:
        task = progress.add_task("tokens", total=len(data.images))
        stored = store_tokens(
            data, work / "tokens", BASE, lambda done: progress.advance(task, done)
        )
        progress.update(task, completed=len(data.images))
        found = load_photos(stored)
        pairs = choose_pairs(found.targets, min_photos=min_photos, count=max_pairs)[part]
        jobs = [
            Job(method.name, part, split, seed, pairs, stored)
            for split in range(splits)
            for seed in range(seeds)
            for method in methods
        ]
        task = progress.add_task("training heads", total=len(jobs))
        runs = out / "runs.jsonl"
        run_all(jobs, runs, workers=workers, report=lambda _job: progress.advance(task))
    named = [_named(pair, found.classes) for pair in pairs]
    Console().print(write_report(read_lines(runs), named, out))


def _choose(only: list[str] | None, part: str) -> list[Method]:
    """Candidates are weighed on the development part; the reported part has the chosen and rivals."""
    if unknown := set(only or []) - {method.name for method in METHODS}:
        names = [method.name for method in METHODS]
        raise DataError(f"no such methods: {sorted(unknown)}; there are {names}")
    if only:
        return [method for method in METHODS if method.name in only]
    return [method for method in METHODS if part == "development" or method.group != "candidate"]


def _named(pair: Pair, classes: tuple[str, ...]) -> tuple[str, str]:
    return classes[pair[0]], classes[pair[1]]


if __name__ == "__main__":
    with exit_on_error():
        typer.run(compare)
