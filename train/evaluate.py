"""Score a finished run on a data set, every read-out of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cmlr_edge.errors import DataError
from train.checkpoint import load_model
from train.datasets.base import LabeledImages
from train.inference import score_images
from train.metrics import evaluate_scores
from train.transforms import ImageTensors


def evaluate_run(
    run: Path, data: LabeledImages, split: str, *, min_positives: int
) -> dict[str, Any]:
    """Score one split.

    Returns:
        A JSON-ready report: `read_outs` maps "deployed", "decoupled" (no causal branch) and, for
        the back-door intervention, "own_context" and "prior_context" to MultiLabelMetrics.

    Raises:
        DataError: The data has other classes than the run.
    """
    model, spec = load_model(run)
    if data.classes != spec.labels:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, the run {len(spec.labels)}, or in "
            "another order: evaluate on data with the classes it was trained on"
        )
    part = data.split(split)
    scores = score_images(model, ImageTensors(part, spec.preprocess), spec.preprocess)
    thresholds = np.asarray(spec.thresholds, np.float32)
    read_outs = {
        name: asdict(
            evaluate_scores(
                values, part.targets(), spec.labels, thresholds, min_positives=min_positives
            )
        )
        for name, values in vars(scores).items()
        if values is not None
    }
    return {
        "run": run.name,
        "data": data.name,
        "split": split,
        "num_images": len(part.images),
        "min_positives": min_positives,
        "read_outs": read_outs,
    }
