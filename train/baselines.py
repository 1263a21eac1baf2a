"""Heads to compare with, on the same backbone and recipe.

Reconstructed from their papers: ML-Decoder (Ridnik et al., WACV 2023), CCD (Liu et al., CVPR 2022),
and the two that know the biased pairs (Singh et al., CVPR 2020) in `known_pairs`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PARTS, _TEMPERATURE = 4, 32.0  # of CCD's cosine classifier
_POOL_DROPOUT = 0.2


class PooledClassifier(nn.Module):
    """The standard head: mean tokens and a linear classifier."""

    def __init__(self, num_features: int, num_labels: int, bias: float) -> None:
        """Build the classifier."""
        super().__init__()
        self.linear = nn.Linear(num_features, num_labels)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        pooled = F.dropout(tokens.mean(dim=1), _POOL_DROPOUT, self.training)
        logits: Tensor = self.linear(pooled)
        return logits


class CcdClassifier(nn.Module):
    """Contextual debiasing: the context's direct effect is subtracted from pooled features.

    context = softmax(classifier(mean tokens)) @ memory, memory = mean features of each label's
    images; x = max tokens - tanh(W max tokens) * context; cosine classifier in four parts.
    """

    memory: Tensor

    def __init__(self, num_features: int, num_labels: int) -> None:
        """Reserve the memory, which is filled before training."""
        super().__init__()
        self.register_buffer("memory", torch.zeros(num_labels, num_features))
        self.context = nn.Linear(num_features, num_labels)
        self.gate = nn.Linear(num_features, num_features)
        self.weight = nn.Parameter(torch.randn(num_labels, num_features) * num_features**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def context_logits(self, tokens: Tensor) -> Tensor:
        """Logits (B, L) of the classifier that names the context; gets a loss of its own."""
        logits: Tensor = self.context(tokens.mean(dim=1))
        return logits

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        context = self.context_logits(tokens).softmax(dim=-1) @ self.memory
        strongest = tokens.amax(dim=1)
        debiased = strongest - self.gate(strongest).tanh() * context
        parts = F.normalize(debiased.unflatten(-1, (_PARTS, -1)), dim=-1)
        rows = F.normalize(self.weight.unflatten(-1, (_PARTS, -1)), dim=-1)
        cosine = torch.einsum("bpd,lpd->bl", parts, rows) / _PARTS
        return _TEMPERATURE * cosine + self.bias
