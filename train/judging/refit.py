"""Fit the thresholds of an exported engine again, on pictures of the place it will work in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge import Recognizer
from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import DataError
from cmlr_edge.model.card import card_beside
from cmlr_edge.model.files import model_path, signature_path, spec_path, write_atomically
from cmlr_edge.model.spec import ModelSpec, ThresholdFit
from cmlr_edge.model.thresholds import (
    LabelExpectation,
    ThresholdRule,
    expect,
    fit_thresholds,
    written,
)
from train.data.base import LabeledImages


def refit_thresholds(
    engine: Path,
    data: LabeledImages,
    rule: ThresholdRule,
    *,
    shrinkage: float,
    report: Callable[[int], None] = lambda _done: None,
) -> dict[str, LabelExpectation]:
    """Score pictures with the engine itself, and write new thresholds into its spec, unsigned.

    Args:
        engine: Model file, or the folder with `model.onnx` in it.
        data: Labelled pictures; its classes are the engine's labels.
        rule: What thresholds should be best for.
        shrinkage: As in `fit_thresholds`.
        report: Told how many pictures were scored since.

    Returns:
        For every label, what to expect of its new threshold on these pictures.

    Raises:
        DataError: The data has other classes than the engine, and nothing was changed.
    """
    path = model_path(engine)
    scores = []
    with Recognizer.from_engine(path) as recognizer:
        spec = recognizer.spec
        if data.classes != spec.labels:
            raise DataError(
                f"{data.name} has {len(data.classes)} classes and the engine {len(spec.labels)} "
                "labels, or in another order: give pictures labelled with the engine's labels"
            )
        for image in data.images:
            scores.append(recognizer(read_image(image.path)).scores)
            report(1)
    table, precision = data.judged(np.stack(scores)), spec.files[path.name].precision
    refitted = with_refitted_thresholds(
        spec, table, data, rule, shrinkage=shrinkage, precision=precision
    )
    card = card_beside(spec_path(path), refitted)
    refitted.save(spec_path(path))
    for beside, text in card.items():
        if beside.exists():  # an engine that came without one gets none
            write_atomically(beside, text)
    for name in refitted.files:
        signature_path(path.with_name(name)).unlink(missing_ok=True)  # of the old thresholds
    expected = expect(table, data.targets(), np.asarray(refitted.thresholds, np.float32))
    return dict(zip(spec.labels, expected, strict=True))


def with_refitted_thresholds(
    spec: ModelSpec,
    scores: NDArray[np.float32],
    data: LabeledImages,
    rule: ThresholdRule,
    *,
    shrinkage: float,
    precision: str,
) -> ModelSpec:
    """A spec with thresholds that fit the scores (N, L) of a built file on `data`.

    Args:
        spec: Stays as it is.
        scores: In the order of the data's images.
        data: Its classes are the spec's labels.
        rule: What thresholds should be best for.
        shrinkage: As in `fit_thresholds`.
        precision: Of the built file.
    """
    thresholds = fit_thresholds(data.judged(scores), data.targets(), shrinkage=shrinkage, rule=rule)
    fitted = ThresholdFit(
        rule=str(rule),
        data=f"{data.name}, {len(data.images)} images of {' and '.join(data.splits)}",
        num_images=len(data.images),
        precision=precision,
        shrinkage=shrinkage,
    )
    return replace(spec, thresholds=written(thresholds), threshold_fit=fitted)
