"""`python -m benchmarks.photos`: compare heads on real photos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.photos import fitted
from benchmarks.photos.fitted_report import fits_table, runs_table, summarize_fits
from benchmarks.photos.methods import frozen_methods, tuned_methods
from benchmarks.photos.report import summarize, write_table
from benchmarks.photos.runs import Scores, TunedRun, frozen_tokens, run_frozen, run_tuned
from benchmarks.records import write_json, write_text
from benchmarks.side_by_side import one_thread, run_side_by_side
from cmlr_edge.errors import DataError
from train.config import TrainConfig
from train.data import LabeledImages, read_dataset
from train.reporting import exit_on_error, progress_bars


def compare(
    data: Annotated[Path, typer.Option(help="Photos with train and val split.")],
    out: Annotated[Path, typer.Option(help="Folder for the results and their table.")],
    fine_tune: Annotated[bool, typer.Option(help="Train whole networks, not heads.")] = False,
    fit: Annotated[bool, typer.Option(help="What `fit` deploys by its recipe.")] = False,
    part: Annotated[
        str, typer.Option(help="With --fit: reported, or development to choose on.")
    ] = fitted.REPORTED,
    only: Annotated[
        list[str] | None, typer.Option(help="With --fit: this candidate too; again for more.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Fine-tuned runs are kept here.")] = (
        Path("build/photos")
    ),
    seeds: Annotated[int, typer.Option(min=2, help="Trainings per method.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Networks tuned side by side.")] = (
        os.cpu_count() or 1
    ),
) -> None:
    """Compare heads on real photos, on a frozen EfficientNet-Lite2 or a fine-tuned Lite0.

    \b
    python -m benchmarks.photos --data photos --out benchmarks/results/photos
    python -m benchmarks.photos --data photos --out benchmarks/results/photos --fine-tune
    python -m benchmarks.photos --data photos --out benchmarks/results/photos --fit
    """  # noqa: D301
    photos = read_dataset(data)
    if fit:
        Console().print(_fit(photos, out, work, part, seeds, only or []))
        return
    methods = tuned_methods() if fine_tune else frozen_methods()
    if fine_tune:
        found = _fine_tune(data, work, list(methods), seeds, workers)
    else:
        found = _train_heads(photos, methods, seeds)
    validation = photos.split("val")
    record = {
        "images": {split: len(photos.split(split).images) for split in ("train", "val")},
        "torch": torch.__version__,
        "rows": [vars(row) for row in summarize(found, validation.targets())],
    }
    Console().print(write_table(out, "fine_tuned" if fine_tune else "frozen", record))


def _fit(
    photos: LabeledImages, out: Path, work: Path, part: str, numbers: int, only: list[str]
) -> str:
    """Run `fit` itself; return the tables."""
    if part not in {fitted.REPORTED, fitted.DEVELOPMENT}:
        raise DataError(f"no part {part!r}: reported or development")
    if unknown := set(only) - set(fitted.CANDIDATES):
        raise DataError(f"no candidates {sorted(unknown)}: {list(fitted.CANDIDATES)}")
    arms = fitted.ARMS | {name: fitted.CANDIDATES[name] for name in only}
    name = "fit" if part == fitted.REPORTED else "fit_development"
    runs = out / f"{name}_runs.jsonl"
    with one_thread(), progress_bars() as progress:
        task = progress.add_task("fitting", total=numbers * len(arms))
        found = fitted.run_all(
            photos, part, numbers, arms, work / name, runs, lambda: progress.advance(task)
        )
    rows = summarize_fits(found)
    tables = f"{fits_table(rows)}\n\n{runs_table(found)}"
    record = {"torch": torch.__version__, "rows": rows}
    write_json(out / f"{name}.json", record)
    write_text(out / f"{name}.md", tables)
    return tables


def _train_heads(
    photos: LabeledImages, methods: dict[str, TrainConfig], seeds: int
) -> dict[str, list[Scores]]:
    parts = frozen_tokens(photos, next(iter(methods.values())))
    jobs = [(name, seed) for name in methods for seed in range(seeds)]
    found: dict[str, list[Scores]] = {name: [] for name in methods}
    for name, seed in track(jobs, "training", console=Console(stderr=True)):
        found[name].append(run_frozen(methods[name], seed, parts))
    return found


def _fine_tune(
    data: Path, work: Path, names: list[str], seeds: int, workers: int
) -> dict[str, list[Scores]]:
    runs = [TunedRun(name, seed, data, work) for seed in range(seeds) for name in names]
    with progress_bars() as progress:
        task = progress.add_task("fine-tuning", total=len(runs))
        found = {}
        for run, scores in run_side_by_side(run_tuned, runs, workers):
            found[run] = scores
            progress.advance(task)
    return {name: [found[run] for run in runs if run.method == name] for name in names}


if __name__ == "__main__":
    with exit_on_error():
        typer.run(compare)
