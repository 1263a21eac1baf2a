"""The interventions in plain PyTorch: the mathematical reference for export and kernels.

Names: B images, L labels, K confounders, C stored contexts, d width. METHOD numbers in brackets
are those of `docs/method.md`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.confounders.clustering import Confounders, ContextTerm, assign_context
from train.network.attention import MultiHeadAttention

LINK_SCALE = 30.0  # lets the link matrix learn faster than the network around it
_EXCLUDED = -1e4  # attention bias of a label towards itself


def _others(num_labels: int, include_self: bool) -> Tensor:
    """(L, L): 1 where a label may be a cause of another, 0 on the diagonal unless of itself."""
    everyone = torch.ones(num_labels, num_labels)
    return everyone if include_self else everyone - torch.eye(num_labels)


def _self_mask(num_labels: int, include_self: bool) -> Tensor | None:
    """Attention bias (L, L) that says the same; None where there is nothing to say."""
    return None if include_self else (1 - _others(num_labels, include_self)) * _EXCLUDED


def _products(label_features: Tensor, rows: Tensor) -> Tensor:
    """Of the features (B, L, d) with one row for each label, (L, d): (B, L)."""
    # With the dimension kept: OpenVINO 2026.4 rounds a sum that it fuses with the addition
    # behind it to bfloat16, on a processor that has it, as soon as there are two images.
    return (label_features * rows).sum(dim=-1, keepdim=True).squeeze(-1)


class LabelReadout(nn.Module):
    """One weight row and one bias per label: logit_l = w_l . x_l + b_l."""

    def __init__(self, num_labels: int, width: int, bias: float) -> None:
        """Start rows uniformly in +-1/sqrt(width), as Query2Label does."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_labels, width).uniform_(-1, 1) / width**0.5)
        self.bias = nn.Parameter(torch.full((num_labels,), bias))

    def forward(self, label_features: Tensor) -> Tensor:
        """Map (B, L, d) to logits (B, L)."""
        return _products(label_features, self.weight) + self.bias


class MatrixLinks(nn.Module):
    """Label links as a matrix: link_j = sum over i != j of A_ji sigmoid(decoupled_logit_i).

    The source is detached, so that links never bend the label features.
    """

    others: Tensor

    def __init__(self, num_labels: int, *, include_self: bool = False) -> None:
        """Start without any link."""
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(num_labels, num_labels))
        self.register_buffer("others", _others(num_labels, include_self), persistent=False)

    def matrix(self) -> Tensor:
        """A, (L, L): from label (column) to label (row), zero on the diagonal."""
        return self.strength * self.others * LINK_SCALE

    def forward(self, label_features: Tensor | None, decoupled_logits: Tensor) -> Tensor:
        """Map decoupled logits (B, L) to link logits (B, L)."""
        del label_features
        return decoupled_logits.detach().sigmoid() @ self.matrix().T

    @torch.no_grad()
    def shrink(self, amount: float) -> None:
        """Move every strength towards 0 by `amount`, and no further: a proximal step of L1."""
        self.strength.copy_(F.softshrink(self.strength, amount))


class LabelAttention(nn.Module):
    """A learned query per label attends to one feature per label, and is read out.

    causal_logit_j = u_j . LayerNorm(CrossAttention(q_j, z, z)) + b_j. The attention weights,
    averaged over heads, are the map of label correlations: row j says where label j looks.
    """

    mask: Tensor | None

    def __init__(
        self, num_labels: int, width: int, num_heads: int, *, include_self: bool, bias: float
    ) -> None:
        """Build queries, attention and read-out."""
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, num_labels, width) * 0.5)
        self.attention = MultiHeadAttention(width, num_heads)
        self.out_norm = nn.LayerNorm(width)
        self.readout = LabelReadout(num_labels, width, bias)
        self.register_buffer("mask", _self_mask(num_labels, include_self), persistent=False)

    def forward(self, sources: Tensor) -> Tensor:
        """Map a feature per label, (B, L, d), to logits (B, L)."""
        mixed = self.attention(self.queries, sources, sources, bias=self.mask)
        return self.readout(self.out_norm(mixed))

    def correlation(self, sources: Tensor) -> Tensor:
        """The map of label correlations, (B, L, L); rows sum to 1."""
        return self.attention.weights(self.queries, sources, bias=self.mask)


