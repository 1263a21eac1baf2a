"""Pictures with ten labels that one engine is trained without, and another with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from export.build_engine import build_engine
from train.config import TrainConfig
from train.data import LabeledImages, read_dataset
from train.data.context_scenes import SceneConfig, generate
from train.fitting.loop import fit
from train.network.token_memory import TokenMemory
from train.settings import build_config

HELD_OUT = 10
_BASE = ("model.backbone=tf_efficientnet_lite0", "model.image_size=224", "amp=off")
_SCENES = SceneConfig(seed=6, counts={"train": 1200, "val": 200, "iid": 600, "do": 1, "cross": 1})
_TEST_SHARE = 0.4  # of the photos


@dataclass(frozen=True)
class World:
    """Data with splits train, val (of training) and test, and the labels that are held out."""

    name: str
    data: LabeledImages
    held_out: tuple[str, ...]
    config: TrainConfig

    def engine(self, folder: Path, *, full: bool) -> Path:
        """Train and export an engine that knows all labels, or all but those held out."""
        where = folder / self.name / ("full" if full else "base")
        if not (where / "model.json").is_file():
            data = self.data if full else without(self.data, self.held_out)
            memory = TokenMemory()
            fit(data, where / "run", self.config, memory=memory, show_progress=False)
            build_engine(where / "run", where)
        return where / "model.onnx"


def without(data: LabeledImages, labels: tuple[str, ...]) -> LabeledImages:
    """The same pictures, as if nobody had looked for these labels."""
    kept = [i for i, name in enumerate(data.classes) if name not in labels]
    place = {old: new for new, old in enumerate(kept)}
    images = [
        replace(image, labels=tuple(place[i] for i in image.labels if i in place))
        for image in data.images
    ]
    return replace(data, classes=tuple(data.classes[i] for i in kept), images=tuple(images))


def scenes(work: Path, assets: Path, report: Callable[[str, int], None]) -> World:
    """ContextScenes of a world that nothing else was chosen on; the backbone stays, nothing is augmented."""
    folder = work / "scenes"
    if not (folder / "labels.json").is_file():
        generate(folder, _SCENES, assets, workers=1, report=report)
    data = read_dataset(folder)
    images = [replace(i, split="test" if i.split == "iid" else i.split) for i in data.images]
    kept = tuple(i for i in images if i.split in {"train", "val", "test"})
    chosen = np.random.default_rng(0).permutation(len(data.classes))[:HELD_OUT]
    settings = (*_BASE, "backbone_lr=0", "augmentation=none", "epochs=12", "frozen_stages=0")
    config = build_config({"seed": 0}, [*settings], recipe="thousands")
    return World(
        "scenes",
        replace(data, images=kept),
        tuple(sorted(data.classes[i] for i in chosen)),
        config,
    )


def photos(folder: Path) -> World:
    """Photos, some of them to test on; the most frequent labels but the first are held out."""
    data = read_dataset(folder)
    rng = np.random.default_rng(0)
    test = set(rng.permutation(len(data.images))[: round(_TEST_SHARE * len(data.images))].tolist())
    images = [
        replace(image, split="test" if i in test else "train")
        for i, image in enumerate(data.images)
    ]
    data = replace(data, images=tuple(images))
    order = np.argsort(-data.targets().sum(axis=0), kind="stable")
    held_out = tuple(data.classes[i] for i in order[1 : 1 + HELD_OUT])
    settings = [*_BASE, "augmentation=none", "compare_plain=false"]
    config = build_config({"seed": 0}, settings, recipe="few")
    return World("photos", data, held_out, config)
