"""What is done to a batch of tokens before a step: photos united, labels erased, surroundings added."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from train.network.model import CausalHead, DecoderLayer


@dataclass(frozen=True)
class Batch:
    """Tokens and what is wanted of them."""

    tokens: Tensor  # (B, T, D)
    targets: Tensor  # (B, L)
    weight: Tensor  # (B, L), of the loss of each decision
    context: Tensor | None = None  # (B, L), logits of a bias-only model


def unite(batch: Batch, other: Batch) -> Batch:
    """Join the tokens of two photos; what is on either is on both together."""
    context = batch.context
    if context is not None and other.context is not None:
        context = (context + other.context) / 2
    return Batch(
        torch.cat([batch.tokens, other.tokens], dim=1),
        torch.maximum(batch.targets, other.targets),
        torch.maximum(batch.weight, other.weight),
        context,
    )


def unite_halves(batch: Batch, other: Batch, generator: torch.Generator) -> Batch:
    """The same with a random half of the tokens of each, so that a photo keeps its size."""

    def half(part: Batch) -> Batch:
        number = part.tokens.shape[1]
        kept = torch.randperm(number, generator=generator)[: number // 2]
        return replace(part, tokens=part.tokens[:, kept])

    return unite(half(batch), half(other))


@torch.no_grad()
def attention(head: CausalHead, tokens: Tensor) -> Tensor:
    """Where every label looks, (B, L, T); rows sum to 1; of the first layer."""
    assert head.decoder is not None
    memory = head.decoder.memory(head.standardize(tokens))
    layer = head.decoder.layers[0]
    assert isinstance(layer, DecoderLayer)
    weights: Tensor = layer.cross_attention.weights(head.decoder.label_queries, memory)
    return weights


def erase_label(batch: Batch, looks: Tensor, share: float, generator: torch.Generator) -> Batch:
    """Take one present label out of every photo, and leave that label out of its loss.

    Its tokens are replaced by others of the same photo: those that it looks at and that no other
    present label looks at more.

    Args:
        batch: Photos with one label or none stay as they are.
        looks: (B, L, T), attention.
        share: Of the tokens, at most this share is replaced.
        generator: Of the draws.
    """
    draws = torch.rand(batch.targets.shape, generator=generator) * batch.targets
    label = draws.argmax(dim=1)  # (B,)
    rows = torch.arange(len(label))
    relative = looks / looks.amax(dim=2, keepdim=True)
    present = (batch.targets > 0).clone()
    present[rows, label] = False
    others = (relative * present[..., None]).amax(dim=1)  # (B, T)
    lead = relative[rows, label] - others
    number = lead.shape[1]
    taken = lead.argsort(dim=1, descending=True)
    count = round(share * number)
    sources = taken[:, count:]
    picks = torch.randint(number - count, (len(label), count), generator=generator)
    index = torch.arange(number).repeat(len(label), 1)
    index.scatter_(1, taken[:, :count], sources.gather(1, picks))
    tokens = batch.tokens.gather(1, index[..., None].expand_as(batch.tokens))
    several = batch.targets.sum(dim=1) > 1
    weight = batch.weight.clone()
    weight[rows[several], label[several]] = 0
    tokens = torch.where(several[:, None, None], tokens, batch.tokens)
    return replace(batch, tokens=tokens, weight=weight)


def add_surroundings(batch: Batch, other: Batch, looks: Tensor, share: float) -> Batch:
    """Put the surroundings of another photo beside a photo: do(context) among tokens.

    Args:
        batch: Keeps its targets.
        other: Those of its tokens are added that its present labels look at least; its labels
            that `batch` has not are left out of the loss.
        looks: (B, L, T), attention in `other`.
        share: Of its tokens that are added.
    """
    relative = looks / looks.amax(dim=2, keepdim=True)
    seen = (relative * other.targets[..., None]).amax(dim=1)
    count = round(share * seen.shape[1])
    kept = seen.argsort(dim=1)[:, :count]
    added = other.tokens.gather(1, kept[..., None].expand(-1, -1, other.tokens.shape[2]))
    unclear = (other.targets > batch.targets).float()
    return replace(
        batch,
        tokens=torch.cat([batch.tokens, added], dim=1),
        weight=batch.weight * (1 - unclear),
    )
