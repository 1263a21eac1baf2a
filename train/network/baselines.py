"""Heads to compare with, on the same backbone and recipe.

Reconstructed from their papers: CCD (Liu et al., CVPR 2022), feature-split (Singh et al., CVPR 2020);
ML-Decoder (Ridnik et al., WACV 2023) stands beside the decoder in `model.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.network.dropout import drop

COSINE_PARTS, COSINE_TEMPERATURE = 4, 32.0  # of CCD's cosine classifier
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
        pooled = drop(tokens.mean(dim=1), _POOL_DROPOUT, training=self.training)
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
        parts = F.normalize(debiased.unflatten(-1, (COSINE_PARTS, -1)), dim=-1)
        rows = F.normalize(self.weight.unflatten(-1, (COSINE_PARTS, -1)), dim=-1)
        cosine = parts.flatten(1) @ rows.flatten(1).T / COSINE_PARTS
        return COSINE_TEMPERATURE * cosine + self.bias


class FeatureSplitClassifier(nn.Module):
    """Feature-split: one half of the pooled features for a label itself, one for its company.

    Where a biased label stands without its usual company, the second half of the features is
    replaced by its running mean and its weights get no gradient, so that the first half has to
    tell the label by itself. Knows the pairs: `exclusive` marks those examples before each step.
    """

    running_mean: Tensor
    exclusive: Tensor | None = None  # (B, L), bool, of the batch about to be trained on

    def __init__(self, num_features: int, num_labels: int, bias: float) -> None:
        """Build both halves of the classifier."""
        super().__init__()
        self.own_half = num_features // 2
        self.own = nn.Linear(self.own_half, num_labels)
        self.company = nn.Linear(num_features - self.own_half, num_labels, bias=False)
        nn.init.constant_(self.own.bias, bias)
        self.register_buffer("running_mean", torch.zeros(num_features - self.own_half))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        pooled = drop(tokens.mean(dim=1), _POOL_DROPOUT, training=self.training)
        own, company = pooled[:, : self.own_half], pooled[:, self.own_half :]
        logits: Tensor = self.company(company)
        if self.training:
            mean = company.detach().float().mean(dim=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            if self.exclusive is not None:
                usual = F.linear(self.running_mean, self.company.weight).detach()
                logits = torch.where(self.exclusive, usual.to(logits.dtype), logits)
        return self.own(own) + logits
