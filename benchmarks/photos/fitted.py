"""What `fit` deploys, from its recipe to the chosen read-out, on photos that it never sees."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import photo_draws
from cmlr_edge.model.spec import ModelSpec
from train.config import TrainConfig
from train.data import LabeledImages
from train.data.transforms import ImageTensors
from train.fitting.loop import fit
from train.judging.bootstrap import mean_where_defined, rank_images, weighted_average_precision
from train.judging.inference import score_images
from train.judging.metrics import MIN_POSITIVES
from train.network import checkpoint
from train.network.model import CausalRecognizer
from train.network.token_memory import TokenMemory
from train.settings import build_config

REPORTED, DEVELOPMENT = "reported", "development"
DECODER, POOLED, FITTED = "label decoder", "label decoder and pooled tokens", "fit's default"
_TEST_SHARE = 0.2  # of the training photos, on the development part
_FIRST = {REPORTED: 0, DEVELOPMENT: 100}  # seeds of the two parts are others
_BASE = ("model.backbone=tf_efficientnet_lite0", "model.image_size=224", "amp=off")
_ROOM = 4 * 2**30  # bytes of tokens that all arms of a seed share

# Over the recipe `few`: its training, its choice of the epoch, its held-out photos.
_ALONE = ("model.intervention=none", "compare_plain=false")
_ONE_LAYER = (*_ALONE, "model.decoder_layers=1", "model.united_share=0")
ARMS: dict[str, tuple[str, ...]] = {
    DECODER: (*_ONE_LAYER, "model.pooled_skip=false"),
    POOLED: _ONE_LAYER,
    FITTED: (),
}
CANDIDATES: dict[str, tuple[str, ...]] = {
    "24 epochs": ("epochs=24",),
    "batches of 16": ("batch_size=16",),
    "shorter averaging": ("ema_decay=0.9",),
    "tokens as they come": ("model.standardize_tokens=false",),
    "no uniting": ("model.united_share=0",),
    "one layer": ("model.decoder_layers=1",),
    "half the width": ("model.embed_dim=128", "model.num_heads=4", "model.ffn_dim=256"),
    "flips alone": ("augmentation=flip",),
    "one stage": ("model.token_stages=1",),
    "clusters of the finer stage": ("model.confounders.kind=early",),
}


def divide(photos: LabeledImages, part: str, number: int) -> LabeledImages:
    """Name the photos to test on; what `fit` holds out it takes from the others.

    Args:
        photos: With train and val split.
        part: reported: the test is val. development: a fifth of train, and val is not looked at.
        number: Of the division.
    """
    if part == REPORTED:
        swap = {"val": "test"}
        images = [replace(i, split=swap.get(i.split, i.split)) for i in photos.images]
        return replace(photos, images=tuple(images))
    train = photos.split("train")
    moved = train.with_validation(_TEST_SHARE, _FIRST[part] + number)
    images = [replace(i, split="test" if i.split == "val" else "train") for i in moved.images]
    return replace(moved, images=tuple(images))


def run_all(
    photos: LabeledImages,
    part: str,
    numbers: int,
    arms: dict[str, tuple[str, ...]],
    work: Path,
    results: Path,
    report: Callable[[], None],
) -> list[dict[str, Any]]:
    """Do what `results`, JSON lines, does not hold yet; give all that it then holds."""
    results.parent.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.is_file() else []
    found = [json.loads(line) for line in lines]
    done = {(record["arm"], record["number"]) for record in found}
    for number in range(numbers):
        divided, memory = divide(photos, part, number), _memory()
        for arm, settings in arms.items():
            if (arm, number) not in done:
                config = build_config(
                    {"seed": _FIRST[part] + number}, [*_BASE, *settings], recipe="few"
                )
                record = {"arm": arm, "part": part, "number": number}
                record |= _run(divided, config, memory, work / f"{part}-{number}")
                found.append(record)
                with results.open("a") as file:
                    file.write(json.dumps(record) + "\n")
            report()
    return found


def _memory() -> TokenMemory:
    memory = TokenMemory()
    memory.store.room = _ROOM
    return memory


def _run(
    photos: LabeledImages, config: TrainConfig, memory: TokenMemory, folder: Path
) -> dict[str, Any]:
    """Fit, and score the test photos by what is deployed and by everything it was chosen from."""
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    fit(photos, folder, config, memory=memory, show_progress=False)
    seconds, test = time.monotonic() - started, photos.split("test")
    deployed, spec = checkpoint.load_model(folder)
    images = ImageTensors(test, spec.preprocess)

    def score(model: CausalRecognizer, read_out: str) -> NDArray[np.float32]:
        scores = score_images(model, images, spec.preprocess)
        other = {"decoder": scores.decoupled, "own": scores.own_context}
        found = other.get(read_out)
        return scores.deployed if found is None else found

    chosen = json.loads((folder / checkpoint.REPORT).read_bytes())["read_out"]
    tables = {"deployed": score(deployed, "deployed")}
    with_links = _trained(folder, config)
    for name in chosen["val_map"]:
        if name == "plain":
            tables[name] = score(checkpoint.load_model(folder / checkpoint.PLAIN)[0], name)
        else:
            tables[name] = score(with_links, name)
    targets, draws = test.targets(), photo_draws(len(test.images))
    return {
        "photos": [len(photos.split("train").images), len(test.images)],
        "chosen": chosen["chosen"],
        "held_out": chosen["val_map"],
        "read_outs": {name: _measure(table, targets, draws) for name, table in tables.items()},
        "seconds": round(seconds, 1),
    }


def _trained(folder: Path, config: TrainConfig) -> CausalRecognizer:
    """The network of the run itself, whether it is deployed or the plain one."""
    state = checkpoint.load_state_file(folder)
    spec = ModelSpec.load(folder / checkpoint.SPEC)
    model = CausalRecognizer(config.model, len(spec.labels), pretrained=False)
    assert state is not None
    checkpoint.load_state(model, state["best"]["weights"], folder)
    return model.eval()


def _measure(
    scores: NDArray[np.float32], targets: NDArray[np.float32], draws: NDArray[np.int_]
) -> dict[str, Any]:
    """Mean AP in percent, on the test photos and where they are drawn anew."""
    labels = np.flatnonzero(targets.sum(axis=0) >= MIN_POSITIVES)
    rankings = [rank_images(scores[:, i], targets[:, i]) for i in labels]
    once = np.ones((1, len(targets)), np.int_)
    values = [
        100 * mean_where_defined(np.array([weighted_average_precision(r, w) for r in rankings]))
        for w in np.concatenate([once, draws])
    ]
    return {"map": round(values[0], 2), "resampled": [round(value, 2) for value in values[1:]]}
