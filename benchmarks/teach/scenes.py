"""Scenes as a frozen backbone sees them, and a head that was trained on all of their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.context_bias.features import COMPONENTS, extract_tokens, fit_reduction
from benchmarks.context_bias.methods import BASE, METHODS, RECIPE
from benchmarks.heads import fit_head, prepare_tokens, score_tokens
from benchmarks.teach.lessons import Part
from train.data import read_dataset
from train.data.context_scenes import SceneConfig, generate
from train.fitting.frozen import TokenSet
from train.network.backbones import create_backbone

REFERENCE = "matrix links, two decoder layers, no confounders"  # the best on scenes like those seen
_COUNTS = {"train": 1200, "val": 1, "iid": 600, "do": 1, "cross": 1}
_SEED = 6  # a world on which nothing else was chosen or reported


def load_scenes(work: Path, assets: Path) -> tuple[Part, Part, tuple[str, ...], int]:
    """Train and test part with the backbone's tokens, labels, and leading channels of the finer stage."""
    folder, store = work / "scenes", work / "scenes_tokens.npz"
    if not (folder / "labels.json").is_file():
        config = SceneConfig(seed=_SEED, counts=_COUNTS)
        generate(folder, config, assets, workers=1, report=lambda _part, _done: None)
    data = read_dataset(folder)
    if not store.is_file():
        name, side = BASE.backbone, BASE.image_size
        backbone = create_backbone(name, side, stages=2, pretrained=True).eval()
        seen, unseen = (
            extract_tokens(backbone, data.split(split), BASE, lambda _done: None)
            for split in ("train", "iid")
        )
        np.savez(store, finer=backbone.finer_channels, train=seen, iid=unseen)
    with np.load(store) as arrays:
        train, test = (
            Part(arrays[split], data.split(split).targets()) for split in ("train", "iid")
        )
        finer = int(arrays["finer"])
    return train, test, data.classes, finer


def reference_scores(train: Part, test: Part, finer: int) -> NDArray[np.float32]:
    """Scores (N, L) of the test part by a head trained on all labels of the train part."""
    reduce = fit_reduction(train.tokens, finer)
    sets = [TokenSet(reduce(part.tokens), part.targets, COMPONENTS[0]) for part in (train, test)]
    method = next(m for m in METHODS if m.name == REFERENCE)
    config = replace(
        RECIPE, model=method.model, lr=method.lr, link_sparsity=method.link_sparsity, seed=0
    )
    torch.set_num_threads(1)
    head = fit_head(config, sets[0], prepare_tokens(config, sets[0]))
    return score_tokens(head, sets[1]).deployed
