"""Train one method with one seed and score the validation photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.context_bias.features import COMPONENTS, extract_tokens, fit_reduction
from benchmarks.heads import fit_head, prepare_tokens, score_tokens
from benchmarks.photos.methods import tuned_methods
from train.config import TrainConfig
from train.data import LabeledImages, read_dataset
from train.data.transforms import ImageTensors
from train.fitting.frozen import TokenSet
from train.fitting.loop import fit
from train.judging.inference import DatasetScores, score_images
from train.network import checkpoint
from train.network.backbones import create_backbone

Scores = dict[str, NDArray[np.float32]]  # read-out -> (N, L)


def frozen_tokens(photos: LabeledImages, config: TrainConfig) -> dict[str, TokenSet]:
    """Tokens of both splits, each stage reduced to its principal components."""
    model = config.model
    backbone = create_backbone(model.backbone, model.image_size, stages=2, pretrained=True).eval()
    raw = {
        split: extract_tokens(backbone, photos.split(split), model, lambda _done: None)
        for split in ("train", "val")
    }
    reduce = fit_reduction(raw["train"], backbone.finer_channels)
    return {
        split: TokenSet(reduce(tokens), photos.split(split).targets(), COMPONENTS[0])
        for split, tokens in raw.items()
    }


def run_frozen(config: TrainConfig, seed: int, parts: dict[str, TokenSet]) -> Scores:
    """Train a head on stored tokens."""
    config = replace(config, seed=seed)
    head = fit_head(config, parts["train"], prepare_tokens(config, parts["train"]))
    return _by_read_out(score_tokens(head, parts["val"]))


@dataclass(frozen=True)
class TunedRun:
    """One network to fine-tune; made so that another process can be given it."""

    method: str  # of `tuned_methods`
    seed: int
    photos: Path
    work: Path  # run folders are kept there

    @property
    def folder(self) -> Path:
        """Of this run."""
        return self.work / f"{self.method.replace(', ', '-').replace(' ', '-')}-{self.seed}"


def run_tuned(run: TunedRun) -> Scores:
    """Train a whole network, or take the one that an interrupted comparison left in its folder."""
    photos, folder = read_dataset(run.photos), run.folder
    if not (folder / checkpoint.SPEC).is_file():
        started = (folder / checkpoint.STATE).is_file()
        config = replace(tuned_methods()[run.method], seed=run.seed)
        fit(photos, folder, config, resume=started, show_progress=False)
    model, spec = checkpoint.load_model(folder)
    images = ImageTensors(photos.split("val"), spec.preprocess)
    return _by_read_out(score_images(model, images, spec.preprocess))


def _by_read_out(scores: DatasetScores) -> Scores:
    if scores.own_context is None or scores.prior_context is None:
        return {"deployed": scores.deployed}
    return {"prior": scores.prior_context, "own": scores.own_context}
