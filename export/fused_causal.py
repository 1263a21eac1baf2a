"""The causal branches of a deployed network, from label features or probabilities to logits.

Names as in `export/fused.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from export.attention import attention
from export.fused import Affine, Attention, Readout, constant


class ConfounderMix(nn.Module):
    """z = LayerNorm(x + e), e attended from constant confounders; nothing is left to project."""

    key: Tensor
    value: Tensor
    key_bias: Tensor

    def __init__(self, key: Tensor, value: Tensor, key_bias: Tensor, norm: nn.LayerNorm) -> None:
        """Keep key and value (1, K, d), scale included, and the log prior in key_bias (K,)."""
        super().__init__()
        for name, values in (("key", key), ("value", value), ("key_bias", key_bias)):
            self.register_buffer(name, constant(values))
        self.norm = norm

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to z (B, L, d)."""
        expected = attention(label_features, self.key, self.value, self.key_bias, 1, 1.0)
        return self.norm(label_features + expected)


class LabelAttention(nn.Module):
    """Constant label queries attend to one source per label, and are read out."""

    def __init__(self, attend: Attention, out_norm: nn.LayerNorm, readout: Readout) -> None:
        """Put the parts together."""
        super().__init__()
        self.attend, self.out_norm, self.readout = attend, out_norm, readout

    def forward(self, sources: Tensor) -> Tensor:
        """Map (B, L, d) to logits (B, L)."""
        logits: Tensor = self.readout(self.out_norm(self.attend(sources)))
        return logits


class LinearCauses(nn.Module):
    """A constant matrix over labels in the place of an attention."""

    matrix: Tensor

    def __init__(self, mix: nn.Module, hidden: Affine, matrix: Tensor, readout: Readout) -> None:
        """Keep the matrix (L, L)."""
        super().__init__()
        self.mix, self.hidden, self.readout = mix, hidden, readout
        self.register_buffer("matrix", constant(matrix))

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal logits (B, L)."""
        causes = self.hidden(self.mix(label_features)).relu()
        logits: Tensor = self.readout(self.matrix @ causes)
        return logits


class ExplicitSum(nn.Module):
    """One pass for each confounder, summed as probabilities."""

    centres: Tensor
    prior: Tensor

    def __init__(
        self,
        centres: Tensor,
        prior: Tensor,
        from_label: Affine,
        mixed: Affine,
        norm: nn.LayerNorm,
        to_labels: LabelAttention,
    ) -> None:
        """Keep projected centres (K, 1, d), the bias of `from_label` added, and the prior (K, 1)."""
        super().__init__()
        self.from_label, self.mixed, self.norm, self.to_labels = from_label, mixed, norm, to_labels
        self.register_buffer("centres", constant(centres))
        self.register_buffer("prior", constant(prior))

    def forward(self, label_features: Tensor) -> Tensor:
        """Map label features (B, L, d) to causal probabilities (B, L)."""
        images, labels, width = label_features.shape
        hidden = (self.from_label(label_features).unsqueeze(1) + self.centres).relu()
        z = self.norm(label_features.unsqueeze(1) + self.mixed(hidden))  # (B, K, L, d)
        logits = self.to_labels(z.reshape(-1, labels, width)).view(images, -1, labels)
        return (logits.sigmoid() * self.prior).sum(dim=1).clamp(1e-5, 1 - 1e-5)


class FromFeatures(nn.Module):
    """A causal branch that reads label features alone."""

    def __init__(self, *parts: nn.Module) -> None:
        """Run the parts one after the other."""
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, label_features: Tensor, logits: Tensor) -> Tensor:
        """Map label features (B, L, d) to what the branch says, (B, L)."""
        del logits
        causal: Tensor = self.parts(label_features)
        return causal


class FromScores(nn.Module):
    """A causal branch that reads the labels' probabilities alone."""

    def __init__(self, matrix: Affine) -> None:
        """Keep the links (L, L), from row to column."""
        super().__init__()
        self.matrix = matrix

    def forward(self, label_features: Tensor, logits: Tensor) -> Tensor:
        """Map logits (B, L) to link logits (B, L)."""
        del label_features
        links: Tensor = self.matrix(logits.sigmoid())
        return links