class AttentionLinks(nn.Module):
    """Label links as cross-attention over the other labels' features."""

    def __init__(self, num_labels: int, width: int, num_heads: int, *, include_self: bool) -> None:
        """Build a query per label."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.to_labels = LabelAttention(
            num_labels, width, num_heads, include_self=include_self, bias=0.0
        )

    def forward(self, label_features: Tensor, decoupled_logits: Tensor) -> Tensor:
        """Map label features (B, L, d) to link logits (B, L)."""
        del decoupled_logits
        return self.to_labels(self.norm(label_features.detach()))


class GatedAttentionLinks(nn.Module):
    """Label links as cross-attention over label embeddings that the labels' probabilities gate.

    z_i = sigmoid(decoupled_logit_i) e_i: like the link matrix, it learns of another label only how
    likely that label is, so that nothing else of the image can pass as a link. Queries and keys are
    the same for every image, so the weights are, and the whole is one matrix over labels.
    """

    mask: Tensor | None

    def __init__(self, num_labels: int, width: int, num_heads: int, *, include_self: bool) -> None:
        """Build an embedding and a query per label; read out without a link at first."""
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(num_labels, width))
        self.queries = nn.Parameter(torch.randn(1, num_labels, width))
        self.attention = MultiHeadAttention(width, num_heads)
        self.weight = nn.Parameter(torch.zeros(num_labels, width))
        self.register_buffer("mask", _self_mask(num_labels, include_self), persistent=False)

    def forward(self, label_features: Tensor | None, decoupled_logits: Tensor) -> Tensor:
        """Map decoupled logits (B, L) to link logits (B, L)."""
        del label_features
        return decoupled_logits.detach().sigmoid() @ self.matrix().T + self.shift()

    def shift(self) -> Tensor:
        """What is added to a link logit whatever the probabilities, (L,)."""
        attention = self.attention
        bias = attention.out.bias + attention.out.weight @ attention.value.bias
        return LINK_SCALE * self.weight @ bias

    def matrix(self) -> Tensor:
        """From label (column) to label (row), (L, L).

        link_j = w_j . (W_o concat_h sum_i A_hji p_i (W_v e_i)_h + W_o b_v + b_o), times the scale.
        """
        attention, heads = self.attention, (self.attention.num_heads, -1)
        (weights,) = attention.head_weights(self.queries, self.embeddings[None], self.mask)
        values = (self.embeddings @ attention.value.weight.T).unflatten(-1, heads)
        rows = (self.weight @ attention.out.weight).unflatten(-1, heads)  # (L, H, d / H)
        seen = torch.matmul(rows.transpose(0, 1), values.permute(1, 2, 0))  # (H, L, L)
        return LINK_SCALE * (weights * seen).sum(dim=0)


class BackDoorIntervention(nn.Module):
    """P(y | do(X)) = sum_c P(c) sigmoid(f(X) + g(c)): the back-door adjustment [5b].

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
    context_spread: Tensor

    def __init__(self, num_labels: int, num_confounders: int, num_features: int, num_contexts: int):
        """Reserve the buffers that `set_confounders` fills."""
        super().__init__()
        self.register_buffer("centres", torch.zeros(num_confounders, num_features))
        self.register_buffer("confounder_prior", torch.zeros(num_confounders))
        self.register_buffer("context_weight", torch.zeros(num_confounders, num_labels))
        self.register_buffer("context_bias", torch.zeros(num_labels))
        self.register_buffer("stored_contexts", torch.zeros(num_contexts, num_confounders))
        self.register_buffer("context_prior", torch.zeros(num_contexts))
        # Stays NaN in weights of a version that did not measure it.
        self.register_buffer("context_spread", torch.full((num_confounders,), torch.nan))

    def set_confounders(self, confounders: Confounders, term: ContextTerm) -> None:
        """Fill the buffers; sizes may be smaller than asked for where the data gave fewer."""
        self.centres = confounders.centres
        self.confounder_prior = confounders.prior
        self.context_weight, self.context_bias = term.weight, term.bias
        self.stored_contexts, self.context_prior = term.contexts, term.prior
        self.context_spread = term.spread

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
        probabilities = (logits.unsqueeze(1) + stored).sigmoid()
        return (probabilities * self.context_prior[:, None]).sum(dim=1)


class _OverConfounders(nn.Module):
    """What the interventions share that look at projected confounders."""

    centres: Tensor
    confounder_prior: Tensor

    def __init__(self, confounders: int, features: int, width: int) -> None:
        """Reserve the confounders; `set_confounders` fills them."""
        super().__init__()
        self.register_buffer("centres", torch.zeros(confounders, features))
        self.register_buffer("confounder_prior", torch.full((confounders,), 1 / confounders))
        self.project = nn.Linear(features, width)

    def set_confounders(self, confounders: Confounders) -> None:
        """Fill centres and prior."""
        self.centres, self.confounder_prior = confounders.centres, confounders.prior

    def projected(self) -> Tensor:
        """(1, K, d)."""
        return self.project(F.layer_norm(self.centres, self.centres.shape[-1:]))[None]


