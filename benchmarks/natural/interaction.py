"""A head whose label features meet the context: averaging over contexts then changes rankings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.config import ModelConfig
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead, ModelOutput

_SCALE = 5.0  # lets the context's part learn faster than the network around it


class InteractionHead(CausalHead):
    """logit_j(X, c) = f_j(X) + g_j(c) + sum_d w_jd x_jd (A c)_d; c's mean is taken off.

    The last term starts at zero. In training c is the image's own; the deployed probability is the
    mean over the stored contexts.
    """

    def __init__(self, config: ModelConfig, num_labels: int, num_features: int) -> None:
        """Add the context's factor."""
        super().__init__(config, num_labels, num_features)
        self.factor = nn.Linear(config.confounders.num_confounders, config.embed_dim, bias=False)
        nn.init.zeros_(self.factor.weight)

    def training_logits(self, output: ModelOutput, context_logits: Tensor | None) -> list[Tensor]:
        """See `CausalHead`; the interaction is that of the image's own context."""
        (logits,) = super().training_logits(output, context_logits)
        assert isinstance(self.intervention, BackDoorIntervention)
        with torch.no_grad():
            contexts = self.intervention.own_context(output.tokens)
        return [logits + self._diagonal(output, contexts)]

    def scores(self, output: ModelOutput, inference_context: str | None = None) -> Tensor:
        """See `CausalHead`."""
        back_door = self.intervention
        assert isinstance(back_door, BackDoorIntervention)
        effect = self._effect(output)
        if (inference_context or self.config.inference_context) == "own":
            contexts = back_door.own_context(output.tokens)
            effect = effect + self._diagonal(output, contexts)
            return (effect + back_door.context_logits(contexts)).sigmoid()
        stored = back_door.stored_contexts
        moved = torch.einsum("bld,cd->bcl", self._weighted(output), self._factors(stored))
        logits = effect[:, None] + back_door.context_logits(stored) + moved
        return (logits.sigmoid() * back_door.context_prior[:, None]).sum(dim=1)

    def _diagonal(self, output: ModelOutput, contexts: Tensor) -> Tensor:
        """Of every image with its own context: (B, L)."""
        return torch.einsum("bld,bd->bl", self._weighted(output), self._factors(contexts))

    def _weighted(self, output: ModelOutput) -> Tensor:
        assert output.label_features is not None
        assert self.readout is not None
        return output.label_features * self.readout.weight

    def _factors(self, contexts: Tensor) -> Tensor:
        assert isinstance(self.intervention, BackDoorIntervention)
        stored, prior = self.intervention.stored_contexts, self.intervention.context_prior
        moved: Tensor = self.factor(contexts - prior @ stored)
        return _SCALE * moved
