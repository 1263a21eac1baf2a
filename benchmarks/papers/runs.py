"""Every arm with every seed, trained by `fit` and scored as published; each kept as it ends."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.papers.recipes import Table
from benchmarks.records import read_lines
from train import distributed
from train.data import LabeledImages
from train.fitting.loop import fit
from train.judging.evaluate import evaluate_run
from train.network import checkpoint


def run_all(
    table: Table,
    train: LabeledImages,
    test: LabeledImages,
    split: str,
    *,
    arms: list[str],
    seeds: int,
    settings: list[str],
    out: Path,
    work: Path,
    report: Callable[[], None],
) -> list[dict[str, Any]]:
    """Do what OUT/runs.jsonl does not hold yet, and return all that it then holds.

    Args:
        table: The recipe file.
        train: Trained on.
        test: Scored on its part `split`.
        split: Of `test`.
        arms: Their names.
        seeds: Trainings of each.
        settings: Over those of the file.
        out: For results.
        work: For run folders; one that was stopped goes on.
        report: Called after each run.
    """
    results = out / "runs.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    done = read_lines(results)
    for seed in range(seeds):
        for arm in arms:
            key = {"arm": arm, "seed": seed, "test": f"{test.name} {split}"}
            if not any(key.items() <= record.items() for record in done):
                folder = work / f"{re.sub(r'[^a-z0-9]+', '-', arm.lower())}-{seed}"
                record = key | _run(table, train, test, split, arm, seed, settings, folder)
                done.append(record)
                if distributed.is_first():
                    with results.open("a") as file:
                        file.write(json.dumps(record) + "\n")
            report()
    return done


def _run(
    table: Table,
    train: LabeledImages,
    test: LabeledImages,
    split: str,
    arm: str,
    seed: int,
    settings: list[str],
    folder: Path,
) -> dict[str, Any]:
    started = time.monotonic()
    if not (folder / checkpoint.SPEC).is_file():
        resume = (folder / checkpoint.CONFIG).is_file()
        fit(train, folder, table.config(arm, seed, settings), resume=resume, show_progress=False)
    scores = evaluate_run(folder, test, split, min_positives=1)["read_outs"]["deployed"]
    return {
        "pictures": [len(train.split("train").images), len(test.split(split).images)],
        "measures": {name: _measure(scores, name) for name in table.measures},
        "hours": round((time.monotonic() - started) / 3600, 3),
    }


def _measure(scores: dict[str, Any], name: str) -> dict[str, float | None]:
    """A value in percent with its 95 % interval over test pictures."""
    if name == "mean_ap" or "context_bias" not in scores:
        interval = scores["mean_ap_interval"] or (None, None)
        found = dict(zip(("value", "low", "high"), (scores["mean_ap"], *interval), strict=True))
    else:
        found = scores["context_bias"][name]
        if not isinstance(found, dict):  # a mean without an interval
            found = {"value": found, "low": None, "high": None}
    return {key: None if value is None else round(100 * value, 2) for key, value in found.items()}
