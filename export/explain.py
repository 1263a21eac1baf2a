"""Outputs that say why: a label's logit as a sum, and where the decoder looked.

logit_j = own evidence_j + sum over i of links_ji + surroundings_j + bias_j. Where an attention or a
norm stands between, its weights and its scale are taken as they are for this image: then each label's
part is a linear share of what was said, and the shares add up. Everything here leads to outputs of its
own; `cmlr_edge.backends.onnx_outputs` drops it again where nobody asks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cmlr_edge.errors import EngineError
from cmlr_edge.model.explanation import (
    ATTENTION,
    CONTEXT,
    LINKS,
    OTHER_SCORES,
    OUTPUTS,
    OWN_EVIDENCE,
    SURROUNDINGS,
    ExplanationSpec,
    Surroundings,
    TrainedSurroundings,
)
from cmlr_edge.model.spec import PreprocessSpec
from export.deploy import DeployModel
from train.network.baselines import CcdClassifier, FeatureSplitClassifier
from train.network.intervention import (
    AttentionLinks,
    BackDoorIntervention,
    ExpectationIntervention,
    GatedAttentionLinks,
    LabelAttention,
    LinearIntervention,
    MatrixLinks,
)
from train.network.model import CausalHead, CausalRecognizer, DecoderLayer, ModelOutput

_FAR = 80.0  # logits whose probability float32 can still tell from 0


class ExplainedModel(DeployModel):
    """A deployed network with the outputs of an `ExplanationSpec` behind its scores."""

    def __init__(
        self, model: CausalRecognizer, spec: PreprocessSpec, meaning: ExplanationSpec
    ) -> None:
        """Wrap a trained network; `meaning` is that of `explanation_of`."""
        super().__init__(model, spec)
        self.meaning = meaning

    def outputs(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Map the backbone's tokens (N, T, D) to scores (N, L) and `ExplanationSpec.shapes`."""
        return tuple(explained(self.model, tokens, self.meaning).values())


def explanation_of(model: CausalHead, map_hw: tuple[int, int] | None) -> ExplanationSpec:
    """What a trained network can say of its scores.

    Args:
        model: In evaluation mode.
        map_hw: Of the backbone's tokens; see `tokens_hw`.

    Raises:
        EngineError: Its scores are no sum of logits.
    """
    alone, config = _decoder_alone(model), model.config
    bias, surroundings, confounders = _own_bias(model).double(), _surroundings(model), 0
    training = None
    if not alone and (through := _links_bias(model)) is not None:
        bias = bias + through.double()
    if surroundings != "none" and not config.confounders.other_view:
        assert isinstance(model.intervention, BackDoorIntervention)
        confounders = len(model.intervention.centres)
        training = _training(model.intervention)
    scores = isinstance(model.links, MatrixLinks | GatedAttentionLinks)
    has_links = not alone and (model.links is not None or _branch(model) is not None)
    looks = model.decoder is not None and len(model.decoder.layers) > 0
    meaning = ExplanationSpec(
        outputs={},
        bias=tuple(bias.float().tolist()),
        links="none" if not has_links else "scores" if scores else "features",
        surroundings=surroundings,
        map_hw=map_hw if looks else None,
        num_confounders=confounders,
        training=training,
    )
    return replace(meaning, outputs={name: OUTPUTS[name] for name in meaning.shapes})


