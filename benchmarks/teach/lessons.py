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
from cmlr_edge.teaching.fitting import Array, Basis, fit_row
from train.data import LabeledImages
from train.judging.metrics import average_precisions

POSITIVES = (10, 20, 50)
NEGATIVES = (20, 100)
_BATCH = 8


@dataclass(frozen=True)
class Seen:
    """Pictures as an engine sees them: tokens (N, T, D) and scores (N, L)."""

    tokens: NDArray[np.float16]
    scores: NDArray[np.float32]


def look(engine: Path, data: LabeledImages, cache: Path | None = None) -> Seen:
    """Run an engine on pictures twice: for what it says, and for what it sees."""
    if cache is not None and cache.is_file():
        with np.load(cache) as arrays:
            return Seen(arrays["tokens"], arrays["scores"])
    pair = ModelPair.read(engine)
    found = find_tokens(pair.content, engine.name)[0]
    tokens, scores = [], []
    with (
        closing(load_backend(engine, pair.content, provider="cpu")) as plain,
        closing(
            load_backend(engine, features_of(pair.content, found, engine.name), provider="cpu")
        ) as inner,
    ):
        for start in range(0, len(data.images), _BATCH):
            paths = [image.path for image in data.images[start : start + _BATCH]]
            batch = np.stack([preprocess(read_image(p), pair.spec.preprocess) for p in paths])
            scores.append(plain.infer(batch))
            seen = found.of(inner.infer(batch))
            tokens.append(seen.astype(np.float16))
    seen_all = Seen(np.concatenate(tokens), np.concatenate(scores))
    if cache is not None:
        np.savez(cache, tokens=seen_all.tokens, scores=seen_all.scores)
    return seen_all


def draw(
    targets: NDArray[np.float32], positives: int, negatives: int, seed: int
) -> NDArray[np.int_]:
    """Pictures to teach from: so many with the label, or all there are, and so many without."""
    rng = np.random.default_rng(seed)
    with_it = rng.permutation(np.flatnonzero(targets > 0))[:positives]
    without = rng.permutation(np.flatnonzero(targets == 0))[:negatives]
    return np.concatenate([with_it, without])


def taught_precision(
    train: Seen,
    test: Seen,
    train_targets: NDArray[np.float32],
    test_targets: NDArray[np.float32],
    positives: int,
    negatives: int,
    seed: int,
) -> dict[str, Any]:
    """Teach one label as `cmlr-edge teach` does, and score test pictures; targets are (N,)."""
    rows = draw(train_targets, positives, negatives, seed)
    tokens: Array = train.tokens[rows].astype(np.float32)
    basis = Basis.of(tokens.reshape(-1, tokens.shape[2]))
    bags = basis(tokens).astype(np.float16).astype(np.float32)
    row = fit_row(bags, train_targets[rows] > 0)
    logits = np.concatenate(
        [
            row.logits(basis(test.tokens[i : i + 100].astype(np.float32)))
            for i in range(0, len(test.tokens), 100)
        ]
    )
    return {
        "positives": int(train_targets[rows].sum()),
        "negatives": int((train_targets[rows] == 0).sum()),
        "seed": seed,
        "ap": float(average_precisions(logits[:, None], test_targets[:, None])[0]),
    }
