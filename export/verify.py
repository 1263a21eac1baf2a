"""The built file against the training model: on numbers, and on label decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.errors import EngineError
from cmlr_edge.golden import golden_frames
from cmlr_edge.model_spec import GoldenSample, ModelSpec, ParityReport

if TYPE_CHECKING:
    from export.deploy import DeployModel

# Largest allowed difference of a score between the training model and the built file, and at load
# on another machine, by the precision that was built.
SCORE_TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2}
GOLDEN_TOLERANCE = {"fp32": 2e-3, "fp16": 5e-2}
# Largest allowed share of label decisions that differ; one may, however few there are.
FLIP_TOLERANCE = {"fp32": 0.005, "fp16": 0.005}
_GOLDEN_SEED = 20241
_BATCH = 8


def verify(
    path: Path,
    content: bytes,
    model: DeployModel,
    spec: ModelSpec,
    frames: NDArray[np.uint8],
    *,
    precision: str,
) -> tuple[ParityReport, GoldenSample]:
    """Run both on the same frames, one by one and in batches.

    Args:
        path: Name of the file to be, for messages.
        content: The file.
        model: What it was built from.
        spec: For thresholds and the input size.
        frames: uint8 (N, H, W, 3), RGB.
        precision: Row of the tolerance tables.

    Raises:
        EngineError: A score differs too much, a NaN appears, or a label decision flips although
            its score is further from the threshold than the tolerance; or too many flip.
    """
    golden = golden_frames(_GOLDEN_SEED, spec.preprocess.size_hw)
    frames = np.concatenate([golden, frames])
    expected = _run_torch(model, frames)
    backend = load_backend(path, content, provider="cpu")
    try:
        batches = [backend.infer(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
        actual, single = np.concatenate(batches), backend.infer(frames[:1])
    finally:
        backend.close()
    report = compare_in_batches_and_alone(
        path, actual, single, expected, spec, precision, than="the training model"
    )
    scores = tuple(round(float(score), 7) for score in actual[0])
    return report, GoldenSample(_GOLDEN_SEED, scores, GOLDEN_TOLERANCE[precision])


def compare_in_batches_and_alone(
    path: Path,
    batched: NDArray[np.float32],
    alone: NDArray[np.float32],
    expected: NDArray[np.float32],
    spec: ModelSpec,
    precision: str,
    *,
    than: str,
    max_flips: float | None = None,
) -> ParityReport:
    """`compare` twice: scores from batches, and of the first frames one by one."""
    report = compare(path, batched, expected, spec, precision, than=than, max_flips=max_flips)
    first = compare(
        path, alone, expected[: len(alone)], spec, precision, than=than, max_flips=max_flips
    )
    worst = max(report.max_score_difference, first.max_score_difference)
    return replace(report, max_score_difference=worst)


def compare(
    path: Path,
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
    spec: ModelSpec,
    precision: str,
    *,
    than: str,
    max_flips: float | None = None,
) -> ParityReport:
    """Hold scores (N, L) of a file against those it must give.

    Args:
        path: Of the file to be, for messages.
        actual: Its scores.
        expected: Those of `than`, on the same images.
        spec: For thresholds.
        precision: Row of the tolerance tables.
        than: What it is compared with, for messages.
        max_flips: Share of label decisions that may differ; None: as the table says.

    Raises:
        EngineError: As for `verify`.
    """
    difference = float(np.abs(actual - expected).max())
    allowed = SCORE_TOLERANCE[precision]
    if not difference <= allowed:  # a NaN fails too
        raise EngineError(
            f"{path.name} differs from {than} by {difference:.3g} on {len(actual)} "
            f"images, allowed {allowed:.3g}: it was not written"
        )
    thresholds = np.asarray(spec.thresholds, np.float32)
    flipped = (actual >= thresholds) != (expected >= thresholds)
    if (np.abs(expected - thresholds)[flipped] > allowed).any():
        raise EngineError(f"{path.name} flips label decisions: it was not written")
    flips, share = int(flipped.sum()), FLIP_TOLERANCE[precision] if max_flips is None else max_flips
    if flips > max(1, share * flipped.size):
        raise EngineError(
            f"{path.name} flips {flips} of {flipped.size} label decisions, allowed is {share:.1%}: "
            "it was not written"
        )
    return ParityReport(len(actual), difference, flips)


def synthetic_frames(size_hw: tuple[int, int], number: int) -> NDArray[np.uint8]:
    """Draw seeded frames, for a check without pictures: (number, *size_hw, 3)."""
    return np.concatenate([golden_frames(seed, size_hw) for seed in range(number)])


def _run_torch(model: DeployModel, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch  # here, so that an engine can be verified on a device without it

    batches = [torch.from_numpy(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
    with torch.inference_mode():
        scores: NDArray[np.float32] = torch.cat([model(batch) for batch in batches]).numpy()
    return scores
