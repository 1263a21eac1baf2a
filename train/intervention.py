"""The interventions in plain PyTorch: the mathematical reference for export and kernels.

Names: B images, L labels, K confounders, C stored contexts, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.attention import MultiHeadAttention
from train.confounders import Confounders, ContextTerm, assign_context

_LINK_SCALE = 30.0  # lets the link matrix learn faster than the network around it


class LabelReadout(nn.Module):
    """One weight row and one bias per label: logit_l = w_l . x_l + b_l."""

    def __init__(self, num_labels: int, width: int, bias: float) -> None:
        """Start rows uniformly in +-1/sqrt(width), as Query2Label does."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_labels, width).uniform_(-1, 1) / width**0.5)
        self.bias = nn.Parameter(torch.full((num_labels,), bias))

    def forward(self, label_features: Tensor) -> Tensor:
        """Map (B, L, d) to logits (B, L)."""
        return (label_features * self.weight).sum(dim=-1) + self.bias


class MatrixLinks(nn.Module):
    """Label links as a matrix: link_j = sum over i != j of A_ji sigmoid(decoupled_logit_i).

    The source is detached, so that links never bend the label features.
    """

    others: Tensor

    def __init__(self, num_labels: int) -> None:
        """Start without any link."""
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(num_labels, num_labels))
        self.register_buffer("others", 1 - torch.eye(num_labels), persistent=False)

    def matrix(self) -> Tensor:
        """A, (L, L): from label (column) to label (row), zero on the diagonal."""
        return self.strength * self.others * _LINK_SCALE

    def forward(self, label_features: Tensor, decoupled_logits: Tensor) -> Tensor:
        """Map decoupled logits (B, L) to link logits (B, L)."""
        del label_features
        return decoupled_logits.detach().sigmoid() @ self.matrix().T


class AttentionLinks(nn.Module):
    """Label links as cross-attention: a query per label over the other labels' features."""

    def __init__(self, num_labels: int, width: int, num_heads: int) -> None:
        """Build a query per label; a label does not attend to itself."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_labels, width) * 0.5)
        self.norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, num_heads)
        self.out_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.readout = LabelReadout(num_labels, width, bias=0.0)
        self.register_buffer("mask", torch.eye(num_labels) * -1e4, persistent=False)

    def forward(self, label_features: Tensor, decoupled_logits: Tensor) -> Tensor:
        """Map label features (B, L, d) to link logits (B, L)."""
        del decoupled_logits
        source = self.norm(label_features.detach())
        mixed = self.attention(self.queries, source, source, bias=self.mask)
        return self.readout(self.out_norm(mixed))


class BackDoorIntervention(nn.Module):
    """P(y | do(X)) = sum_c P(c) sigmoid(f(X) + g(c)), METHOD: the back-door adjustment.

    g, what the context alone explains, is fitted before training and stays fixed. In training f
    sees g of the image's own context, so f is left with what X itself adds; at inference g is
    averaged over the stored contexts, or taken at the image's own.
    """

    centres: Tensor
    confounder_prior: Tensor
    context_weight: Tensor
    context_bias: Tensor
    stored_contexts: Tensor
    context_prior: Tensor

    def __init__(self, num_labels: int, num_confounders: int, num_features: int, num_contexts: int):
        """Reserve the buffers that `set_confounders` fills."""
        super().__init__()
        self.register_buffer("centres", torch.zeros(num_confounders, num_features))
        self.register_buffer("confounder_prior", torch.zeros(num_confounders))
        self.register_buffer("context_weight", torch.zeros(num_confounders, num_labels))
        self.register_buffer("context_bias", torch.zeros(num_labels))
        self.register_buffer("stored_contexts", torch.zeros(num_contexts, num_confounders))
        self.register_buffer("context_prior", torch.zeros(num_contexts))

    def set_confounders(self, confounders: Confounders, term: ContextTerm) -> None:
        """Fill the buffers; sizes may be smaller than asked for where the data gave fewer."""
        self.centres = confounders.centres
        self.confounder_prior = confounders.prior
        self.context_weight, self.context_bias = term.weight, term.bias
        self.stored_contexts, self.context_prior = term.contexts, term.prior

    def own_context(self, tokens: Tensor) -> Tensor:
        """(B, K), from the recognition backbone's tokens (B, T, D)."""
        return assign_context(tokens, self.centres)

    def context_logits(self, contexts: Tensor) -> Tensor:
        """g(c), (N, L), of contexts (N, K)."""
        return contexts @ self.context_weight + self.context_bias

    def average(self, logits: Tensor) -> Tensor:
        """sum_c P(c) sigmoid(logits + g(c)).

        Args:
            logits: f(X), (B, L).

        Returns:
            Probabilities (B, L).
        """
        stored = self.context_logits(self.stored_contexts)  # (C, L)
        probabilities = (logits[:, None] + stored).sigmoid()
        return (probabilities * self.context_prior[:, None]).sum(dim=1)


class ExpectationIntervention(nn.Module):
    """The expectation taken inside the softmax: one attention pass over the confounders.

    e_i = sum_k softmax_k(W_q x_i . W_k c_k / sqrt(d) + log P(c_k)) W_v c_k,  z = LayerNorm(x + e),
    causal_logit_j = u_j . CrossAttention(q_j, z, z) + b_j.
    """

    centres: Tensor
    confounder_prior: Tensor

    def __init__(
        self, num_labels: int, width: int, num_heads: int, confounders: int, features: int
    ):
        """Reserve the confounders; `set_confounders` fills them."""
        super().__init__()
        self.register_buffer("centres", torch.zeros(confounders, features))
        self.register_buffer("confounder_prior", torch.full((confounders,), 1 / confounders))
        self.project = nn.Linear(features, width)
        self.to_confounders = MultiHeadAttention(width, 1)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, num_labels, width) * 0.5)
        self.to_labels = MultiHeadAttention(width, num_heads)
        self.out_norm = nn.LayerNorm(width)
        self.readout = LabelReadout(num_labels, width, bias=-2.0)

    def set_confounders(self, confounders: Confounders) -> None:
        """Fill centres and prior."""
        self.centres, self.confounder_prior = confounders.centres, confounders.prior

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal logits (B, L)."""
        centres = self.project(F.layer_norm(self.centres, self.centres.shape[-1:]))[None]
        # log P as an additive bias: a factor P(c) after a softmax would only rescale a uniform one.
        log_prior = self.confounder_prior.clamp_min(1e-6).log()
        expected = self.to_confounders(label_features, centres, centres, bias=log_prior)
        mixed = self.norm(label_features + expected)
        return self.readout(self.out_norm(self.to_labels(self.queries, mixed, mixed)))
