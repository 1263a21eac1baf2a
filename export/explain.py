"""Outputs that say why: a label's logit as a sum, and where the decoder looked.

logit_j = own evidence_j + sum over i of links_ji + surroundings_j + bias_j. Where an attention or a
norm stands between, its weights and its scale are taken as they are for this image: then each label's
part is a linear share of what was said, and the shares add up. Everything here leads to outputs of its
own; `cmlr_edge.backends.onnx_outputs` drops it again where nobody asks.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from cmlr_edge.errors import EngineError
from cmlr_edge.model.explanation import OUTPUTS, ExplanationSpec, Surroundings
from export.deploy import FusedHead, FusedModel
from export.fold_causal import fold_own_context
from export.fused import (
    Attention,
    ClassMaps,
    Combine,
    CosineClassifier,
    Decoder,
    DecoderLayer,
    MeanClassifier,
    OwnContext,
    PriorAverage,
    Readout,
    constant,
)
from export.fused_causal import FromFeatures, FromScores, LabelAttention, LinearCauses
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead

_FAR = 80.0  # logits whose probability float32 can still tell from 0


class ScoreLinks(nn.Module):
    """What probabilities of other labels add, by label."""

    matrix: Tensor

    def __init__(self, weight: Tensor) -> None:
        """Keep a weight (L, L) from row to column."""
        super().__init__()
        self.register_buffer("matrix", constant(weight.T))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Map logits (B, L) to parts (B, L, L): what column i adds to row j."""
        del features
        return logits.sigmoid().unsqueeze(1) * self.matrix


class AttentionLinks(nn.Module):
    """What each label's feature adds through an attention, a norm and a read-out.

    u . LayerNorm(h) is (u' . h) / deviation(h) and a constant, u' the norm's weight times u less its
    mean; h is a sum over labels, weighted by the attention.
    """

    directions: Tensor
    through_bias: Tensor

    def __init__(self, before: nn.Module, trained: LabelAttention) -> None:
        """Look through the parts of a folded branch."""
        super().__init__()
        self.before, self.attend, self.norm = before, trained.attend, trained.out_norm
        rows = trained.readout.weight * trained.out_norm.weight
        rows = rows - rows.mean(dim=1, keepdim=True)
        out = trained.attend.out
        into = rows if out is None else rows @ out.weight.T
        heads = into.unflatten(-1, (trained.attend.num_heads, -1)).transpose(0, 1)
        self.register_buffer("directions", constant(heads))  # (H, L, d / H)
        bias = None if out is None else out.bias
        through = rows.new_zeros(len(rows)) if bias is None else rows @ bias
        self.register_buffer("through_bias", constant(through[:, None]))  # (L, 1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Map label features (B, L, d) to parts (B, L, L): what column i adds to row j."""
        del logits
        sources = self.before(features)
        weights = head_weights(self.attend, sources, None)  # (B, H, L, L)
        value = self.attend.value(sources).unflatten(-1, (self.attend.num_heads, -1))
        said = self.directions @ value.permute(0, 2, 3, 1)  # (B, H, L, L)
        mixed = self.attend(sources)
        variance = (mixed - mixed.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)
        # Weights sum to 1, so what the output's bias adds is each label's share of it.
        parts = (weights * said).sum(dim=1) + weights.mean(dim=1) * self.through_bias
        return parts / (variance + self.norm.eps).sqrt()


