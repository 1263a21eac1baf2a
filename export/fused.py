"""The modules that a deployed network is made of: no training branch, no weight left to project.

They know nothing of the training code; `export/fuse.py` computes their constants. Names: B images,
L labels, T tokens of width D, K confounders, C stored contexts, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.attention import attention


def constant(values: Tensor) -> Tensor:
    """A float32 copy of its own, row-major."""
    return values.detach().float().contiguous().clone()


class Affine(nn.Module):
    """x @ weight + bias; the weight is stored (in, out), so that the graph needs no transpose."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Keep weight (in, out) and bias (out,)."""
        super().__init__()
        self.register_buffer("weight", constant(weight))
        self.register_buffer("bias", None if bias is None else constant(bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return x @ self.weight if self.bias is None else x @ self.weight + self.bias


class Readout(nn.Module):
    """One weight row and one bias per label."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """Keep weight (L, d) and bias (L,)."""
        super().__init__()
        self.register_buffer("weight", constant(weight))
        self.register_buffer("bias", constant(bias))

    def forward(self, label_features: Tensor) -> Tensor:
        """Map (B, L, d) to logits (B, L)."""
        # With the dimension kept: OpenVINO 2026.4 rounds a sum that it fuses with the addition
        # behind it to bfloat16, on a processor that has it, as soon as there are two images.
        return (label_features * self.weight).sum(dim=-1, keepdim=True).squeeze(-1) + self.bias


class Standardize(nn.Module):
    """Give every channel of the tokens mean 0 and deviation 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        """Keep mean and 1 / deviation (D,)."""
        super().__init__()
        self.register_buffer("mean", constant(mean))
        self.register_buffer("scale", constant(scale))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        return (tokens - self.mean) * self.scale


class Attention(nn.Module):
    """The projections that are left around one attention."""

    queries: Tensor | None
    mask: Tensor | None

    def __init__(
        self,
        num_heads: int,
        query: Affine | Tensor,
        key: Affine,
        value: Affine,
        *,
        out: Affine | None,
        scale: float = 1.0,
        mask: Tensor | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            num_heads: Divides d.
            query: Of queries that are computed; or (1, L, d) constants, projected and scaled.
            key: Of the sources.
            value: Of the sources.
            out: Behind the attention; None where it is folded into `value`.
            scale: Of the scores.
            mask: (L, T), added to the scores. The operator has no such input (its bias is one
                number per key), so a masked attention stays plain operations.
        """
        super().__init__()
        self.num_heads, self.scale = num_heads, scale
        constants = constant(query) if isinstance(query, Tensor) else None
        self.register_buffer("queries", constants)
        self.query = None if isinstance(query, Tensor) else query
        self.key, self.value, self.out = key, value, out
        self.register_buffer("mask", None if mask is None else constant(mask))

    def forward(self, sources: Tensor, queries: Tensor | None = None) -> Tensor:
        """Attend from `queries` (B, L, d), or the constant ones, to sources (B, T, d)."""
        projected = self.queries if self.query is None else self.query(queries)
        assert projected is not None
        key, value = self.key(sources), self.value(sources)
        if self.mask is None:
            mixed = attention(projected, key, value, None, self.num_heads, self.scale)
        else:
            mixed = self._masked(projected, key, value, self.mask)
        return mixed if self.out is None else self.out(mixed)

    def _masked(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        weights = (self.scale * (q @ k.transpose(-1, -2)) + mask).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    """Post-norm decoder layer; the first one starts from constants."""

    start: Tensor | None

    def __init__(
        self,
        cross: Attention,
        cross_norm: nn.LayerNorm,
        feed_forward: nn.Sequential,
        out_norm: nn.LayerNorm,
        *,
        start: Tensor | None = None,
        own: Attention | None = None,
        own_norm: nn.LayerNorm | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            cross: Attention to the image.
            cross_norm: Behind it.
            feed_forward: Two affine maps and what is between.
            out_norm: Behind it.
            start: (1, L, d), what the first layer adds its cross-attention to.
            own: Self-attention of a later layer.
            own_norm: Behind it.
        """
        super().__init__()
        self.cross, self.cross_norm = cross, cross_norm
        self.feed_forward, self.out_norm = feed_forward, out_norm
        self.own, self.own_norm = own, own_norm
        self.register_buffer("start", None if start is None else constant(start))

    def forward(self, x: Tensor | None, memory: Tensor) -> Tensor:
        """Map label features (B, L, d), None for the first layer, and memory (B, T, d)."""
        x = self.queries(x)
        x = self.cross_norm(x + self.cross(memory, x))
        features: Tensor = self.out_norm(x + self.feed_forward(x))
        return features

    def queries(self, x: Tensor | None) -> Tensor:
        """What looks at the image, and what is added to what it sees, (B, L, d)."""
        if self.start is not None:
            return self.start
        assert x is not None
        if self.own is None or self.own_norm is None:
            return x
        mixed: Tensor = self.own_norm(x + self.own(x, x))
        return mixed


class Decoder(nn.Module):
    """Image tokens (B, T, D) to label features (B, L, d)."""

    def __init__(self, memory: nn.Module, layers: list[DecoderLayer]) -> None:
        """Put the parts together."""
        super().__init__()
        self.memory, self.layers = memory, nn.ModuleList(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens to label features."""
        memory, x = self.memory(tokens), None
        for layer in self.layers:
            x = layer(x, memory)
        assert x is not None
        return x


class PooledDecoder(nn.Module):
    """A decoder without layers: the mean token beside constants, one for each label."""

    start: Tensor

    def __init__(
        self, memory: nn.Module, project: Affine | None, start: Tensor, out_norm: nn.LayerNorm
    ) -> None:
        """Put the parts together.

        Args:
            memory: Maps each token.
            project: Maps their mean.
            start: (1, L, d), added to it.
            out_norm: Behind the sum.
        """
        super().__init__()
        self.memory, self.project, self.out_norm = memory, project, out_norm
        self.register_buffer("start", constant(start))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to label features (B, L, d)."""
        mean = self.memory(tokens).mean(dim=1, keepdim=True)
        features: Tensor = self.out_norm(
            self.start + (mean if self.project is None else self.project(mean))
        )
        return features


class CosineClassifier(nn.Module):
    """Pooled tokens less their context, by cosine in parts."""

    memory: Tensor

    def __init__(
        self, context: Affine, memory: Tensor, gate: Affine, rows: Affine, parts: int
    ) -> None:
        """Keep the memory (L, D) and rows (D, L), normalised and scaled."""
        super().__init__()
        self.context, self.gate, self.rows, self.parts = context, gate, rows, parts
        self.register_buffer("memory", constant(memory))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        context = self.context(tokens.mean(dim=1)).softmax(dim=-1) @ self.memory
        strongest = tokens.amax(dim=1)
        debiased = strongest - self.gate(strongest).tanh() * context
        parts = F.normalize(debiased.unflatten(-1, (self.parts, -1)), dim=-1)
        logits: Tensor = self.rows(parts.flatten(1))
        return logits


class MeanClassifier(nn.Module):
    """Mean tokens and a linear classifier."""

    def __init__(self, linear: Affine) -> None:
        """Keep the classifier."""
        super().__init__()
        self.linear = linear

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        logits: Tensor = self.linear(tokens.mean(dim=1))
        return logits


class PooledReadout(nn.Module):
    """A linear classifier on normalised mean- and max-pooled tokens."""

    def __init__(self, linear: Affine) -> None:
        """Keep the classifier."""
        super().__init__()
        self.linear = linear

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        pooled = [F.layer_norm(x, x.shape[-1:]) for x in (tokens.mean(1), tokens.amax(1))]
        logits: Tensor = self.linear(torch.cat(pooled, dim=1))
        return logits


class ClassMaps(nn.Module):
    """A detector's verdict: the highest class logit of each label, scaled."""

    scale: Tensor
    bias: Tensor

    def __init__(self, scale: Tensor, bias: Tensor) -> None:
        """Keep scale and bias (L,)."""
        super().__init__()
        self.register_buffer("scale", constant(scale))
        self.register_buffer("bias", constant(bias))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D), class logits first, to logits (B, L)."""
        return tokens[..., : len(self.scale)].amax(dim=1) * self.scale + self.bias


class OwnContext(nn.Module):
    """g at the image's own context: soft shares of its tokens, read out linearly."""

    seen: Tensor | None

    def __init__(self, centres: Affine, readout: Affine, seen: Tensor) -> None:
        """Keep the centres (D, K), normalised and sharpened, and which channels (D,) they look at."""
        super().__init__()
        self.centres, self.readout = centres, readout
        # Where they look at every channel, there is nothing to leave out.
        self.register_buffer("seen", None if bool(seen.all()) else constant(seen.float()))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        logits: Tensor = self.readout(self.shares(tokens))
        return logits

    def shares(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to their share in every confounder, (B, K)."""
        # Divided behind the product: K numbers a token instead of D.
        looked_at = tokens if self.seen is None else tokens * self.seen
        lengths = looked_at.square().sum(dim=-1, keepdim=True).sqrt().clamp_min(1e-12)
        shares: Tensor = (self.centres(tokens) / lengths).softmax(dim=-1).mean(dim=1)
        return shares


class PriorAverage(nn.Module):
    """sum_c P(c) sigmoid(logits + g(c)) over constant g."""

    stored: Tensor
    prior: Tensor

    def __init__(self, stored: Tensor, prior: Tensor) -> None:
        """Keep g of the stored contexts (C, L), and their prior (C, 1)."""
        super().__init__()
        self.register_buffer("stored", constant(stored))
        self.register_buffer("prior", constant(prior))

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, L) to probabilities (B, L)."""
        return ((logits.unsqueeze(1) + self.stored).sigmoid() * self.prior).sum(dim=1)


class Combine(nn.Module):
    """Both branches and the context to probabilities."""

    def __init__(
        self,
        *,
        mean: bool,
        causal_is_probability: bool = False,
        average: PriorAverage | None = None,
        own: OwnContext | None = None,
    ) -> None:
        """Choose the rule.

        Args:
            mean: Of the branches' probabilities; else the sum of their logits.
            causal_is_probability: The causal branch gives probabilities, not logits.
            average: Back-door adjustment over the stored contexts.
            own: Context of the image itself, added to the logits.
        """
        super().__init__()
        self.mean, self.causal_is_probability = mean, causal_is_probability
        self.average, self.own = average, own

    def forward(self, tokens: Tensor, logits: Tensor, causal: Tensor | None) -> Tensor:
        """Map tokens (B, T, D), logits (B, L) and the causal branch (B, L) to (B, L)."""
        if causal is not None and self.mean:
            other = causal if self.causal_is_probability else causal.sigmoid()
            return (logits.sigmoid() + other) / 2
        if causal is not None:
            logits = logits + (causal.logit() if self.causal_is_probability else causal)
        if self.own is not None:
            logits = logits + self.own(tokens)
        if self.average is not None:
            scores: Tensor = self.average(logits)
            return scores
        return logits.sigmoid()
