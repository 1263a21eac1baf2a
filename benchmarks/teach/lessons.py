"""Labels taught from few pictures, and their average precision on test pictures."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.onnx_rows import features_of, find_tokens
from cmlr_edge.capture.images import read_image
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.preprocess import preprocess
from cmlr_edge.teaching.fitting import Basis, fit_row
from train.data import LabeledImages
from train.judging.metrics import average_precisions

_BATCH = 4
_SCORED = 100  # pictures at a time


@dataclass(frozen=True)
class Part:
    """Pictures as a network sees them."""

    tokens: NDArray[np.float16]  # (N, T, D)
    targets: NDArray[np.float32]  # (N, L)


def look(engine: Path, data: LabeledImages) -> tuple[Part, NDArray[np.float32]]:
    """Run an engine on pictures for what it sees, and for its scores (N, L)."""
    pair = ModelPair.read(engine)
    place = find_tokens(pair.content, engine.name)[0]
    features = features_of(pair.content, place, engine.name)
    tokens, scores = [], []
    with (
        closing(load_backend(engine, pair.content, provider="cpu")) as plain,
        closing(load_backend(engine, features, provider="cpu")) as inner,
    ):
        for start in range(0, len(data.images), _BATCH):
            paths = [image.path for image in data.images[start : start + _BATCH]]
            batch = np.stack([preprocess(read_image(p), pair.spec.preprocess) for p in paths])
            scores.append(plain.infer(batch))
            tokens.append(place.of(inner.infer(batch)).astype(np.float16))
    return Part(np.concatenate(tokens), data.targets()), np.concatenate(scores)


def draw(
    targets: NDArray[np.float32], positives: int, negatives: int, seed: int
) -> NDArray[np.int_]:
    """Pictures to teach from: so many with the label, or all there are, and so many without."""
    rng = np.random.default_rng(seed)
    with_it = rng.permutation(np.flatnonzero(targets > 0))[:positives]
    without = rng.permutation(np.flatnonzero(targets == 0))[:negatives]
    return np.concatenate([with_it, without])


def teach(
    train: Part, test: Part, label: int, positives: int, negatives: int, seed: int
) -> dict[str, Any]:
    """Teach a label as `cmlr-edge teach` does, and score the test pictures."""
    there = train.targets[:, label]
    rows = draw(there, positives, negatives, seed)
    tokens = train.tokens[rows].astype(np.float32)
    basis = Basis.of(tokens.reshape(-1, tokens.shape[2]))
    row = fit_row(basis(tokens).astype(np.float16).astype(np.float32), there[rows] > 0)
    parts = (test.tokens[i : i + _SCORED] for i in range(0, len(test.tokens), _SCORED))
    logits = np.concatenate([row.logits(basis(part.astype(np.float32))) for part in parts])
    return {
        "positives": int(there[rows].sum()),
        "negatives": int(len(rows) - there[rows].sum()),
        "seed": seed,
        "ap": precision_of(logits, test.targets[:, label]),
    }


def precision_of(scores: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    """Average precision of one label, in percent."""
    return round(100 * float(average_precisions(scores[:, None], targets[:, None])[0]), 2)
