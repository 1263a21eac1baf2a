"""The built file against the training model: on numbers, and on label decisions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import ExplainingBackend, no_explanation
from cmlr_edge.backends.golden import GOLDEN_TOLERANCE, golden_frames
from cmlr_edge.errors import EngineError
from cmlr_edge.model.agreement import MAX_SHARE, Agreement
from cmlr_edge.model.explanation import LINKS, OWN_EVIDENCE, SURROUNDINGS, ExplanationSpec
from cmlr_edge.model.spec import OUTPUT_NAME, GoldenSample, ModelSpec, ParityReport
from cmlr_edge.wording import counted

if TYPE_CHECKING:
    from export.deploy import DeployModel

# Largest allowed difference of a score between the training model and the built file, by the precision
# that was built.
SCORE_TOLERANCE = {"float32": 1e-4, "float16": 5e-2, "int8": 0.6}
# In logits. A matrix of links that is narrower or quantised in the score is float32 in its parts.
SUM_TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}
_REMEDIES = {
    "float16": "export without --fp16, or allow more with --max-flips",
    "int8": "give --calibration more pictures like those to come, export without --int8, or allow more "
    "with --max-flips",
}
_FIT_AGAIN = {"int8": "give --data to fit thresholds again, "}
_GOLDEN_SEED = 20241
_BATCH = 8
_log = logging.getLogger(__name__)


def verify(
    path: Path,
    content: bytes,
    model: DeployModel,
    spec: ModelSpec,
    frames: NDArray[np.uint8],
    *,
    precision: str,
    trained_thresholds: tuple[float, ...] | None = None,
    max_flips: float | None = None,
) -> tuple[ParityReport, GoldenSample]:
    """Run both on the same frames, one by one and in batches.

    Args:
        path: Name of the file to be, for messages.
        content: The file.
        model: What it was built from.
        spec: For thresholds and the input size.
        frames: uint8 (N, H, W, 3), RGB.
        precision: Row of the tolerance tables.
        trained_thresholds: For the training model's scores; the spec's where they were not refitted.
        max_flips: Share of label decisions that may differ, instead of the table's.

    Raises:
        EngineError: A score differs too much, a NaN appears, or a label decision flips although
            its score is further from the threshold than the tolerance; or too many flip, of all or
            of one label.
    """
    frames = np.concatenate([_golden(spec), frames])
    _log.info(
        "comparing it with the trained network, on %s, seeded patterns among them",
        counted(len(frames), "picture"),
    )
    expected = _run_torch(model, frames)
    with closing(load_backend(path, content, provider="cpu")) as backend:
        batches = [backend.infer(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
        actual, single = np.concatenate(batches), backend.infer(frames[:1])
    difference = max(_largest(actual - expected), _largest(single - expected[:1]))
    allowed = SCORE_TOLERANCE[precision]
    if not difference <= allowed:  # a NaN fails too
        raise EngineError(
            f"{path.name} differs from the training model by {difference:.3g} on {len(frames)} "
            f"images, allowed {allowed:.3g}: it was not written{remedy_of(precision, spec)}"
        )
    own, trained = (
        np.asarray(thresholds, np.float32)
        for thresholds in (spec.thresholds, trained_thresholds or spec.thresholds)
    )
    first, second = expected >= trained, actual >= own
    share = MAX_SHARE[precision] if max_flips is None else max_flips
    found = Agreement.of(spec.labels, first, second)
    require_agreement(path, found, share, remedy=remedy_of(precision, spec))
    if (np.abs(expected - trained)[first != second] > allowed).any():
        raise EngineError(
            f"{path.name} flips label decisions far from the threshold, of "
            f"{', '.join(found.flips_by_label)}: it was not written{remedy_of(precision, spec)}"
        )
    report = ParityReport(len(frames), difference, found.flips)
    scores = tuple(round(float(score), 7) for score in actual[0])
    return report, GoldenSample(_GOLDEN_SEED, scores, GOLDEN_TOLERANCE[precision])


def verify_explanation(
    path: Path, content: bytes, spec: ModelSpec, frames: NDArray[np.uint8], precision: str
) -> float:
    """Hold the sum that a file tells against its score's logit.

    Args:
        path: Name of the file to be, for messages.
        content: The file.
        spec: With what its outputs mean.
        frames: uint8 (N, H, W, 3), RGB.
        precision: Row of the tolerance table.

    Returns:
        The largest difference, in logits.

    Raises:
        EngineError: Larger than `SUM_TOLERANCE`, and than what float32 leaves of a score.
    """
    assert spec.explanation is not None
    backend = load_backend(path, content, provider="cpu")
    try:
        if not isinstance(backend, ExplainingBackend):
            raise no_explanation(path.name)
        parts = [backend.explain(frame[None]) for frame in frames]
    finally:
        backend.close()
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    difference, allowed = sum_errors(found, spec.explanation, precision)
    if not (difference <= allowed).all():  # a NaN fails too
        raise EngineError(
            f"{path.name}: what explains a score adds up to {difference.max():.3g} logits beside it: it "
            "was not written; export without --explain"
        )
    return float(difference.max())


def sum_errors(
    outputs: Mapping[str, NDArray[np.float32]],
    meaning: ExplanationSpec,
    precision: str = "float32",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each sum is from its score's logit, and how far it may be: two arrays (N, L).

    Args:
        outputs: Of `Backend.explain`.
        meaning: Of the engine.
        precision: Of its file.
    """
    total = outputs[OWN_EVIDENCE] + np.asarray(meaning.bias, np.float64)
    if LINKS in outputs:
        total = total + outputs[LINKS].sum(axis=-1, dtype=np.float64)
    if SURROUNDINGS in outputs:
        total = total + outputs[SURROUNDINGS]
    scores = outputs[OUTPUT_NAME].astype(np.float64)
    least = np.finfo(np.float32).tiny
    against = np.clip(1 - scores, least, None)
    logits = np.log(np.clip(scores, least, None)) - np.log(against)
    # A score near 1 is a float32 whose steps are wide in logits, and an average a sum of many. Near 0
    # ONNX Runtime's sigmoid is no nearer than a step at 1.
    steps = np.maximum(8 * np.spacing(outputs[OUTPUT_NAME]), np.finfo(np.float32).eps)
    steps = steps / np.clip(scores * against, least, None)
    return np.abs(total - logits), SUM_TOLERANCE[precision] + steps