class _ExpectedConfounder(_OverConfounders):
    """z_i = LayerNorm(x_i + e_i), e_i the expectation of the confounder taken inside the softmax.

    e_i = sum_k softmax_k(W_q x_i . W_k c_k / sqrt(d) + log P(c_k)) W_v c_k. Without confounders
    (`use_confounders=False`, a control) z_i = LayerNorm(x_i).
    """

    def __init__(
        self, confounders: int, features: int, width: int, *, use_confounders: bool
    ) -> None:
        """Build the attention over confounders."""
        super().__init__(confounders, features, width)
        self.use_confounders = use_confounders
        self.to_confounders = MultiHeadAttention(width, 1)
        self.norm = nn.LayerNorm(width)

    def mix(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to z (B, L, d)."""
        if not self.use_confounders:
            return self.norm(label_features)
        centres = self.projected()
        # log P as an additive bias: a factor P(c) after a softmax would only rescale a uniform one.
        log_prior = self.confounder_prior.clamp_min(1e-6).log()
        expected = self.to_confounders(label_features, centres, centres, bias=log_prior)
        return self.norm(label_features + expected)


class ExpectationIntervention(_ExpectedConfounder):
    """The expectation inside the softmax, and cross-attention over the labels [3]."""

    def __init__(
        self,
        num_labels: int,
        width: int,
        num_heads: int,
        confounders: int,
        features: int,
        *,
        include_self: bool = True,
        use_confounders: bool = True,
    ):
        """Build both attentions."""
        super().__init__(confounders, features, width, use_confounders=use_confounders)
        self.to_labels = LabelAttention(
            num_labels, width, num_heads, include_self=include_self, bias=-2.0
        )

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal logits (B, L)."""
        return self.to_labels(self.mix(label_features))


class LinearIntervention(_ExpectedConfounder):
    """The same expectation, with a learned matrix for the attention over labels [5].

    causal_logit_j = u_j . sum_i A_ji g(z_i) + b_j
    """

    others: Tensor

    def __init__(
        self,
        num_labels: int,
        width: int,
        confounders: int,
        features: int,
        *,
        include_self: bool,
        use_confounders: bool,
    ):
        """Start with every label as its own cause, or with none."""
        super().__init__(confounders, features, width, use_confounders=use_confounders)
        self.strength = nn.Parameter(torch.eye(num_labels) * include_self)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.readout = LabelReadout(num_labels, width, bias=-2.0)
        self.register_buffer("others", _others(num_labels, include_self), persistent=False)

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal logits (B, L)."""
        return _products(self.matrix() @ self.hidden(label_features), self.rows()) + self.bias()

    def matrix(self) -> Tensor:
        """A, (L, L): from label (column) to label (row)."""
        return self.strength * self.others

    def hidden(self, label_features: Tensor) -> Tensor:
        """Half of g: what its second map reads, (B, L, d)."""
        enter, activation, _ = self.transform
        hidden: Tensor = activation(enter(self.mix(label_features)))
        return hidden

    def rows(self) -> Tensor:
        """The read-out of what is hidden, (L, d).

        The second map of g and the sum over i commute: it is applied to the read-out's rows, once
        for all images.
        """
        return self.readout.weight @ self._leave.weight

    def bias(self) -> Tensor:
        """What is added whatever the image, (L,)."""
        said = self.readout.weight @ self._leave.bias
        return self.readout.bias + self.matrix().sum(dim=1) * said

    @property
    def _leave(self) -> nn.Linear:
        leave = self.transform[2]
        assert isinstance(leave, nn.Linear)
        return leave


class ExplicitIntervention(_OverConfounders):
    """The sum over confounders written out, one pass for each [4].

    z_ik = LayerNorm(x_i + MLP(x_i, c_k)),  h_jk = CrossAttention(q_j, {z_ik}_i),
    p_j = sum_k P(c_k) sigmoid(u_j . h_jk + b_j). The mix of x_i and c_k is not linear: with a linear
    one the softmax over i would be the same for every c_k, and the sum collapse.
    """

    def __init__(
        self,
        num_labels: int,
        width: int,
        num_heads: int,
        confounders: int,
        features: int,
        *,
        include_self: bool,
    ):
        """Build the mix and the attention over labels."""
        super().__init__(confounders, features, width)
        self.from_label = nn.Linear(width, width)
        self.mixed = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.to_labels = LabelAttention(
            num_labels, width, num_heads, include_self=include_self, bias=-2.0
        )

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal logits (B, L)."""
        images, labels, width = label_features.shape
        centres = self.projected()[0]  # (K, d)
        hidden = F.relu(self.from_label(label_features).unsqueeze(1) + centres[:, None])
        z = self.norm(label_features.unsqueeze(1) + self.mixed(hidden))  # (B, K, L, d)
        logits = self.to_labels(z.reshape(-1, labels, width)).view(images, -1, labels)
        probabilities = (logits.float().sigmoid() * self.confounder_prior[:, None]).sum(dim=1)
        return probabilities.clamp(1e-5, 1 - 1e-5).logit()
