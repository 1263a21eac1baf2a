"""What the Recognizer returns."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmlr_edge.why import Reasons


class LabelScore(NamedTuple):
    """One label and the model's probability for it, in [0, 1]."""

    label: str
    score: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds spent in each stage; of a batch, each image's equal share."""

    capture: float = 0.0  # reading and decoding
    preprocess: float = 0.0  # resizing and turning colours
    inference: float = 0.0  # in the runtime
    postprocess: float = 0.0  # scores to labels

    @property
    def total(self) -> float:
        """Sum of the stages."""
        return self.capture + self.preprocess + self.inference + self.postprocess


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image."""

    scores: NDArray[np.float32]  # (L,), probabilities in the order of the spec's labels
    labels: tuple[LabelScore, ...]  # at or above their own threshold, most probable first
    latency_ms: Latency  # by stage
    captured_at: float  # seconds since the epoch
    # False: nothing can be said, for the model returned a NaN or an infinity, or the frame is frozen
    # or stale.
    valid: bool = True
    # True: the scene had not changed, so this repeats the scores of an earlier frame.
    repeated: bool = False
    # Why every label has its score, where that was asked for: `why["car"]`.
    why: Reasons | None = None

    def to_dict(self, *, scores: bool = True) -> dict[str, Any]:
        """Plain numbers and text, as JSON, YAML and web frameworks take them.

        Args:
            scores: With all of them, not only those of `labels`.

        Returns:
            `labels`, a list of {"label", "score"}; `scores`; `latency_ms` by stage; `captured_at`;
            `valid`; `repeated`; where it was asked for, `why` by label of `labels`. Scores have five digits; a NaN or an infinity is None.
        """
        record: dict[str, Any] = {
            "labels": [
                {"label": item.label, "score": round(item.score, 5)} for item in self.labels
            ],
            "latency_ms": {
                stage: round(value, 3) for stage, value in asdict(self.latency_ms).items()
            },
            "captured_at": self.captured_at,
            "valid": self.valid,
            "repeated": self.repeated,
        }
        if self.why is not None:
            record["why"] = {item.label: self.why[item.label].to_dict() for item in self.labels}
        if scores:
            finite = np.isfinite(self.scores).tolist()
            numbers = self.scores.tolist()
            record["scores"] = [
                round(number, 5) if ok else None for number, ok in zip(numbers, finite, strict=True)
            ]
        return record

    def to_json(self, *, scores: bool = True) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(scores=scores), allow_nan=False, ensure_ascii=False)

    def __repr__(self) -> str:
        """What it says, in short."""
        labels = ", ".join(f"{item.label} {item.score:.2f}" for item in self.labels) or "no label"
        doubt = "" if self.valid else "; not valid"
        return f"<Prediction: {labels}; {len(self.scores)} scores{doubt}>"


def rank_labels(
    scores: NDArray[np.float32], labels: tuple[str, ...], reached: NDArray[np.bool_]
) -> tuple[LabelScore, ...]:
    """The labels that reach their own threshold, most probable first.

    Args:
        scores: (L,), in the order of `labels`.
        labels: L names.
        reached: (L,), which do.
    """
    found = reached.nonzero()[0]
    ranked = sorted(zip((-scores[found]).tolist(), found.tolist(), strict=True))  # ties: the order
    return tuple([LabelScore(labels[i], -negative) for negative, i in ranked])
