"""What an engine's further outputs mean: a label's logit as a sum, and where the network looked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from cmlr_edge.errors import SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_EVIDENCE, LINKS, SURROUNDINGS = "own_evidence", "links", "surroundings"
ATTENTION, CONTEXT, OTHER_SCORES = "attention", "context", "other_scores"
Surroundings: TypeAlias = Literal["own", "averaged", "none"]
OUTPUTS = {
    OWN_EVIDENCE: "(N, L): what the label's own features say, and the label about itself where the "
    "model lets it",
    LINKS: "(N, L, L): what the label of the column adds to the label of the row",
    SURROUNDINGS: "(N, L): what the picture's own surroundings add, 0 for the average training "
    "picture's; or what averaging over training surroundings changed",
    ATTENTION: "(N, L, H', W'): where the decoder's last layer looked for the label, mean of its heads",
    CONTEXT: "(N, K): the share of the picture's tokens in each confounder",
    OTHER_SCORES: "(N, L): probabilities by the other read-out, own context or averaged",
}
_MOST_CELLS = 65_536  # of a map: a picture of 8192 pixels in a backbone of stride 32


@dataclass(frozen=True)
class TrainedSurroundings:
    """The surroundings that training saw, and what surroundings c say of labels: c @ weight + bias.

    C of them stand for those of all training pictures; each is the share of a picture in K confounders.
    """

    contexts: tuple[tuple[float, ...], ...]  # (C, K)
    prior: tuple[float, ...]  # (C,), share of the training pictures that each stands for
    spread: tuple[float, ...]  # (K,), variance of pictures about what stands for them
    weight: tuple[tuple[float, ...], ...]  # (K, L), logits
    bias: tuple[float, ...]  # (L,), logits
    pictures: int = 0  # that training saw: so well its mean is known; 0 where that is not told

    def __post_init__(self) -> None:
        """Reject what does not fit together."""
        kinds, labels = len(self.spread), len(self.bias)
        fits = (
            0 < len(self.prior) == len(self.contexts) <= _MOST_CELLS
            and {*map(len, self.contexts)} == {kinds}
            and len(self.weight) == kinds
            and {*map(len, self.weight)} == {labels}
        )
        if not fits:
            raise SpecError(
                f"explanation.training has {len(self.contexts)} contexts, {len(self.prior)} shares, "
                f"{kinds} variances and {len(self.weight)} rows of weights for {labels} labels, which do "
                "not fit together: export the model again"
            )
        if min(*self.prior, *self.spread, self.pictures) < 0 or not math.isclose(
            math.fsum(self.prior), 1, abs_tol=1e-3
        ):
            raise SpecError(
                "explanation.training has shares that do not add up to 1, or variances below 0: export "
                "the model again"
            )

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """Mean share in each confounder, (K,), of the training pictures."""
        prior = np.array(self.prior)
        mean: NDArray[np.float64] = (prior / prior.sum()) @ np.array(self.contexts)
        return mean

    @cached_property
    def deviation(self) -> NDArray[np.float64]:
        """Of one training picture's share in each confounder, (K,); none is small beside the others."""
        about = np.square(np.array(self.contexts) - self.mean)
        deviation: NDArray[np.float64] = np.sqrt(
            np.array(self.prior) @ about + np.array(self.spread)
        )
        return np.maximum(deviation, max(float(np.median(deviation)) / 5, 1e-6))

    @cached_property
    def said(self) -> NDArray[np.float64]:
        """What each of `contexts` says of each label, (C, L), in logits."""
        said: NDArray[np.float64] = np.array(self.contexts) @ np.array(self.weight) + self.bias
        return said


@dataclass(frozen=True)
class ExplanationSpec:
    """How an engine says why: logit = own_evidence + row sum of links + surroundings + bias.

    `OUTPUTS` says what every output means; N images, L labels, K confounders.
    """

    outputs: dict[str, str]  # by name: shape and meaning, for whoever reads the file
    bias: tuple[float, ...]  # (L,), what is said of a label whatever the picture
    links: Literal["scores", "features", "none"] = "none"
    surroundings: Surroundings = "none"
    map_hw: tuple[int, int] | None = None  # of the attention, row by row from the top left
    num_confounders: int = 0  # above 0: with context and other_scores
    training: TrainedSurroundings | None = None  # what contexts are held against

    def __post_init__(self) -> None:
        """Reject sizes that no model has."""
        if self.map_hw is not None and not (
            min(self.map_hw) > 0 and self.map_hw[0] * self.map_hw[1] <= _MOST_CELLS
        ):
            raise SpecError(
                f"explanation.map_hw is {self.map_hw}: expected up to {_MOST_CELLS} cells"
            )
        if not 0 <= self.num_confounders <= _MOST_CELLS:
            raise SpecError(
                f"explanation.num_confounders is {self.num_confounders}: expected 0 to {_MOST_CELLS}"
            )
        training = self.training
        if training is not None and (len(training.spread), len(training.bias)) != (
            self.num_confounders,
            len(self.bias),
        ):
            raise SpecError(
                f"explanation.training is of {len(training.spread)} confounders and "
                f"{len(training.bias)} labels, the model of {self.num_confounders} and "
                f"{len(self.bias)}: export the model again"
            )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every output of an engine that explains, and its shape for one image."""
        labels = len(self.bias)
        found: dict[str, tuple[int, ...]] = {OWN_EVIDENCE: (labels,)}
        if self.links != "none":
            found[LINKS] = (labels, labels)
        if self.surroundings != "none":
            found[SURROUNDINGS] = (labels,)
        if self.map_hw is not None:
            found[ATTENTION] = (labels, *self.map_hw)
        if self.num_confounders:
            found |= {CONTEXT: (self.num_confounders,), OTHER_SCORES: (labels,)}
        return found
