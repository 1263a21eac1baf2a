"""What an engine's further outputs mean: a label's logit as a sum, and where the network looked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from cmlr_edge.errors import SpecError

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
