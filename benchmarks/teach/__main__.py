"""`python -m benchmarks.teach`: labels taught from few pictures against full training; old scores bit by bit."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.records import write_json, write_text
from benchmarks.teach.lessons import Part, look, precision_of, teach
from benchmarks.teach.report import plot, table
from cmlr_edge import demo_engine
from cmlr_edge.machine.facts import cpu_name, usable_cores
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.teaching.lesson import Teacher
from cmlr_edge.teaching.pictures import Pictures
from train.data import LabeledImages, read_dataset
from train.data.context_scenes.__main__ import DEFAULT_ASSETS
from train.reporting import exit_on_error

POSITIVES, NEGATIVES, LABELS = (10, 20, 50), 200, 10  # on scenes
# Photos have few pictures of a label, and each has more tokens to look at.
PHOTO_POSITIVES, PHOTO_NEGATIVES, PHOTO_LABELS = (10, 50), 100, 5
_PROVIDERS = ("cpu", "openvino")
_TAUGHT = 50, 150  # pictures with the label, and without, in the lesson that is timed


def main(
    photos: Annotated[Path, typer.Option(help="Photos with train and val split.")],
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path(
        "benchmarks/results/teach/results.json"
    ),
    work: Annotated[Path, typer.Option(help="What was drawn and seen is kept here.")] = Path(
        "build/teach"
    ),
    assets: Annotated[Path, typer.Option(help="Of ContextScenes.")] = DEFAULT_ASSETS,
    only: Annotated[str, typer.Option(help="scenes, photos, proof or time alone; else all.")] = "",
) -> None:
    """Measure what teaching is worth. Parts that were measured before stay in OUT.

    Example: python -m benchmarks.teach --photos photos
    """
    work.mkdir(parents=True, exist_ok=True)
    record = json.loads(out.read_bytes()) if out.is_file() else {}
    parts = {
        "scenes": lambda: _scenes(work, assets),
        "photos": lambda: _photos(read_dataset(photos), work),
        "proof": lambda: _prove(read_dataset(photos)),
        "time": lambda: _time(read_dataset(photos), work),
    }
    for name, measure in parts.items():
        if only in {"", name}:
            found = measure()
            record = json.loads(out.read_bytes()) if out.is_file() else {}
            record[name] = found
            write_json(out, record)
    if {"scenes", "photos"} & set(record):
        write_text(out.with_suffix(".md"), table(record))
        plot(record, out.with_suffix(".png"))
    Console().print_json(json.dumps(record))


def _scenes(work: Path, assets: Path) -> dict[str, Any]:
    from benchmarks.teach.scenes import REFERENCE, load_scenes, reference_scores

    train, test, labels, finer = load_scenes(work, assets)
    store = work / "reference.npy"
    if not store.is_file():
        np.save(store, reference_scores(train, test, finer))
    chosen = np.random.default_rng(0).permutation(len(labels))[:LABELS].tolist()
    return {
        "reference": f"{REFERENCE}, trained on all {len(train.tokens)} scenes",
        "labels": [*_rows(train, test, labels, chosen, np.load(store), POSITIVES, NEGATIVES)],
    }


def _photos(data: LabeledImages, work: Path) -> dict[str, Any]:
    store = work / "photos.npz"
    if not store.is_file():
        seen, scores = look(demo_engine(), data)
        np.savez(store, tokens=seen.tokens, targets=seen.targets, scores=scores)
    with np.load(store) as arrays:
        split = np.array([image.split for image in data.images])
        train, test = (
            Part(arrays["tokens"][split == name], arrays["targets"][split == name])
            for name in ("train", "val")
        )
        scores = arrays["scores"][split == "val"]
    # The labels with most photos to test on; the first, "person", is on half of them.
    order = np.argsort(-test.targets.sum(axis=0), kind="stable")
    chosen = order[1 : 1 + PHOTO_LABELS].tolist()
    return {
        "reference": "the bundled model, trained on all 306 photos of train",
        "labels": [
            *_rows(train, test, data.classes, chosen, scores, PHOTO_POSITIVES, PHOTO_NEGATIVES)
        ],
    }


def _rows(
    train: Part,
    test: Part,
    labels: tuple[str, ...],
    chosen: list[int],
    reference: Any,
    positives: tuple[int, ...],
    negatives: int,
) -> Iterator[dict[str, Any]]:
    for label in chosen:
        there = test.targets[:, label]
        yield {
            "label": labels[label],
            "test_positives": int(there.sum()),
            "full": precision_of(reference[:, label], there),
            "taught": [teach(train, test, label, n, negatives, seed=0) for n in positives],
        }


def _prove(data: LabeledImages) -> dict[str, Any]:
    """Teach the bundled engine "person" again under another name, and compare all photos."""
    spec = ModelSpec.load(demo_engine().with_suffix(".json"))
    every = _pictures([image.path for image in data.images], spec)
    with_it, without = _somebody(data, spec)
    clock = _Clock()
    teacher = Teacher.of(demo_engine(), providers=_PROVIDERS, report=clock.tell)
    lesson = teacher.teach("somebody", with_it, without, [*every.frames.values()])
    with tempfile.TemporaryDirectory() as folder:
        lesson.write(Path(folder))
        clock.tell("writing", 1)
        back = Teacher.of(Path(folder), providers=("cpu",)).forget("somebody")
    taught = lesson.spec.taught
    assert taught is not None
    return {
        "machine": f"{cpu_name()}, {usable_cores()} cores",
        "pictures": [len(with_it), len(without)],
        "cpu_seconds": clock.cpu,  # of all threads: what else the machine does hardly shows in it
        "frames_by_step": clock.frames,
        "photos_compared": len(every),
        "bit_equal": taught.bit_equal,
        "base_after_forgetting": back.content == demo_engine().read_bytes(),
        "expected": {k: v for k, v in vars(taught.labels[0]).items() if k != "name"},
    }


def _time(data: LabeledImages, work: Path) -> dict[str, Any]:
    """How long one lesson of 50 and 150 pictures takes, as `cmlr-edge teach` gives it: what was given is compared."""
    spec, load, clock = (
        ModelSpec.load(demo_engine().with_suffix(".json")),
        os.getloadavg(),
        _Clock(),
    )
    with_it, without = _somebody(data, spec)
    clock.tell("reading pictures", len(with_it) + len(without))
    teacher = Teacher.of(demo_engine(), providers=_PROVIDERS, report=clock.tell)
    lesson = teacher.teach("somebody", with_it, without)
    lesson.write(work / "timed")
    clock.tell("writing", 1)
    taught = lesson.spec.taught
    assert taught is not None
    return {
        "machine": f"{cpu_name()}, {usable_cores()} cores",
        "load_before": load[0],
        "pictures": [len(with_it), len(without)],
        "wall_seconds": clock.wall | {"all": round(sum(clock.wall.values()), 2)},
        "cpu_seconds": clock.cpu | {"all": round(sum(clock.cpu.values()), 2)},
        "frames_by_step": clock.frames,
        "bit_equal": taught.bit_equal,
    }


def _somebody(data: LabeledImages, spec: ModelSpec) -> tuple[Pictures, Pictures]:
    """The pictures with a person, and those without, that a lesson is given."""
    label = data.classes.index("person")
    with_it, without = (
        _pictures([i.path for i in data.images if (label in i.labels) == there][:count], spec)
        for there, count in zip((True, False), _TAUGHT, strict=True)
    )
    return with_it, without


class _Clock:
    """Seconds of CPU and of the wall by what was done last, of a teacher's reports."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self.frames: dict[str, int] = {}
        self._last = time.process_time(), time.perf_counter()

    def tell(self, what: str, frames: int) -> None:
        now = time.process_time(), time.perf_counter()
        for seconds, then, since in zip((self.cpu, self.wall), now, self._last, strict=True):
            seconds[what] = round(seconds.get(what, 0.0) + then - since, 2)
        self.frames[what] = self.frames.get(what, 0) + frames
        self._last = now


def _pictures(paths: list[Path], spec: ModelSpec) -> Pictures:
    return Pictures.of(paths, spec.preprocess)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
