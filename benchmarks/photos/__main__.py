"""`python -m benchmarks.photos`: compare heads on real photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.photos.methods import frozen_methods, tuned_methods
from benchmarks.photos.report import summarize, write_table
from benchmarks.photos.runs import Scores, frozen_tokens, run_frozen, run_tuned
from train.config import TrainConfig
from train.datasets import LabeledImages, read_dataset
from train.reporting import exit_on_error


def compare(
    data: Annotated[Path, typer.Option(help="Photos with train and val split.")],
    out: Annotated[Path, typer.Option(help="Folder for the results and their table.")],
    fine_tune: Annotated[bool, typer.Option(help="Train whole networks, not heads.")] = False,
    work: Annotated[Path, typer.Option(help="Fine-tuned runs are kept here.")] = (
        Path("build/photos")
    ),
    seeds: Annotated[int, typer.Option(min=2, help="Trainings per method.")] = 5,
) -> None:
    """Compare heads on real photos, on a frozen EfficientNet-Lite2 or a fine-tuned Lite0.

    \b
    python -m benchmarks.photos --data photos --out benchmarks/results/photos
    python -m benchmarks.photos --data photos --out benchmarks/results/photos --fine-tune
    """  # noqa: D301
    photos = read_dataset(data)
    methods = tuned_methods() if fine_tune else frozen_methods()
    train = _tuner(photos, work) if fine_tune else _head_trainer(photos, methods)
    found: dict[str, list[Scores]] = {name: [] for name in methods}
    jobs = [(seed, name) for seed in range(seeds) for name in methods]
    for seed, name in track(jobs, "training", console=Console(stderr=True)):
        found[name].append(train(name, methods[name], seed))
    validation = photos.split("val")
    record = {
        "images": {split: len(photos.split(split).images) for split in ("train", "val")},
        "torch": torch.__version__,
        "rows": [vars(row) for row in summarize(found, validation.targets())],
    }
    Console().print(write_table(out, "fine_tuned" if fine_tune else "frozen", record))


_Trainer = Callable[[str, TrainConfig, int], Scores]


def _head_trainer(photos: LabeledImages, methods: dict[str, TrainConfig]) -> _Trainer:
    parts = frozen_tokens(photos, next(iter(methods.values())))
    return lambda _name, config, seed: run_frozen(config, seed, parts)


def _tuner(photos: LabeledImages, work: Path) -> _Trainer:
    def run(name: str, config: TrainConfig, seed: int) -> Scores:
        folder = work / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
        return run_tuned(config, seed, photos, folder)

    return run


if __name__ == "__main__":
    with exit_on_error():
        typer.run(compare)
