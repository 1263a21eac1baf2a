"""`python -m benchmarks.loading`: does training wait for its pictures, and what memory do many take?

Pictures are repeated until there are as many as asked for; each is read and kept as one of its own.
"""

from __future__ import annotations

import resource
import time
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console

from benchmarks.records import write_json
from cmlr_edge.model.spec import PreprocessSpec
from train.config import TrainConfig
from train.data import LabeledImages, read_dataset
from train.data.transforms import ImageTensors, build_augmentation
from train.fitting.batches import epoch_batches, load_parts
from train.fitting.learner import Learner
from train.network.model import CausalRecognizer
from train.reporting import exit_on_error
from train.settings import build_config

_SETTINGS = [
    "model.backbone=tf_efficientnet_lite0",
    "model.image_size=224",
    "amp=off",
    "model.confounders.kind=none",  # nothing is clustered: a step takes as long with and without
]
_WARM_UP = 3  # steps


@dataclass(frozen=True)
class Rate:
    """Images per second."""

    loader_free: float  # the same batch again and again
    first_epoch: float  # every picture is decoded
    later_epoch: float  # they are kept
    share: float  # of the loader-free rate, in a later epoch


def measure(
    data: Annotated[Path, typer.Option(help="Photos in any layout of docs/datasets.md.")],
    out: Annotated[Path, typer.Option(help="JSON file for the results.")],
    pictures: Annotated[int, typer.Option(min=64, help="To train on.")] = 2000,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read.")] = 2,
    threads: Annotated[int, typer.Option(min=1, help="Of the training itself.")] = 1,
    many: Annotated[int, typer.Option(min=0, help="Pictures whose memory is looked at.")] = 118_000,
    read: Annotated[int, typer.Option(min=0, help="Of these, how many are read.")] = 22_000,
) -> None:
    """Compare the rate of training with that of the same batch repeated, and read many pictures.

    Example: python -m benchmarks.loading --data photos --out benchmarks/results/loading.json
    """
    torch.set_num_threads(threads)
    photos = read_dataset(data).split("train")
    config = build_config({}, [*_SETTINGS, f"workers={workers}"], "thousands")
    # First, so that its peak is its own.
    memory = _memory(_repeat(photos, many), config, workers, read) if many else None
    record = {
        "pictures": pictures,
        "workers": workers,
        "threads": threads,
        "rate": asdict(_rate(_repeat(photos, pictures), config, workers)),
        "memory": memory,
    }
    write_json(out, record)
    Console().print_json(data=record)


def _repeat(photos: LabeledImages, number: int) -> LabeledImages:
    return replace(photos, images=tuple(islice(cycle(photos.images), number)))


def _rate(photos: LabeledImages, config: TrainConfig, workers: int) -> Rate:
    model = CausalRecognizer(config.model, len(photos.classes), pretrained=True)
    spec = _spec(model, config)
    images = _augmented(photos, config, spec, workers)
    learner = Learner(model, config, spec, precision=torch.float32, num_steps=1000)
    learner.train()
    targets, seconds = torch.from_numpy(photos.targets()), []
    for epoch in range(2):
        batches = epoch_batches(config, len(images), epoch)
        started = time.perf_counter()
        for parts in load_parts(batches, images, targets, None, config):
            learner.step(parts)
        seconds.append(time.perf_counter() - started)
    for _ in range(_WARM_UP):
        learner.step(parts)
    started = time.perf_counter()
    for _ in batches:
        learner.step(parts)
    free = time.perf_counter() - started
    number = sum(map(len, batches))
    first, later = (number / value for value in seconds)
    rates = (round(value, 2) for value in (number / free, first, later, later / (number / free)))
    return Rate(*rates)


def _memory(
    photos: LabeledImages, config: TrainConfig, workers: int, read: int
) -> dict[str, float]:
    """Memory in GiB while the first of many pictures are read, those that are kept."""
    model = CausalRecognizer(config.model, len(photos.classes), pretrained=True)
    spec = _spec(model, config)
    before, targets = _peak(), torch.from_numpy(photos.targets())
    images = _augmented(photos, config, spec, workers)
    size = config.batch_size
    starts = range(0, read - read % size, size)
    batches = [[(i, 0) for i in range(start, start + size)] for start in starts]
    for _ in load_parts(batches, images, targets, None, config):
        pass
    own, of_workers = _peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {
        "pictures": len(photos.images),
        "read": sum(map(len, batches)),
        "before_gib": round(before, 2),
        "peak_gib": round(own, 2),
        "in_use_gib": round(_shared_in_use(), 2),
        "largest_ended_worker_gib": round(of_workers, 2),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _shared_in_use() -> float:
    """Shared memory of the machine, in GiB: decoded pictures lie there, once for all workers."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Shmem:"):
            return int(line.split()[1]) / 2**20
    return float(np.nan)


def _spec(model: CausalRecognizer, config: TrainConfig) -> PreprocessSpec:
    side = config.model.image_size
    return PreprocessSpec((side, side), model.backbone.mean, model.backbone.std)


def _augmented(
    photos: LabeledImages, config: TrainConfig, spec: PreprocessSpec, workers: int
) -> ImageTensors:
    augmentation = build_augmentation(config.augmentation, config.model.size_hw)
    return ImageTensors(photos, spec, augmentation=augmentation, workers=workers)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(measure)