class FeatureLinks(nn.Module):
    """What each label's transformed feature adds through a matrix and a read-out."""

    def __init__(self, trained: LinearCauses) -> None:
        """Look through the parts of a folded branch."""
        super().__init__()
        self.trained = trained

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Map label features (B, L, d) to parts (B, L, L): what column i adds to row j."""
        del logits
        causes = self.trained.hidden(self.trained.mix(features)).relu()
        said = self.trained.readout.weight @ causes.transpose(1, 2)
        return said * self.trained.matrix


def head_weights(attend: Attention, sources: Tensor, queries: Tensor | None) -> Tensor:
    """Attention weights of a folded attention, (B, H, L, T)."""
    projected = attend.queries if attend.query is None else attend.query(queries)
    assert projected is not None
    q, k = (
        x.unflatten(-1, (attend.num_heads, -1)).transpose(1, 2)
        for x in (projected, attend.key(sources))
    )
    scores = attend.scale * (q @ k.transpose(-1, -2))
    return (scores if attend.mask is None else scores + attend.mask).softmax(dim=-1)


class Where(nn.Module):
    """The last layer's attention of every label over the image, mean of its heads."""

    def __init__(self, decoder: Decoder, map_hw: tuple[int, int]) -> None:
        """Look through a folded decoder with at least one layer."""
        super().__init__()
        self.decoder, self.map_hw = decoder, map_hw

    def forward(self, tokens: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to shares of attention (B, L, H', W')."""
        memory, x = self.decoder.memory(tokens), None
        layers = [layer for layer in self.decoder.layers if isinstance(layer, DecoderLayer)]
        *before, last = layers
        for layer in before:
            x = layer(x, memory)
        queries = last.queries(x)
        return head_weights(last.cross, memory, queries).mean(dim=1).unflatten(-1, self.map_hw)


class AveragingPart(nn.Module):
    """What averaging over the stored contexts adds to a logit."""

    def __init__(self, average: PriorAverage) -> None:
        """Look through the averaged read-out."""
        super().__init__()
        self.average = average

    def forward(self, tokens: Tensor, effect: Tensor) -> Tensor:
        """Map f, (B, L), to the averaged probability's logit less f."""
        del tokens
        # Both probabilities as sums of their own: 1 - p would lose what a score near 1 tells.
        at = (effect.unsqueeze(1) + self.average.stored).clamp(-_FAR, _FAR)
        said = (at.sigmoid() * self.average.prior).sum(dim=1)
        unsaid = ((-at).sigmoid() * self.average.prior).sum(dim=1)
        return said.log() - unsaid.log() - effect


class OwnPart(nn.Module):
    """What the image's own context adds to a logit."""

    def __init__(self, own: OwnContext) -> None:
        """Look through the context's read-out."""
        super().__init__()
        self.own = own

    def forward(self, tokens: Tensor, effect: Tensor) -> Tensor:
        """Map image tokens (B, T, D) to logits (B, L)."""
        del effect
        logits: Tensor = self.own(tokens)
        return logits


class Context(nn.Module):
    """What surroundings the picture has, and its scores by the other read-out."""

    def __init__(self, own: OwnContext, average: PriorAverage | None) -> None:
        """Take the other read-out: `average`, or where that is deployed, the own context."""
        super().__init__()
        self.own, self.average = own, average

    def forward(self, tokens: Tensor, effect: Tensor) -> tuple[Tensor, Tensor]:
        """Map image tokens (B, T, D) and f (B, L) to shares (B, K) and probabilities (B, L)."""
        if self.average is not None:
            return self.own.shares(tokens), self.average(effect)
        return self.own.shares(tokens), (effect + self.own(tokens)).sigmoid()


class ExplainedModel(nn.Module):
    """A deployed network with the outputs of an `ExplanationSpec` behind its scores."""

    own_bias: Tensor
    others: Tensor

    def __init__(
        self,
        model: FusedModel,
        own_bias: Tensor,
        *,
        links: nn.Module | None,
        surroundings: nn.Module | None,
        where: nn.Module | None,
        context: Context | None,
    ) -> None:
        """Put the parts beside the network that they look through.

        Args:
            model: It stays as it is.
            own_bias: (L,), of a label's own logit.
            links: Label features (B, L, d) and logits (B, L) to parts (B, L, L).
            surroundings: Tokens and f to logits (B, L).
            where: Tokens to maps (B, L, H', W').
            context: Tokens and f to context and scores.
        """
        super().__init__()
        self.model, self.links, self.surroundings = model, links, surroundings
        self.where, self.context = where, context
        self.register_buffer("own_bias", constant(own_bias))
        self.register_buffer("others", 1 - torch.eye(len(own_bias)))

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Map frames, uint8 (N, H, W, 3) RGB, to scores (N, L) and `ExplanationSpec.shapes`."""
        return self.with_tokens(frames)[:-1]

    def with_tokens(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Give the backbone's tokens, (N, T, D), behind the outputs."""
        head, seen = fused_head(self.model), self.model.tokens(frames)
        tokens, features, logits, causal = head.branches(seen)
        effect = logits if causal is None else logits + causal
        outputs = [head.combine(tokens, logits, causal), *self._sum(features, logits)]
        if self.surroundings is not None:
            outputs.append(self.surroundings(tokens, effect))
        if self.where is not None:
            outputs.append(self.where(tokens))
        if self.context is not None:
            outputs += self.context(tokens, effect)
        return *outputs, seen

    def _sum(self, features: Tensor, logits: Tensor) -> list[Tensor]:
        """Own evidence, and what other labels add; of a label that is its own cause, the former."""
        own = logits - self.own_bias
        if self.links is None:
            return [own]
        links = self.links(features, logits)
        others = links * self.others
        return [own + (links - others).sum(dim=-1), others]


class ExplainedWithTokens(nn.Module):
    """The same, showing its tokens, so that the exporter gives them a name."""

    def __init__(self, model: ExplainedModel) -> None:
        """Keep the network."""
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Map frames to the outputs and tokens (N, T, D)."""
        return self.model.with_tokens(frames)


_KINDS: dict[type, Surroundings] = {
    OwnPart: "own",
    AveragingPart: "averaged",
    type(None): "none",
}


@torch.no_grad()
def explain(
    model: CausalHead, fused: FusedModel, map_hw: tuple[int, int] | None
) -> tuple[ExplainedModel, ExplanationSpec]:
    """Let a deployed network say why.

    Args:
        model: Trained, what `fused` was made of.
        fused: By `export.fuse`.
        map_hw: Of the backbone's tokens; see `tokens_hw`.

    Returns:
        A network of more outputs, and what they mean.

    Raises:
        EngineError: Its scores are no sum of logits.
    """
    head = fused_head(fused)
    combine = head.combine
    assert isinstance(combine, Combine)
    links, links_bias = _links(model, head)
    own_bias, surroundings = _own_bias(head), _surroundings(combine)
    context, where = _context(model, combine), None
    if map_hw is not None and isinstance(head.decouple, Decoder):
        where = Where(head.decouple, map_hw)
    explained = ExplainedModel(
        fused, own_bias, links=links, surroundings=surroundings, where=where, context=context
    )
    bias = own_bias if links_bias is None else own_bias.double() + links_bias.double()
    spec = ExplanationSpec(
        outputs={},
        bias=tuple(bias.float().tolist()),
        links="none"
        if links is None
        else "scores"
        if isinstance(links, ScoreLinks)
        else "features",
        surroundings=_KINDS[type(surroundings)],
        map_hw=None if where is None else map_hw,
        num_confounders=0 if context is None else context.own.readout.weight.shape[0],
    )
    return explained.eval(), replace(spec, outputs={name: OUTPUTS[name] for name in spec.shapes})


def fused_head(model: FusedModel) -> FusedHead:
    """The head of a deployed network."""
    assert isinstance(model.head, FusedHead)
    return model.head


def _surroundings(combine: Combine) -> AveragingPart | OwnPart | None:
    if combine.own is not None:
        return OwnPart(combine.own)
    return None if combine.average is None else AveragingPart(combine.average)


def _own_bias(head: FusedHead) -> Tensor:
    bias = _label_bias(head)
    return bias + head.class_maps.bias if isinstance(head.class_maps, ClassMaps) else bias


def _label_bias(head: FusedHead) -> Tensor:
    if isinstance(head.readout, Readout):
        return head.readout.bias
    classifier = head.decouple
    if isinstance(classifier, MeanClassifier):
        bias = classifier.linear.bias
    else:
        assert isinstance(classifier, CosineClassifier)
        bias = classifier.rows.bias
    assert bias is not None
    return bias


def _links(model: CausalHead, head: FusedHead) -> tuple[nn.Module | None, Tensor | None]:
    """What tells the labels' parts, and the constant beside them, (L,)."""
    branch, config = head.causal, model.config
    if branch is None:
        return None, None
    if isinstance(branch, FromScores):
        return ScoreLinks(branch.matrix.weight), branch.matrix.bias
    *before, last = branch.parts if isinstance(branch, FromFeatures) else [None]
    if not head.combine.mean and isinstance(last, LinearCauses):
        return FeatureLinks(last), last.readout.bias
    if not head.combine.mean and isinstance(last, LabelAttention):
        constant_part = last.readout.bias + last.readout.weight @ last.out_norm.bias
        return AttentionLinks(nn.Sequential(*before), last), constant_part
    raise EngineError(
        f"intervention {config.intervention!r} with fusion {config.fusion!r} has no sum of logits to "
        "tell: its score is a mean of probabilities; export without --explain"
    )


def _context(model: CausalHead, combine: Combine) -> Context | None:
    intervention, config = model.intervention, model.config
    if (
        not isinstance(intervention, BackDoorIntervention)
        or config.confounders.other_view  # of tokens that an engine does not compute
        or config.inference_context == "decoder"
    ):
        return None
    precise = copy.deepcopy(intervention).double()
    if combine.own is None:
        return Context(fold_own_context(precise), None)
    stored = precise.context_logits(precise.stored_contexts)
    return Context(combine.own, PriorAverage(stored, precise.context_prior[:, None]))


@torch.no_grad()
def tokens_hw(fused: FusedModel, size_hw: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the tokens, which lie as the picture does; None where they do not."""
    height, width = size_hw
    tokens: int = fused.tokens(torch.zeros(1, height, width, 3, dtype=torch.uint8)).shape[1]
    rows = max(1, round((tokens * height / width) ** 0.5))
    return (rows, tokens // rows) if tokens % rows == 0 else None
