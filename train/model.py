"""The whole method in one file: backbone -> label decoder -> intervention -> scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.attention import MultiHeadAttention
from train.backbones import Backbone, create_backbone
from train.config import ModelConfig
from train.intervention import (
    AttentionLinks,
    BackDoorIntervention,
    ExpectationIntervention,
    LabelReadout,
    MatrixLinks,
)

_START_BIAS = -3.0  # labels are rare: start near their usual frequency


class DecoderLayer(nn.Module):
    """Post-norm Transformer decoder layer: optional self-attention, cross-attention, feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        """Build one layer."""
        super().__init__()
        width = config.embed_dim
        self.self_attention: MultiHeadAttention | None = None
        if config.self_attention:
            self.self_attention = MultiHeadAttention(width, config.num_heads)
            self.self_norm = nn.LayerNorm(width)
        self.cross_attention = MultiHeadAttention(width, config.num_heads)
        self.cross_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.ffn_dim),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.ffn_dim, width),
        )
        self.out_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, label_features: Tensor, tokens: Tensor) -> Tensor:
        """Map label features (1|B, L, d) and tokens (B, T, d) to label features (B, L, d)."""
        x = label_features
        if self.self_attention is not None:
            x = self.self_norm(x + self.dropout(self.self_attention(x, x, x)))
        x = self.cross_norm(x + self.dropout(self.cross_attention(x, tokens, tokens)))
        return self.out_norm(x + self.dropout(self.feed_forward(x)))


class LabelDecoder(nn.Module):
    """One learned query per label gathers that label's feature from the image tokens."""

    def __init__(self, config: ModelConfig, num_labels: int, num_features: int) -> None:
        """Build queries, projection and layers."""
        super().__init__()
        self.token_norm = nn.LayerNorm(num_features)
        self.project = nn.Linear(num_features, config.embed_dim)
        self.label_queries = nn.Parameter(torch.randn(1, num_labels, config.embed_dim))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to label features (B, L, d)."""
        memory = self.project(self.token_norm(tokens))
        x: Tensor = self.label_queries
        for layer in self.layers:
            x = layer(x, memory)
        return x


class PooledReadout(nn.Module):
    """A linear classifier on mean- and max-pooled tokens, beside the decoder."""

    def __init__(self, num_features: int, num_labels: int) -> None:
        """Start at zero, so that it adds only what it learns."""
        super().__init__()
        self.linear = nn.Linear(2 * num_features, num_labels, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        pooled = [F.layer_norm(x, x.shape[-1:]) for x in (tokens.mean(1), tokens.amax(1))]
        logits: Tensor = self.linear(torch.cat(pooled, dim=1))
        return logits


@dataclass(frozen=True)
class ModelOutput:
    """Everything one forward pass computes; B images, L labels."""

    tokens: Tensor  # (B, T, D)
    label_features: Tensor  # (B, L, d)
    decoupled_logits: Tensor  # (B, L): each label from its own evidence
    causal_logits: Tensor | None  # (B, L): label links (back-door) or the causal branch


class CausalRecognizer(nn.Module):
    """The trainable network. `scores` is what is deployed."""

    def __init__(self, config: ModelConfig, num_labels: int, *, pretrained: bool) -> None:
        """Build the network; `intervention.set_confounders` must follow where there is one.

        Args:
            config: The network's settings.
            num_labels: L.
            pretrained: Load ImageNet weights into the backbone.
        """
        super().__init__()
        self.config = config
        self.backbone: Backbone = create_backbone(
            config.backbone, config.image_size, pretrained=pretrained
        )
        features, width = self.backbone.num_features, config.embed_dim
        self.decoder = LabelDecoder(config, num_labels, features)
        self.readout = LabelReadout(num_labels, width, _START_BIAS)
        self.pooled = PooledReadout(features, num_labels) if config.pooled_skip else None
        self.links: MatrixLinks | AttentionLinks | None = None
        self.intervention: BackDoorIntervention | ExpectationIntervention | None = None
        k = config.confounders
        if config.intervention == "back-door":
            self.intervention = BackDoorIntervention(
                num_labels, k.num_confounders, features, k.num_contexts
            )
            if config.label_links == "matrix":
                self.links = MatrixLinks(num_labels)
            elif config.label_links == "attention":
                self.links = AttentionLinks(num_labels, width, config.num_heads)
        elif config.intervention == "expectation":
            self.intervention = ExpectationIntervention(
                num_labels, width, config.num_heads, k.num_confounders, features
            )

    def forward(self, images: Tensor) -> ModelOutput:
        """Run the network on normalised images (B, 3, H, W)."""
        return self.head(self.backbone(images))

    def head(self, tokens: Tensor) -> ModelOutput:
        """Run all but the backbone on its tokens (B, T, D)."""
        label_features = self.decoder(tokens)
        decoupled = self.readout(label_features)
        if self.pooled is not None:
            decoupled = decoupled + self.pooled(tokens)
        causal: Tensor | None = None
        if isinstance(self.intervention, ExpectationIntervention):
            causal = self.intervention(label_features)
        elif self.links is not None:
            causal = self.links(label_features, decoupled)
        return ModelOutput(tokens, label_features, decoupled, causal)

    def training_logits(self, output: ModelOutput, context_logits: Tensor | None) -> list[Tensor]:
        """Logits that each get a loss against the targets.

        Args:
            output: Of `forward`.
            context_logits: g of each image's own context (B, L), for the back-door intervention.

        Returns:
            One (B, L) tensor, or two where the branches are fused as probabilities.
        """
        if isinstance(self.intervention, BackDoorIntervention):
            if context_logits is None:
                raise ValueError("the back-door intervention trains on each image's own context")
            return [self._effect(output) + context_logits]
        if output.causal_logits is not None:
            return [output.decoupled_logits, output.causal_logits]
        return [output.decoupled_logits]

    def scores(self, output: ModelOutput, inference_context: str | None = None) -> Tensor:
        """Fused probabilities (B, L).

        Args:
            output: Of `forward`.
            inference_context: "prior" or "own" instead of the configured one.
        """
        where = inference_context or self.config.inference_context
        if isinstance(self.intervention, BackDoorIntervention):
            effect = self._effect(output)
            if where == "prior":
                return self.intervention.average(effect)
            contexts = self.intervention.own_context(output.tokens)
            return (effect + self.intervention.context_logits(contexts)).sigmoid()
        if output.causal_logits is not None:
            return (output.decoupled_logits.sigmoid() + output.causal_logits.sigmoid()) / 2
        return output.decoupled_logits.sigmoid()

    def _effect(self, output: ModelOutput) -> Tensor:
        """f(X): what the image's labels say, without its context."""
        if output.causal_logits is None:
            return output.decoupled_logits
        return output.decoupled_logits + output.causal_logits
