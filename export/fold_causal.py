"""The causal branches, folded: confounders and label queries are constants."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.fold_decoder import affine, fold_attention, fold_readout
from export.fused import Affine, Combine, OwnContext, PriorAverage, Readout
from export.fused_causal import (
    ConfounderMix,
    ExplicitSum,
    FromFeatures,
    FromScores,
    LabelAttention,
    LinearCauses,
)
from export.fusion_report import Ledger
from train.confounders.clustering import ASSIGNMENT_SHARPNESS
from train.network.intervention import (
    LINK_SCALE,
    AttentionLinks,
    BackDoorIntervention,
    ExpectationIntervention,
    ExplicitIntervention,
    GatedAttentionLinks,
    LinearIntervention,
    MatrixLinks,
)
from train.network.intervention import LabelAttention as TrainedLabelAttention
from train.network.model import CausalHead

_QUERIES = "label queries projected and scaled"


def fold_causal(head: CausalHead, ledger: Ledger) -> nn.Module | None:
    """What the labels say about each other: label features and logits to (B, L).

    Args:
        head: Trained, float64.
        ledger: Notes what was folded.
    """
    if isinstance(head.links, MatrixLinks):
        matrix = FromScores(Affine(head.links.matrix().T))
        what = ["links scaled, and masked on the diagonal"]
        ledger.add("links", what, before=[head.links], after=[matrix])
        return matrix
    if isinstance(head.links, GatedAttentionLinks):
        return _fold_gated(head.links, ledger)
    if isinstance(head.links, AttentionLinks):
        attend, what, saved = _fold_label_attention(head.links.to_labels)
        links = FromFeatures(copy.deepcopy(head.links.norm), attend)
        ledger.add("links", what, before=[head.links], after=[links], multiply_adds=saved)
        return links
    labels = 0 if head.readout is None else len(head.readout.bias)
    if isinstance(head.intervention, ExpectationIntervention):
        mix, what, saved = _fold_mix(head.intervention, labels)
        attend, more, further = _fold_label_attention(head.intervention.to_labels)
        branch: nn.Module = FromFeatures(mix, attend)
        what, saved = what + more, saved + further
    elif isinstance(head.intervention, LinearIntervention):
        branch, what, saved = _fold_linear(head.intervention)
    elif isinstance(head.intervention, ExplicitIntervention):
        branch, what, saved = _fold_explicit(head.intervention)
    else:
        return None
    before = [head.intervention]
    ledger.add("intervention", what, before=before, after=[branch], multiply_adds=saved)
    return branch


def fold_combine(head: CausalHead, ledger: Ledger) -> Combine:
    """The last step: both branches and the context to probabilities."""
    config, intervention = head.config, head.intervention
    explicit = isinstance(intervention, ExplicitIntervention)
    if isinstance(intervention, BackDoorIntervention):
        average = own = None
        if config.inference_context != "own":
            stored = intervention.context_logits(intervention.stored_contexts)
            average = PriorAverage(stored, intervention.context_prior[:, None])
            saved = intervention.stored_contexts.numel() * stored.shape[1]
            what = ["logits of the stored contexts; centres and context weights dropped"]
        else:
            own, saved = fold_own_context(intervention), 0
            what = [
                "centres normalised, sharpness in them; token lengths divided behind the product"
            ]
        combine = Combine(mean=False, average=average, own=own)
        after = [combine]
        ledger.add("combine", what, before=[intervention], after=after, multiply_adds=saved)
        return combine
    decoder_alone = config.inference_context == "decoder"
    mean = config.fusion == "mean" and config.intervention != "back-door" and not decoder_alone
    if explicit and mean:
        ledger.add("combine", ["logit and sigmoid of the explicit sum cancel"])
    return Combine(mean=mean, causal_is_probability=explicit)


def fold_own_context(intervention: BackDoorIntervention) -> OwnContext:
    """What an image's own context says, g, of an intervention in float64."""
    centres = ASSIGNMENT_SHARPNESS * F.normalize(intervention.centres, dim=-1)
    readout = Affine(intervention.context_weight, intervention.context_bias)
    return OwnContext(Affine(centres.T), readout, (intervention.centres != 0).any(dim=0))


