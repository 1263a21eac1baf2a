"""Score a finished run on a data set, every read-out of it.

Data with other classes than the run is scored on the labels that both share, where those are known
(MS-COCO and NUS-WIDE).
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from train import distributed
from train.data.base import ContextBias, LabeledImages
from train.data.common_labels import common_labels
from train.data.damaged import leave_out_damaged
from train.data.transforms import ImageTensors
from train.judging.bootstrap import mean_ap_interval
from train.judging.context_bias import score_context_bias
from train.judging.inference import score_images
from train.judging.metrics import evaluate_scores
from train.network.checkpoint import held_out_by, load_model
from train.reporting import progress_bars


def evaluate_run(
    run: Path, data: LabeledImages, split: str, *, min_positives: int, skip_damaged: bool = False
) -> dict[str, Any]:
    """Score one split, in as many processes as there are.

    Args:
        run: A finished run.
        data: With the classes of the run, or with some in common where those are known.
        split: Of the data.
        min_positives: Labels with fewer are left out of the averages.
        skip_damaged: Leave out pictures that cannot be read; `num_skipped` counts them.

    Returns:
        A JSON-ready report: `read_outs` maps "deployed", "decoupled" (no causal branch) and, for
        the back-door intervention, "own_context" and "prior_context" to MultiLabelMetrics, with
        the bootstrap interval of the mAP and, for benchmarks with biased pairs, ContextBiasScores.
        `chose_before`: these pictures chose epoch, read-out and thresholds of the run.

    Raises:
        DataError: The data has other classes than the run, and no shared labels are known.
    """
    model, spec = load_model(run)
    model.to(distributed.device())
    part, skipped = held_out_by(run, data).split(split), dict[str, str]()
    if skip_damaged:
        with progress_bars(visible=distributed.is_first()) as progress:
            part, skipped = leave_out_damaged(part, progress)
    ours, theirs = _shared_columns(spec.labels, data)
    labels = tuple(spec.labels[k] for k in ours)
    workers = distributed.reading_workers(None)
    images = ImageTensors(part, spec.preprocess, workers=workers)
    scores = score_images(model, images, spec.preprocess)
    thresholds = np.asarray(spec.thresholds, np.float32)[ours]
    # An image that shows only labels of its own data set stays, as one without any shared label.
    targets = part.targets()[:, theirs]
    bias = data.context_bias if data.classes == spec.labels else None
    known = part.known()
    read_outs = {
        name: _score_read_out(
            values[:, ours], targets, labels, thresholds, bias, known, min_positives=min_positives
        )
        for name, values in vars(scores).items()
        if values is not None
    }
    judged = f"{data.name}, {len(part.images)} validation images"  # as `fit` notes its own
    return {
        "run": run.name,
        "data": data.name,
        "split": split,
        "chose_before": split == "val" and spec.threshold_fit.data == judged,
        "num_images": len(part.images),
        "num_skipped": len(skipped),
        "min_positives": min_positives,
        "read_outs": read_outs,
    }


def _shared_columns(labels: tuple[str, ...], data: LabeledImages) -> tuple[list[int], list[int]]:
    """Indices of the labels to score: of the run, and of the data."""
    if data.classes == labels:
        return [*range(len(labels))], [*range(len(labels))]
    try:
        pairs = common_labels(labels, data.classes)
    except DataError as error:
        raise DataError(
            f"{data.name} has {len(data.classes)} classes, the run {len(labels)}, or in "
            f"another order: evaluate on data with the classes it was trained on ({error})"
        ) from error
    return [a for a, _ in pairs], [b for _, b in pairs]


def _named_as_usual(metrics: dict[str, Any]) -> dict[str, Any]:
    """OR is `or`, which no name in Python can be."""
    return {
        name.removesuffix("_"): _named_as_usual(value) if name == "top3" else value
        for name, value in metrics.items()
    }


def _score_read_out(
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    labels: tuple[str, ...],
    thresholds: NDArray[np.float32],
    bias: ContextBias | None,
    known: NDArray[np.bool_] | None,
    *,
    min_positives: int,
) -> dict[str, Any]:
    metrics = evaluate_scores(scores, targets, labels, thresholds, min_positives=min_positives)
    report = _named_as_usual(asdict(metrics))
    report["positives"] = dict(zip(labels, map(int, (targets > 0).sum(axis=0)), strict=True))
    scored = [k for k, name in enumerate(labels) if metrics.ap[name] is not None]
    report["mean_ap_interval"] = None
    if scored:
        report["mean_ap_interval"] = mean_ap_interval(scores[:, scored], targets[:, scored])
    if bias is not None:
        report["context_bias"] = asdict(
            score_context_bias(scores, targets, labels, bias, known=known)
        )
    return report