@torch.no_grad()
def tokens_hw(model: CausalRecognizer, size_hw: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of the tokens, which lie as the picture does; None where they do not."""
    height, width = size_hw
    tokens: int = model.backbone(torch.zeros(1, 3, height, width)).shape[1]
    rows = max(1, round((tokens * height / width) ** 0.5))
    return (rows, tokens // rows) if tokens % rows == 0 else None


def explained(
    model: CausalHead, backbone_tokens: Tensor, meaning: ExplanationSpec
) -> dict[str, Tensor]:
    """Scores (B, L) and what explains them, of the backbone's tokens (B, T, D), by output name."""
    output = model.head(backbone_tokens)
    logits, causal = output.decoupled_logits, output.causal_logits
    own = logits - _own_bias(model)
    found = {"scores": model.scores(output), OWN_EVIDENCE: own}
    if meaning.links != "none":
        links, same = _links(model, output), torch.eye(model.num_labels)
        # Of a label that is its own cause, that part is its own evidence.
        found[OWN_EVIDENCE], found[LINKS] = own + (links * same).sum(dim=-1), links * (1 - same)
    effect = logits if causal is None else logits + causal
    intervention = model.intervention
    if isinstance(intervention, BackDoorIntervention) and meaning.surroundings != "none":
        own_context = meaning.surroundings == "own" or meaning.num_confounders > 0
        shares = intervention.own_context(output.tokens) if own_context else None
        said = None if shares is None else intervention.context_logits(shares)
        averaged = meaning.surroundings == "averaged"
        if averaged or said is None:
            found[SURROUNDINGS] = _averaging(intervention, effect)
        else:  # the same scores, without the own context looked up a second time: no runtime sees that
            found[SURROUNDINGS], found["scores"] = said, (effect + said).sigmoid()
        if meaning.num_confounders and shares is not None and said is not None:
            other = (effect + said).sigmoid() if averaged else intervention.average(effect)
            found |= {CONTEXT: shares, OTHER_SCORES: other}
    if meaning.map_hw is not None:
        found[ATTENTION] = _looked_at(model, output.tokens).unflatten(-1, meaning.map_hw)
    return {name: found[name] for name in ("scores", *meaning.shapes)}


def _training(intervention: BackDoorIntervention) -> TrainedSurroundings | None:
    """What training saw; None of weights that do not tell how far its pictures were spread."""
    if not intervention.context_spread.isfinite().all():
        return None

    def numbers(values: Tensor) -> tuple[Any, ...]:
        # Six digits are more than float32 has left of them after training.
        rows = [float(f"{value:.6g}") for value in values.flatten().tolist()]
        if values.dim() == 1:
            return tuple(rows)
        width = values.shape[1]
        return tuple(tuple(rows[i : i + width]) for i in range(0, len(rows), width))

    return TrainedSurroundings(
        contexts=numbers(intervention.stored_contexts),
        prior=numbers(intervention.context_prior),
        spread=numbers(intervention.context_spread),
        weight=numbers(intervention.context_weight),
        bias=numbers(intervention.context_bias),
    )


def _decoder_alone(model: CausalHead) -> bool:
    return model.config.inference_context == "decoder"


def _surroundings(model: CausalHead) -> Surroundings:
    if _decoder_alone(model) or not isinstance(model.intervention, BackDoorIntervention):
        return "none"
    return "own" if model.config.inference_context == "own" else "averaged"


def _own_bias(model: CausalHead) -> Tensor:
    bias = _label_bias(model)
    return bias if model.class_maps is None else bias + model.class_maps.bias


def _label_bias(model: CausalHead) -> Tensor:
    if model.readout is not None:
        return model.readout.bias
    classifier = model.classifier
    assert classifier is not None
    if isinstance(classifier, CcdClassifier):
        return classifier.bias
    linear = classifier.own if isinstance(classifier, FeatureSplitClassifier) else classifier.linear
    return linear.bias


def _branch(model: CausalHead) -> ExpectationIntervention | LinearIntervention | None:
    """The causal branch, where its logits are added."""
    config, branch = model.config, model.intervention
    if branch is None or isinstance(branch, BackDoorIntervention):
        return None
    if config.fusion == "sum" and isinstance(branch, ExpectationIntervention | LinearIntervention):
        return branch
    raise EngineError(
        f"intervention {config.intervention!r} with fusion {config.fusion!r} has no sum of logits to "
        "tell: its score is a mean of probabilities; export without --explain"
    )


def _links_bias(model: CausalHead) -> Tensor | None:
    """The constant beside the labels' parts, (L,)."""
    links, branch = model.links, _branch(model)
    if isinstance(links, GatedAttentionLinks):
        return links.shift()
    if isinstance(branch, LinearIntervention):
        return branch.bias()
    through = links.to_labels if isinstance(links, AttentionLinks) else None
    if isinstance(branch, ExpectationIntervention):
        through = branch.to_labels
    if through is None:
        return None
    return through.readout.bias + through.readout.weight @ through.out_norm.bias


def _links(model: CausalHead, output: ModelOutput) -> Tensor:
    """Parts (B, L, L): what the label of the column adds to the label of the row."""
    links, branch, features = model.links, _branch(model), output.label_features
    if isinstance(links, MatrixLinks | GatedAttentionLinks):
        return output.decoupled_logits.sigmoid().unsqueeze(1) * links.matrix()
    assert features is not None
    if isinstance(links, AttentionLinks):
        return _through_attention(links.to_labels, links.norm(features))
    if isinstance(branch, ExpectationIntervention):
        return _through_attention(branch.to_labels, branch.mix(features))
    assert isinstance(branch, LinearIntervention)
    return (branch.rows() @ branch.hidden(features).transpose(1, 2)) * branch.matrix()


def _through_attention(trained: LabelAttention, sources: Tensor) -> Tensor:
    """What each label's feature (B, L, d) adds through an attention, a norm and a read-out.

    u . LayerNorm(h) is (u' . h) / deviation(h) and a constant, u' the norm's weight times u less its
    mean; h is a sum over labels, weighted by the attention.
    """
    attention, norm, heads = trained.attention, trained.out_norm, (trained.attention.num_heads, -1)
    rows = trained.readout.weight * norm.weight
    rows = rows - rows.mean(dim=1, keepdim=True)
    directions = (rows @ attention.out.weight).unflatten(-1, heads).transpose(0, 1)  # (H, L, d / H)
    weights = attention.head_weights(trained.queries, sources, trained.mask)  # (B, H, L, L)
    value = attention.value(sources).unflatten(-1, heads)
    said = directions @ value.permute(0, 2, 3, 1)  # (B, H, L, L)
    mixed = attention(trained.queries, sources, sources, bias=trained.mask)
    variance = (mixed - mixed.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)
    # Weights sum to 1, so what the output's bias adds is each label's share of it.
    through_bias = (rows * attention.out.bias).sum(dim=1, keepdim=True)
    parts = (weights * said).sum(dim=1) + weights.mean(dim=1) * through_bias
    return parts / (variance + norm.eps).sqrt()


def _looked_at(model: CausalHead, tokens: Tensor) -> Tensor:
    """The last layer's attention of every label over the tokens, (B, L, T), mean of its heads."""
    decoder = model.decoder
    assert decoder is not None
    memory, x = decoder.memory(tokens), decoder.label_queries
    *before, last = [layer for layer in decoder.layers if isinstance(layer, DecoderLayer)]
    for layer in before:
        x = layer(x, memory)
    return last.cross_attention.weights(last.queries(x), memory)


def _averaging(intervention: BackDoorIntervention, effect: Tensor) -> Tensor:
    """What averaging over the stored contexts adds to f, (B, L)."""
    stored = intervention.context_logits(intervention.stored_contexts)
    prior = intervention.context_prior[:, None]
    # Both probabilities as sums of their own: 1 - p would lose what a score near 1 tells. Written out:
    # ONNX Runtime's sigmoid is that of 18 wherever it is asked for more.
    at = (effect.unsqueeze(1) + stored).clamp(-_FAR, _FAR)
    said, unsaid = ((prior / (1 + (-sign * at).exp())).sum(dim=1) for sign in (1, -1))
    return said.log() - unsaid.log() - effect