def _fold_gated(links: GatedAttentionLinks, ledger: Ledger) -> FromScores:
    """Queries and keys are constants, so the weights are: what is left is a matrix over labels.

    link_j = w_j . (W_o concat_h sum_i A_hji p_i (W_v e_i)_h + W_o b_v + b_o), times the scale.
    """
    attention, (labels, width) = links.attention, links.embeddings.shape
    weights = attention.head_weights(links.queries, links.embeddings[None], links.mask)[
        0
    ]  # (H, L, L)
    heads = (attention.num_heads, -1)
    values = (links.embeddings @ attention.value.weight.T).unflatten(-1, heads)  # (L, H, d / H)
    readout = (links.weight @ attention.out.weight).unflatten(-1, heads)
    matrix = LINK_SCALE * torch.einsum("hji,ihw,jhw->ji", weights, values, readout)
    bias = attention.out.bias + attention.out.weight @ attention.value.bias
    folded = FromScores(Affine(matrix.T, LINK_SCALE * links.weight @ bias))
    saved = 4 * labels * width**2 + 2 * labels**2 * width - labels**2
    what = ["attention weights, values and read-out are one matrix over labels"]
    ledger.add("links", what, before=[links], after=[folded], multiply_adds=saved)
    return folded


def _fold_label_attention(
    trained: TrainedLabelAttention,
) -> tuple[LabelAttention, list[str], int]:
    attend = fold_attention(trained.attention, queries=trained.queries, mask=trained.mask)
    _, labels, width = trained.queries.shape
    what, saved = [_QUERIES], labels * width**2
    if attend.out is None:
        what += ["output projection in the value's"]
        saved *= 2
    if attend.mask is not None:
        what += ["plain operations: the operator has no bias for a pair of labels"]
    norm, readout = copy.deepcopy(trained.out_norm), fold_readout(trained.readout)
    return LabelAttention(attend, norm, readout), what, saved


def _fold_mix(
    trained: ExpectationIntervention | LinearIntervention, labels: int
) -> tuple[nn.Module, list[str], int]:
    """One head and constant sources: query and output projection join the constants."""
    norm = copy.deepcopy(trained.norm)
    if not trained.use_confounders:
        return norm, ["confounders dropped: not used"], 0
    attention, centres = trained.to_confounders, trained.projected()  # (1, K, d)
    keys = attention.scale * attention.key(centres)
    log_prior = trained.confounder_prior.clamp_min(1e-6).log()
    bias = log_prior + keys[0] @ attention.query.bias
    values = attention.out(attention.value(centres))
    (confounders, features), width = trained.centres.shape, keys.shape[2]
    what = ["confounders with query, key, value and output projection, log prior as key bias"]
    saved = confounders * features * width + 2 * (confounders + labels) * width**2
    return ConfounderMix(keys @ attention.query.weight, values, bias, norm), what, saved


def _fold_linear(trained: LinearIntervention) -> tuple[nn.Module, list[str], int]:
    """Matrix and last linear map both act before a read-out per label, which takes the map in."""
    enter, _, leave = trained.transform
    assert isinstance(enter, nn.Linear)
    assert isinstance(leave, nn.Linear)
    matrix = trained.strength * trained.others
    rows: Tensor = trained.readout.weight
    bias = trained.readout.bias + matrix.sum(dim=1) * (rows @ leave.bias)
    labels, width = rows.shape
    mix, what, saved = _fold_mix(trained, labels)
    causes = LinearCauses(mix, affine(enter), matrix, Readout(rows @ leave.weight, bias))
    what += ["second linear map in the read-out, links masked"]
    return FromFeatures(causes), what, saved + labels * width**2


def _fold_explicit(trained: ExplicitIntervention) -> tuple[nn.Module, list[str], int]:
    attend, what, saved = _fold_label_attention(trained.to_labels)
    centres = trained.projected()[0]  # (K, d)
    (confounders, features), (labels, width) = (
        trained.centres.shape,
        trained.to_labels.readout.weight.shape,
    )
    if attend.attend.out is None:  # the attention runs once for every confounder
        saved += (confounders - 1) * labels * width**2
    folded = ExplicitSum(
        (centres + trained.from_label.bias)[:, None],
        trained.confounder_prior[:, None],
        Affine(trained.from_label.weight.T),
        affine(trained.mixed),
        copy.deepcopy(trained.norm),
        attend,
    )
    what = ["confounders projected, a bias in them", *what]
    return FromFeatures(folded), what, saved + confounders * features * width
