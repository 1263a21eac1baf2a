"""The whole method in one file: backbone -> label decoder -> intervention -> scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmlr_edge.errors import DataError
from train.config import ModelConfig
from train.network.attention import MultiHeadAttention
from train.network.backbones import Backbone, confounder_view_features, create_backbone
from train.network.baselines import CcdClassifier, FeatureSplitClassifier, PooledClassifier
from train.network.dropout import SampleDropout
from train.network.intervention import (
    AttentionLinks,
    BackDoorIntervention,
    ExpectationIntervention,
    ExplicitIntervention,
    GatedAttentionLinks,
    LabelReadout,
    LinearIntervention,
    MatrixLinks,
)
from train.network.uniting import draw_partners, unite_targets, unite_tokens

Links = MatrixLinks | AttentionLinks | GatedAttentionLinks
CausalBranch = ExpectationIntervention | ExplicitIntervention | LinearIntervention

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
            SampleDropout(config.dropout),
            nn.Linear(config.ffn_dim, width),
        )
        self.out_norm = nn.LayerNorm(width)
        self.dropout = SampleDropout(config.dropout)

    def forward(self, label_features: Tensor, tokens: Tensor) -> Tensor:
        """Map label features (1|B, L, d) and tokens (B, T, d) to label features (B, L, d)."""
        x = self.queries(label_features)
        x = self.cross_norm(x + self.dropout(self.cross_attention(x, tokens, tokens)))
        return self.out_norm(x + self.dropout(self.feed_forward(x)))

    def queries(self, label_features: Tensor) -> Tensor:
        """What looks at the image, (1|B, L, d): label features (1|B, L, d), once they saw each other."""
        x = label_features
        if self.self_attention is None:
            return x
        mixed: Tensor = self.self_norm(x + self.dropout(self.self_attention(x, x, x)))
        return mixed


class LabelDecoder(nn.Module):
    """One learned query per label gathers that label's feature from the image tokens."""

    def __init__(self, config: ModelConfig, num_labels: int, num_features: int) -> None:
        """Build queries, projection and layers."""
        super().__init__()
        self.token_norm = nn.LayerNorm(num_features)
        self.project = nn.Linear(num_features, config.embed_dim)
        self.label_queries = nn.Parameter(torch.randn(1, num_labels, config.embed_dim))
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        if not self.layers:
            self.pool_norm = nn.LayerNorm(config.embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to label features (B, L, d)."""
        x: Tensor = self.label_queries
        if not self.layers:
            return self.pool_norm(x + self.mean_memory(tokens))
        memory = self.memory(tokens)
        for layer in self.layers:
            x = layer(x, memory)
        return x

    def memory(self, tokens: Tensor) -> Tensor:
        """What the queries attend to, (B, T, d)."""
        return self.project(self.token_norm(tokens))

    def mean_memory(self, tokens: Tensor) -> Tensor:
        """Its mean over tokens, (B, 1, d): the mean of a linear map is the map of the mean."""
        return self.project(self.token_norm(tokens).mean(dim=1, keepdim=True))


class MlDecoder(LabelDecoder):
    """ML-Decoder, one query per label: the queries are random and stay so; tokens pass a ReLU."""

    def __init__(self, config: ModelConfig, num_labels: int, num_features: int) -> None:
        """Fix the queries."""
        super().__init__(config, num_labels, num_features)
        self.label_queries.requires_grad_(False)

    def memory(self, tokens: Tensor) -> Tensor:
        """What the queries attend to, (B, T, d)."""
        return self.project(tokens).relu()

    def mean_memory(self, tokens: Tensor) -> Tensor:
        """Its mean over tokens, (B, 1, d)."""
        return self.memory(tokens).mean(dim=1, keepdim=True)


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


class ClassMapReadout(nn.Module):
    """A detector's verdict on each label, where the tokens hold its class maps."""

    def __init__(self, num_labels: int) -> None:
        """Start with what the detector says."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_labels))
        self.bias = nn.Parameter(torch.zeros(num_labels))

    def forward(self, highest: Tensor) -> Tensor:
        """Map the highest class logits of the picture (B, L) to logits (B, L)."""
        return self.scale * highest + self.bias


@dataclass(frozen=True)
class ModelOutput:
    """Everything one forward pass computes; B images, L labels."""

    tokens: Tensor  # (B, T, D), standardised where the model asks for it
    label_features: Tensor | None  # (B, L, d), of heads that have one per label
    decoupled_logits: Tensor  # (B, L): each label from its own evidence
    causal_logits: Tensor | None  # (B, L): label links (back-door) or the causal branch


class CausalHead(nn.Module):
    """The method from image tokens to scores: label decoder, intervention, fusion."""

    token_mean: Tensor
    token_scale: Tensor

    def __init__(
        self,
        config: ModelConfig,
        num_labels: int,
        num_features: int,
        confounder_features: int | None = None,
    ) -> None:
        """Build the head; `intervention.set_confounders` must follow where there is one.

        Args:
            config: The network's settings.
            num_labels: L.
            num_features: D, of the tokens.
            confounder_features: Of the confounders, where they are of other tokens.
        """
        super().__init__()
        if config.class_maps and num_labels > num_features:
            raise DataError(
                f"class_maps: tokens of {num_features} channels hold no map of each of {num_labels} labels"
            )
        self.config, self.num_labels = config, num_labels
        self.partners: Tensor | None = None  # of the pictures of the last training batch, (B,)
        stored = config.standardize_tokens
        self.register_buffer("token_mean", torch.zeros(num_features), persistent=stored)
        self.register_buffer("token_scale", torch.ones(num_features), persistent=stored)
        self.decoder: LabelDecoder | None = None
        self.readout: LabelReadout | None = None
        self.classifier: PooledClassifier | CcdClassifier | FeatureSplitClassifier | None = None
        if config.head in {"decoder", "ml-decoder"}:
            kind = LabelDecoder if config.head == "decoder" else MlDecoder
            self.decoder = kind(config, num_labels, num_features)
            start = 0.0 if config.class_maps else _START_BIAS
            self.readout = LabelReadout(num_labels, config.embed_dim, start)
            if config.class_maps:  # only what is learned counts beside the detector's verdict
                nn.init.zeros_(self.readout.weight)
        elif config.head == "ccd":
            self.classifier = CcdClassifier(num_features, num_labels)
        elif config.head == "feature-split":
            self.classifier = FeatureSplitClassifier(num_features, num_labels, _START_BIAS)
        else:
            self.classifier = PooledClassifier(num_features, num_labels, _START_BIAS)
        self.pooled = PooledReadout(num_features, num_labels) if config.pooled_skip else None
        self.class_maps = ClassMapReadout(num_labels) if config.class_maps else None
        self.links = _build_links(config, num_labels)
        self.intervention = _build_intervention(
            config, num_labels, confounder_features or num_features
        )

    def standardize(self, tokens: Tensor) -> Tensor:
        """Give every channel of the backbone's tokens (B, T, D) mean 0 and deviation 1."""
        if not self.config.standardize_tokens:
            return tokens
        return (tokens - self.token_mean) * self.token_scale

    def head(self, backbone_tokens: Tensor) -> ModelOutput:
        """Run on the backbone's tokens (B, T, D)."""
        tokens = self.standardize(backbone_tokens)
        if self.training:
            share = self.config.united_share
            self.partners = draw_partners(len(tokens), share, tokens.device)
            if self.partners is not None:
                tokens = unite_tokens(tokens, self.partners)
        label_features, decoupled = self._decouple(tokens)
        if self.pooled is not None:
            decoupled = decoupled + self.pooled(tokens)
        if self.class_maps is not None:
            decoupled = decoupled + self.class_maps(self._highest_class_logits(tokens))
        causal = self.causal_logits(label_features, decoupled)
        return ModelOutput(tokens, label_features, decoupled, causal)

    def _highest_class_logits(self, tokens: Tensor) -> Tensor:
        """Of each label, (B, L), as the backbone gave them; they lead the tokens (B, T, D)."""
        number = self.num_labels
        highest = tokens[..., :number].amax(dim=1)
        return highest / self.token_scale[:number] + self.token_mean[:number]

    def causal_logits(self, label_features: Tensor | None, decoupled: Tensor) -> Tensor | None:
        """What the labels say about each other, (B, L), from features (B, L, d) and logits (B, L).

        None where the model has no causal branch.
        """
        if self.links is not None:
            return self.links(label_features, decoupled)
        if isinstance(self.intervention, CausalBranch):
            assert label_features is not None
            detach = self.config.detach_causal
            return self.intervention(label_features.detach() if detach else label_features)
        return None

    def shrink_links(self, amount: float) -> None:
        """Make the link matrix sparser after a training step; 0 leaves it as it is."""
        if amount > 0 and isinstance(self.links, MatrixLinks):
            self.links.shrink(amount)

    def _decouple(self, tokens: Tensor) -> tuple[Tensor | None, Tensor]:
        if self.classifier is not None:
            return None, self.classifier(tokens)
        assert self.decoder is not None
        assert self.readout is not None
        label_features = self.decoder(tokens)
        return label_features, self.readout(label_features)

    def wanted(self, targets: Tensor) -> Tensor:
        """What the last training batch's logits are held against, (B, L), from targets (B, L)."""
        return unite_targets(targets, self.partners)

    def training_logits(self, output: ModelOutput, context_logits: Tensor | None) -> list[Tensor]:
        """Logits that each get a loss against the targets.

        Args:
            output: Of `head`.
            context_logits: g of each image's own context (B, L), for the back-door intervention.

        Returns:
            One (B, L) tensor, or two where the branches are fused as probabilities.
        """
        if isinstance(self.intervention, BackDoorIntervention):
            if context_logits is None:
                raise ValueError("the back-door intervention trains on each image's own context")
            if self.partners is not None:  # shares of tokens, and g is linear in them
                context_logits = (context_logits + context_logits[self.partners]) / 2
            return [self._effect(output) + context_logits]
        if isinstance(self.classifier, CcdClassifier):
            return [output.decoupled_logits, self.classifier.context_logits(output.tokens)]
        if output.causal_logits is None or self._sums_logits:
            return [self._effect(output)]
        return [output.decoupled_logits, output.causal_logits]

    def scores(self, output: ModelOutput, inference_context: str | None = None) -> Tensor:
        """Fused probabilities (B, L).

        Args:
            output: Of `head`.
            inference_context: "prior", "own" or "decoder" instead of the configured one.
        """
        where = inference_context or self.config.inference_context
        if where == "decoder":
            return output.decoupled_logits.sigmoid()
        if isinstance(self.intervention, BackDoorIntervention):
            effect = self._effect(output)
            if where != "own":  # not chosen yet counts as averaged
                return self.intervention.average(effect)
            contexts = self.intervention.own_context(output.tokens)
            return (effect + self.intervention.context_logits(contexts)).sigmoid()
        if output.causal_logits is None or self._sums_logits:
            return self._effect(output).sigmoid()
        return (output.decoupled_logits.sigmoid() + output.causal_logits.sigmoid()) / 2

    @property
    def _sums_logits(self) -> bool:
        """Back-door links are a sum of logits by construction, whatever the confounders."""
        return self.config.fusion == "sum" or self.config.intervention == "back-door"

    def _effect(self, output: ModelOutput) -> Tensor:
        """f(X): what the image's labels say, without its context."""
        if output.causal_logits is None:
            return output.decoupled_logits
        return output.decoupled_logits + output.causal_logits


class CausalRecognizer(CausalHead):
    """The trainable network, backbone included. `scores` is what is deployed."""

    def __init__(self, config: ModelConfig, num_labels: int, *, pretrained: bool) -> None:
        """Build the network; `intervention.set_confounders` must follow where there is one.

        Args:
            config: The network's settings.
            num_labels: L.
            pretrained: Load ImageNet weights into the backbone.
        """
        backbone = create_backbone(
            config.backbone,
            config.size_hw,
            stages=config.token_stages,
            pretrained=pretrained,
            weights=config.weights,
        )
        features = confounder_view_features(config)
        super().__init__(config, num_labels, backbone.num_features, features)
        self.backbone: Backbone = backbone

    def forward(self, images: Tensor) -> ModelOutput:
        """Run the network on normalised images (B, 3, H, W)."""
        return self.head(self.backbone(images))


def _build_links(config: ModelConfig, num_labels: int) -> Links | None:
    if config.intervention != "back-door" or config.label_links == "none":
        return None
    own = config.include_self
    if config.label_links == "matrix":
        return MatrixLinks(num_labels, include_self=own)
    kind = AttentionLinks if config.label_links == "attention" else GatedAttentionLinks
    return kind(num_labels, config.embed_dim, config.num_heads, include_self=own)


def _build_intervention(
    config: ModelConfig, num_labels: int, features: int
) -> BackDoorIntervention | CausalBranch | None:
    confounders, width = config.confounders, config.embed_dim
    number, used = confounders.num_confounders, confounders.kind != "none"
    own = config.include_self
    if config.intervention == "back-door" and used:
        return BackDoorIntervention(num_labels, number, features, confounders.num_contexts)
    if config.intervention == "expectation":
        return ExpectationIntervention(
            num_labels,
            width,
            config.num_heads,
            number,
            features,
            include_self=own,
            use_confounders=used,
        )
    if config.intervention == "explicit":
        return ExplicitIntervention(
            num_labels, width, config.num_heads, number, features, include_self=own
        )
    if config.intervention == "linear":
        return LinearIntervention(
            num_labels, width, number, features, include_self=own, use_confounders=used
        )
    return None
