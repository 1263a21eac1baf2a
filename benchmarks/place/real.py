"""Photos and clips: how far the places that clips show are from photos.

Training photos are the reference, and no network is trained: none is needed. Photos that it was not trained on, one a block in any order,
are a place that is like training; each clip, a frame a block, is a place of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.context_bias.features import extract_tokens, fit_reduction
from benchmarks.context_bias.methods import BASE
from benchmarks.place.alarms import DAY, DEFAULT_RATE, RUNS, false_alarms, thresholds_of
from benchmarks.place.worlds import reference_of
from benchmarks.size import Size
from cmlr_edge.capture import open_source
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place.drift import DriftTest, statistics_over_time
from cmlr_edge.place.histogram import distance
from train.data import read_dataset
from train.data.base import LabeledImage, LabeledImages
from train.fitting.frozen import TokenSet
from train.network.backbones import create_backbone

_FRAMES = 96  # of each clip, evenly
_LEAST = 80  # photos: of fewer no 64 stand for the others


def run_real(photos: Path, clips: Path, work: Path, seed: int, size: Size) -> dict[str, Any]:
    """False alarms on held-out photos, and after how many blocks each clip is called unlike."""
    backbone = create_backbone(BASE.backbone, BASE.image_size, stages=2, pretrained=True).eval()
    data = read_dataset(photos)
    train, val = (
        replace(part, images=part.images[: size.of(len(part.images), _LEAST)])
        for part in map(data.split, ("train", "val"))
    )
    raw = extract_tokens(backbone, train, BASE, lambda _done: None)
    reduce = fit_reduction(raw, backbone.finer_channels)

    def tokens_of(images: LabeledImages) -> TokenSet:
        tokens = reduce(extract_tokens(backbone, images, BASE, lambda _done: None))
        return TokenSet(tokens, images.targets(), finer_channels=256)

    seen = TokenSet(reduce(raw), train.targets(), finer_channels=256)
    training, contexts_of = reference_of(seen, len(val.images), seed)
    held_out = contexts_of(tokens_of(val))
    test = DriftTest(training, block_s=600, false_alarms_a_day=DEFAULT_RATE)
    record: dict[str, Any] = {
        "photos": {"train": len(train.images), "held_out": len(val.images)},
        "thresholds": {f"{k:g}": v for k, v in thresholds_of(training).items()},
        "false_alarms": false_alarms(training, held_out, 1.0, seed, size.of(RUNS)),
        "distance_of_photos": distance(held_out.mean(axis=0), training.mean),
        "clips": {},
    }
    day = held_out[np.random.default_rng(seed).integers(len(held_out), size=DAY)]
    for clip in sorted(clips.glob("*.mp4")):
        frames = _frames_of(clip, work / "frames" / clip.stem, data, size.of(_FRAMES, 8))
        contexts = contexts_of(tokens_of(frames))
        record["clips"][clip.stem] = _noticed(contexts, day, training, test.threshold)
    return record


def _noticed(
    contexts: NDArray[np.float64],
    day: NDArray[np.float64],
    training: TrainedSurroundings,
    threshold: float,
) -> dict[str, Any]:
    """After how many blocks of a clip it is told, from its beginning and after a day of photos."""

    def first(path: NDArray[np.float64]) -> int | None:
        over = np.flatnonzero(path > threshold)
        return int(over[0]) + 1 if len(over) else None

    path = statistics_over_time(contexts, training)
    moved = statistics_over_time(np.concatenate([day, contexts]), training)[len(day) :]
    return {
        "frames": len(contexts),
        "distance": distance(contexts.mean(axis=0), training.mean),
        "statistic": float(path[-1]),
        "blocks_until_told": first(path),
        "blocks_until_told_after_a_day_of_photos": first(moved),
    }


def _frames_of(clip: Path, folder: Path, like: LabeledImages, most: int) -> LabeledImages:
    """Frames of a clip as pictures of a data set."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_source(clip) as source:
        frames = [frame.image_bgr for frame in source]
    chosen = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    images = []
    for index in chosen:
        path = folder / f"{index:05d}.png"
        if not path.is_file():
            opencv().imwrite(str(path), frames[index])
        images.append(LabeledImage(path, "clip", ()))
    return LabeledImages(clip.stem, like.classes, tuple(images))
