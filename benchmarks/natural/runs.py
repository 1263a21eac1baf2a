"""One method on one split with one seed; many of them side by side, each stored as it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.heads import score_tokens
from benchmarks.intervals import photo_draws
from benchmarks.natural.measures import MEASURES, measure, measure_pairs, rank
from benchmarks.natural.methods import METHODS
from benchmarks.natural.sampling import Pair, Split, draw_split
from benchmarks.natural.tokens import Photos, load_photos, reduce_tokens
from benchmarks.natural.training import train_head
from benchmarks.records import read_lines
from benchmarks.side_by_side import one_thread, run_side_by_side
from train.fitting.frozen import TokenSet


@dataclass(frozen=True)
class Job:
    """One run to do."""

    method: str
    part: str
    split: int
    seed: int
    pairs: tuple[Pair, ...]
    tokens: Path  # of all photos

    @property
    def key(self) -> str:
        """Names the run in the file of results."""
        return f"{self.method} | {self.part} {self.split} | {self.seed}"


def run_all(jobs: list[Job], results: Path, *, workers: int, report: Callable[[Job], None]) -> None:
    """Do the jobs that `results`, JSON lines, does not hold yet; append each as it ends."""
    done = {record["key"] for record in read_lines(results)}
    for job in jobs:
        if job.key in done:
            report(job)
    todo = [job for job in jobs if job.key not in done]
    results.parent.mkdir(parents=True, exist_ok=True)
    # One worker is this process: another would only import everything again.
    ended = run_side_by_side(run, todo, workers) if workers > 1 else _run_in_turn(todo)
    for job, record in ended:
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        report(job)


def _run_in_turn(jobs: list[Job]) -> Iterator[tuple[Job, dict[str, Any]]]:
    with one_thread():
        for job in jobs:
            yield job, run(job)


def run(job: Job) -> dict[str, Any]:
    """Train and score one head."""
    started = time.process_time()
    method = next(m for m in METHODS if m.name == job.method)
    photos, split, train, test = _open(job.tokens, job.part, job.split, job.pairs)
    scores = score_tokens(train_head(method, train, job.pairs, job.seed), test)
    read_outs = {"deployed": scores.deployed}
    if scores.own_context is not None and scores.prior_context is not None:
        read_outs = {"prior": scores.prior_context, "own": scores.own_context}
    draws = photo_draws(len(photos.targets))[:, split.test]
    return {
        "key": job.key,
        "method": job.method,
        "part": job.part,
        "split": job.split,
        "seed": job.seed,
        "photos": [len(split.train), len(split.test)],
        "read_outs": {
            name: _measures(values, test.targets, job.pairs, draws)
            for name, values in read_outs.items()
        },
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def _measures(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    pairs: tuple[Pair, ...],
    draws: NDArray[np.int_],
) -> dict[str, Any]:
    rankings = rank(scores, targets, pairs)
    resampled = [measure(rankings, weights) for weights in draws]
    return {
        "values": measure(rankings, np.ones(len(scores), np.int_)),
        "pairs": measure_pairs(rankings, len(scores)),
        "resampled": {name: [round(values[name], 2) for values in resampled] for name in MEASURES},
    }


@lru_cache(maxsize=2)
def _open(
    tokens: Path, part: str, number: int, pairs: tuple[Pair, ...]
) -> tuple[Photos, Split, TokenSet, TokenSet]:
    photos = _photos(tokens)
    split = draw_split(photos.targets, pairs, part, number)
    return photos, split, *reduce_tokens(photos, split)


_photos = lru_cache(maxsize=1)(load_photos)
