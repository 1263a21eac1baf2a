"""Why a label was said: its logit as a sum, and where the network looked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.explanation import (
    ATTENTION,
    CONTEXT,
    LINKS,
    OTHER_SCORES,
    OWN_EVIDENCE,
    SURROUNDINGS,
    ExplanationSpec,
)
from cmlr_edge.model.spec import OUTPUT_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box: TypeAlias = tuple[
    float, float, float, float
]  # left, top, right, bottom as shares of a picture

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_MOST_OTHERS = 8  # labels that a record names; what the others add is one number
_NAMED = 3  # that a sentence names
_SMALL = 0.05  # logits that a sentence leaves out
_MOST_MARGIN = 100.0
_LEAST_ODDS = 2e-9


@dataclass(frozen=True)
class Explain:
    """How predictions are to be explained.

    A label counts as said because of its surroundings where it would not reach its threshold, or by less
    than the margin, if its surroundings were the average training picture's.
    """

    margin: float = 0.0  # logits; below 0 a label is flagged more seldom, above more often

    def __post_init__(self) -> None:
        """Refuse what is no margin.

        Raises:
            SpecError: It is not finite.
        """
        if not abs(self.margin) <= _MOST_MARGIN:
            raise SpecError(
                f"the margin of explanations is {self.margin}: expected logits from "
                f"-{_MOST_MARGIN:g} to {_MOST_MARGIN:g}"
            )


@dataclass(frozen=True, eq=False)
class Why:
    """One label of one picture: amounts in logits that add up to its score's logit."""

    label: str  # its name
    score: float  # in [0, 1]
    own: float  # what the label's own features say
    surroundings: float  # what the picture's surroundings add; 0 for average ones
    others: Mapping[str, float]  # what other labels add, by label, biggest first; without zeros
    bias: float  # of the label, whatever the picture
    # (H', W'), row by row from the top left; shares that sum to 1, less what is masked; None of a
    # network that looks nowhere in particular.
    map: NDArray[np.float32] | None  # where the network looked for the label
    map_box: Box  # the part of the picture that the map covers
    because_of_surroundings: bool  # see `Explain.margin`

    @property
    def logit(self) -> float:
        """The sum: log(score / (1 - score))."""
        return self.own + self.surroundings + math.fsum(self.others.values()) + self.bias

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text: amounts with four digits, the others' biggest eight by name.

        Returns:
            `score`, `own`, `surroundings`, `others`, `others_rest`, `bias`, `logit`,
            `because_of_surroundings`; and `map`, rows of shares, with `map_box`, where there is one.
        """
        named = dict([*self.others.items()][:_MOST_OTHERS])
        rest = math.fsum([*self.others.values()][_MOST_OTHERS:])
        record: dict[str, Any] = {
            "score": round(self.score, 5),
            "own": round(self.own, 4),
            "surroundings": round(self.surroundings, 4),
            "others": {label: round(amount, 4) for label, amount in named.items()},
            "others_rest": round(rest, 4),
            "bias": round(self.bias, 4),
            "logit": round(self.logit, 4),
            "because_of_surroundings": self.because_of_surroundings,
        }
        if self.map is not None:
            # Rounded by hand: NumPy's rounding keeps float32's digits.
            record["map"] = [[round(share, 4) for share in row] for row in self.map.tolist()]
            record["map_box"] = [round(share, 4) for share in self.map_box]
        return record

    def __str__(self) -> str:
        """As people read it: "car 0.91: own evidence +2.1, surroundings +0.8, with person +0.3"."""
        parts = [f"own evidence {self.own:+.1f}"]
        if abs(self.surroundings) >= _SMALL:
            parts.append(f"surroundings {self.surroundings:+.1f}")
        named = [*self.others.items()][:_NAMED]
        parts += [f"with {label} {amount:+.1f}" for label, amount in named if abs(amount) >= _SMALL]
        rest = self.logit - self.own - self.surroundings - self.bias
        rest -= math.fsum(amount for _, amount in named if abs(amount) >= _SMALL)
        if abs(rest) >= _SMALL:
            parts.append(f"other labels {rest:+.1f}")
        parts.append(f"bias {self.bias:+.1f}")
        flag = " (because of its surroundings)" * self.because_of_surroundings
        return f"{self.label} {self.score:.2f}{flag}: {', '.join(parts)}"


@dataclass(frozen=True, eq=False)
class Reasons(Mapping[str, Why]):
    """Why every label of a model has its score in one picture, by label; made when looked up."""

    labels: tuple[str, ...]
    scores: NDArray[np.float32]  # (L,)
    outputs: Mapping[str, NDArray[np.float32]]  # of this picture, by `ExplanationSpec.shapes`
    meaning: ExplanationSpec
    thresholds: Sequence[float] | NDArray[np.float32]  # (L,), in force
    settings: Explain = Explain()
    map_box: Box = _WHOLE
    hidden: NDArray[np.bool_] | None = None  # (H', W'), cells of the map that a mask covers
    looks: tuple[Reasons, ...] = ()  # at the picture and its tiles: a label's best one counts
    model: str = ""  # whose reasons these are, for people

    @property
    def context(self) -> NDArray[np.float32] | None:
        """The share of the picture in each confounder, (K,); None where the engine does not tell."""
        return self.outputs.get(CONTEXT)

    @property
    def other_scores(self) -> NDArray[np.float32] | None:
        """Scores (L,) by the other read-out, own context or averaged; None where it does not tell."""
        return self.outputs.get(OTHER_SCORES)

    @property
    def map_hw(self) -> tuple[int, int] | None:
        """Rows and columns of the maps; None where there are none."""
        return self.meaning.map_hw

    @classmethod
    def of(
        cls,
        found: Mapping[str, NDArray[np.float32]],
        meaning: ExplanationSpec,
        labels: tuple[str, ...],
        thresholds: NDArray[np.float32],
        settings: Explain,
        *,
        model: str,
    ) -> Iterator[Reasons]:
        """Take what an engine computed of N pictures, one after the other.

        Args:
            found: Arrays of N rows by output name, the scores among them.
            meaning: What its spec says of them.
            labels: L names.
            thresholds: (L,), in force.
            settings: How to explain.
            model: Its name.

        Raises:
            EngineError: The engine gives other shapes than its spec says.
        """
        scores = found[OUTPUT_NAME]
        for name, shape in meaning.shapes.items():
            if name not in found or found[name].shape != (len(scores), *shape):
                came = found[name].shape[1:] if name in found else "nothing"
                raise EngineError(
                    f"{model} should give {name} {shape} for a picture, and gives {came}: spec and "
                    "engine come from different builds; copy both files together"
                )
        for i, row in enumerate(scores):
            outputs = {name: found[name][i] for name in meaning.shapes}
            yield cls(labels, row, outputs, meaning, thresholds, settings, model=model)

    def judged_by(self, thresholds: Sequence[float] | NDArray[np.float32]) -> Reasons:
        """The same, with other thresholds (L,)."""
        looks = tuple(look.judged_by(thresholds) for look in self.looks)
        return replace(self, thresholds=thresholds, looks=looks)

    @classmethod
    def together(cls, looks: Sequence[Reasons]) -> Reasons:
        """What several looks at one picture say, the whole picture's first."""
        scores = np.max([look.scores for look in looks], axis=0)
        return replace(looks[0], scores=scores, looks=tuple(looks))

    def placed(self, box: Box, hidden: NDArray[np.bool_] | None) -> Reasons:
        """The same for a model that saw this part of a picture, with cells of the map left out."""
        return replace(self, map_box=box, hidden=hidden)

    def otherwise(self) -> dict[str, NDArray[np.float64]]:
        """Logits (L,) of all labels by less than the whole network, where the engine tells.

        Returns:
            By `LINKS` and by `SURROUNDINGS`: less what that adds. By `OTHER_SCORES`: by the other read-out.
        """
        if self.looks:
            each = [look.otherwise() for look in self.looks]
            best = np.argmax([look.scores for look in self.looks], axis=0)
            labels = np.arange(len(best))
            return {name: np.stack([one[name] for one in each])[best, labels] for name in each[0]}
        told, logits = len(self.meaning.bias), logits_of(self.scores)
        found = {name: logits.copy() for name in (LINKS, SURROUNDINGS) if name in self.outputs}
        for name, less in found.items():  # a label that was taught has nothing to lose
            part = self.outputs[name]
            less[:told] -= part.sum(axis=1) if name == LINKS else part
        if (other := self.other_scores) is not None:
            found[OTHER_SCORES] = logits.copy()
            found[OTHER_SCORES][:told] = logits_of(other)
        return found

    def __getitem__(self, label: str) -> Why:
        """Tell one label's part.

        Raises:
            KeyError: The model does not know it.
        """
        try:
            index = self.labels.index(label)
        except ValueError as error:
            raise KeyError(
                f"{label!r} is not one of the model's {len(self.labels)} labels"
            ) from error
        if self.looks:
            return max(self.looks, key=lambda look: float(look.scores[index]))[label]
        score = float(self.scores[index])
        if index >= len(self.meaning.bias):  # it was taught: it has nothing but its own evidence
            own = _logit(score)
            return Why(label, score, own, 0.0, {}, 0.0, None, self.map_box, False)
        surroundings = self._amount(SURROUNDINGS, index)
        own, bias, others = self._amount(OWN_EVIDENCE, index), self.meaning.bias[index], {}
        if LINKS in self.outputs:
            row = self.outputs[LINKS][index]
            order = np.argsort(-np.abs(row), kind="stable")
            others = {self.labels[i]: float(row[i]) for i in order if row[i] != 0}
        without = own + bias + math.fsum(others.values())
        said = score >= self.thresholds[index] < 1
        owes = without < _logit(float(self.thresholds[index])) + self.settings.margin
        is_own = self.meaning.surroundings == "own"
        return Why(
            label=label,
            score=score,
            own=own,
            surroundings=surroundings,
            others=others,
            bias=bias,
            map=self._map(index),
            map_box=self.map_box,
            because_of_surroundings=bool(is_own and said and owes and surroundings > 0),
        )

    def __iter__(self) -> Iterator[str]:
        """All labels, in the order of the scores."""
        return iter(self.labels)

    def __len__(self) -> int:
        """How many labels the model knows."""
        return len(self.labels)

    def __contains__(self, label: object) -> bool:
        """Whether the model knows a label."""
        return label in self.labels

    def _amount(self, output: str, index: int) -> float:
        return float(self.outputs[output][index]) if output in self.outputs else 0.0

    def _map(self, index: int) -> NDArray[np.float32] | None:
        if ATTENTION not in self.outputs:
            return None
        found: NDArray[np.float32] = self.outputs[ATTENTION][index]
        if self.hidden is not None:
            found = found * ~self.hidden
        return found


def as_explain(explain: bool | Explain) -> Explain | None:
    """What is asked for: None for nothing."""
    return explain if isinstance(explain, Explain) else Explain() if explain else None


def logits_of(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits of probabilities, at most 20 from 0: what float32 can tell apart, and a little more."""
    odds = np.clip(np.asarray(probabilities, np.float64), _LEAST_ODDS, 1 - _LEAST_ODDS)
    found: NDArray[np.float64] = np.log(odds / (1 - odds))
    return found


def _logit(probability: float) -> float:
    if probability <= 0 or probability >= 1:
        return math.copysign(math.inf, probability - 0.5)
    return math.log(probability / (1 - probability))
