"""ContextScenes: a benchmark of contextual bias whose true causal graph is known.

    python -m train.data.context_scenes --out scenes --seed 0

writes a folder that `read_dataset` reads (`labels.json` and pictures), with the graph and every
image's context beside it in `graph.json`.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.strict_json import read_json, write_json
from train.data.context_scenes import cutouts
from train.data.context_scenes.assets import (
    HELD_OUT_FAMILY,
    TRAINING_FAMILIES,
    Assets,
    load_assets,
)
from train.data.context_scenes.compose import Box, ObjectSizes, compose
from train.data.context_scenes.graph import (
    SceneGraph,
    draw_graph,
    draw_scene_labels,
)

__all__ = ["Part", "SceneConfig", "SceneTruth", "generate", "read_truth"]
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Part:
    """One split of the data."""

    name: str
    photos: str  # which background photos: "train", "val" or "test"
    do_context: bool


PARTS = (
    Part("train", "train", False),
    Part("val", "val", False),
    Part("iid", "test", False),
    Part("do", "test", True),
    Part("cross", "test", True),
)


@dataclass(frozen=True)
class Source:
    """Where the objects and backgrounds of scenes come from."""

    load: Callable[[Path, int], Assets]  # of a folder, for the world of a seed
    counts: Mapping[str, int]  # part -> scenes
    families: Mapping[str, tuple[str, ...]]  # part -> families of its objects, of `Assets.sprites`


_COUNTS = {"train": 4000, "val": 1000, "iid": 2000, "do": 3000, "cross": 2000}
SOURCES = {
    "drawn": Source(
        lambda folder, _seed: load_assets(folder),
        _COUNTS,
        dict.fromkeys(("train", "val", "iid", "do"), TRAINING_FAMILIES)
        | {"cross": (HELD_OUT_FAMILY,)},
    ),
    "cutouts": Source(cutouts.load_cutouts, cutouts.COUNTS, cutouts.FAMILIES),
}


@dataclass(frozen=True)
class SceneConfig:
    """What to draw. The same configuration gives the same pictures."""

    seed: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict(_COUNTS))
    bias_strength: float = 1.0
    mixed: bool = False
    contexts_per_scene: int = 1
    sizes: ObjectSizes = field(default_factory=ObjectSizes)
    source: str = "drawn"  # of SOURCES


@dataclass(frozen=True)
class SceneTruth:
    """What is true of a generated folder."""

    config: SceneConfig
    labels: tuple[str, ...]
    context_names: tuple[str, ...]
    graph: SceneGraph
    contexts: dict[str, tuple[int, ...]]  # file -> indices into context_names
    # file -> label -> left, top, right, bottom of its object, pixels; none of older folders
    boxes: dict[str, dict[str, Box]] = field(default_factory=dict)


def generate(
    folder: Path,
    config: SceneConfig,
    assets_folder: Path,
    *,
    workers: int = 1,
    report: Callable[[str, int], None] = lambda _part, _done: None,
) -> None:
    """Draw all parts into `folder`; `labels.json` is written last.

    Args:
        folder: Created.
        config: What to draw.
        assets_folder: Holds, or will hold, sprites and backgrounds.
        workers: Processes.
        report: Told the part's name and how many of its scenes were finished since.

    Raises:
        DataError: The folder holds scenes already, or a package has not what it should.
    """
    if (folder / "labels.json").exists():
        raise DataError(f"{folder} holds scenes already: choose another folder or delete it")
    if config.source not in SOURCES:
        raise DataError(f"there is no source {config.source!r} of pictures: {', '.join(SOURCES)}")
    # Fetched once, before the workers need them.
    assets = SOURCES[config.source].load(assets_folder, config.seed)
    graph = draw_graph(
        config.seed,
        bias_strength=config.bias_strength,
        mixed=config.mixed,
        contexts_per_scene=config.contexts_per_scene,
    )
    images: list[dict[str, Any]] = []
    contexts: dict[str, tuple[int, ...]] = {}
    boxes: dict[str, dict[str, Box]] = {}
    # Spawned, not forked: a fork of a process whose threads hold locks (a progress bar's, OpenCV's)
    # can wait for them for ever.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _load, (config, assets_folder)) as pool:
        for part in PARTS:
            count = config.counts.get(part.name, 0)
            (folder / part.name).mkdir(parents=True, exist_ok=True)
            draw = partial(_draw, graph, config, part, folder / part.name)
            for name, where, labels, objects in pool.map(draw, range(count), chunksize=50):
                names = [assets.labels[i] for i in sorted(labels)]
                images.append({"file": name, "split": part.name, "labels": names})
                contexts[name], boxes[name] = where, objects
                report(part.name, 1)
    truth = SceneTruth(config, assets.labels, assets.contexts, graph, contexts, boxes)
    write_json(folder / "graph.json", truth)
    listing = json.dumps({"classes": list(assets.labels), "images": images})
    write_atomically(folder / "labels.json", listing.encode())


_assets: Assets | None = None  # of a worker process


def _load(config: SceneConfig, folder: Path) -> None:
    global _assets  # noqa: PLW0603  # read once per process instead of once per scene
    cv2.setNumThreads(1)
    _assets = SOURCES[config.source].load(folder, config.seed)


def _draw(
    graph: SceneGraph, config: SceneConfig, part: Part, folder: Path, index: int
) -> tuple[str, tuple[int, ...], frozenset[int], dict[str, Box]]:
    """Draw and save one scene; return its name, contexts, labels, and where they are."""
    assert _assets is not None
    rng = np.random.default_rng((config.seed, PARTS.index(part), index))
    contexts, labels = draw_scene_labels(graph, rng, do_context=part.do_context)
    photos = [_assets.photos(context, part.photos) for context in contexts]
    families = SOURCES[config.source].families[part.name]
    image, boxes = compose(_assets, families, photos, labels, config.sizes, rng)
    path = folder / f"{index:05d}.jpg"
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())
    return f"{part.name}/{path.name}", contexts, labels, boxes


def read_truth(folder: Path) -> SceneTruth:
    """Read the graph and the contexts of a generated folder.

    Raises:
        DataError: There is none, or it is something else.
    """
    try:
        return read_json(folder / "graph.json", SceneTruth)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} does not hold ContextScenes: {error}") from error