def require_agreement(
    path: Path, found: Agreement, share: float, *, of: str = "", remedy: str = ""
) -> None:
    """Refuse a file that decides otherwise.

    Args:
        path: Name of the file to be.
        found: What was said before, and what it says.
        share: Of label decisions that may differ.
        of: Whose decisions they are, for the message.
        remedy: As `remedy_of` gives it.

    Raises:
        EngineError: Too many differ, or a label falls silent or speaks anew; it is named.
    """
    reasons = found.changed_labels(share)
    if found.differs(share):
        flips = f"flips {found.flips} of {found.decisions} label decisions{of}"
        reasons = [f"{flips}, allowed is {share:.1%}", *reasons]
    if reasons:
        raise EngineError(f"{path.name}: {'; '.join(reasons)}: it was not written{remedy}")


def remedy_of(precision: str, spec: ModelSpec) -> str:
    """What to do about a file that is refused, as the end of a sentence; "" for float32.

    Args:
        precision: Of the file.
        spec: Whose thresholds may be fitted to the file already.
    """
    if precision not in _REMEDIES:
        return ""
    again = "" if spec.threshold_fit.precision == precision else _FIT_AGAIN.get(precision, "")
    return f"; {again}{_REMEDIES[precision]}"


def synthetic_frames(size_hw: tuple[int, int], number: int) -> NDArray[np.uint8]:
    """Draw seeded frames, for a check without pictures: (number, *size_hw, 3)."""
    return np.concatenate([golden_frames(seed, size_hw) for seed in range(number)])


def _golden(spec: ModelSpec) -> NDArray[np.uint8]:
    return golden_frames(_GOLDEN_SEED, spec.preprocess.size_hw)


def _run_torch(model: DeployModel, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch  # here, so that an engine can be verified on a device without it

    batches = [torch.from_numpy(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
    with torch.inference_mode():
        scores: NDArray[np.float32] = torch.cat([model(batch) for batch in batches]).numpy()
    return scores


def _largest(difference: NDArray[np.float32]) -> float:
    return float(np.abs(difference).max())
