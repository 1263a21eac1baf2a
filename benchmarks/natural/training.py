"""One head trained on tokens: the recipe of `fit_head`, with what the methods do to its batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.heads import prepare_tokens, score_tokens
from benchmarks.natural.batches import (
    Batch,
    add_surroundings,
    attention,
    erase_label,
    unite,
    unite_halves,
)
from benchmarks.natural.bias_models import bias_logits
from benchmarks.natural.interaction import InteractionHead
from benchmarks.natural.methods import RECIPE, Method
from benchmarks.natural.sampling import Pair
from train.config import TrainConfig
from train.fitting.frozen import TokenSet
from train.fitting.losses import asymmetric_loss
from train.fitting.prepare import install, needs_preparation
from train.network.model import CausalHead

_WEIGHT = 5.0  # of decisions that JTT's first head gets wrong
_PAIR_WEIGHT = 10.0
_FIRST_EPOCHS = 5  # of the first head of JTT
_ATTENTION_FROM = 0.25  # share of the steps after which attention says where a label is


@dataclass(frozen=True)
class _Extras:
    """What stands beside the training tokens."""

    weight: Tensor  # (N, L)
    context: Tensor | None  # (N, L)


def train_head(method: Method, train: TokenSet, pairs: tuple[Pair, ...], seed: int) -> CausalHead:
    """Train one head.

    Args:
        method: Its settings.
        train: Training tokens.
        pairs: For methods that know them.
        seed: Of everything random.

    Returns:
        In evaluation mode.
    """
    config = replace(RECIPE, model=method.model, lr=method.lr, epochs=method.epochs, seed=seed)
    torch.manual_seed(seed)
    kind = InteractionHead if method.interaction else CausalHead
    head = kind(config.model, train.targets.shape[1], train.tokens.shape[2])
    context: Tensor | None = None
    if needs_preparation(config.model):
        prepared = prepare_tokens(config, train)
        _shrink(prepared.context_term, method.strength)
        install(head, prepared)
        context = prepared.context_logits
    if method.beside != "none":
        first = _first(method, train, pairs, seed) if method.beside == "surroundings" else None
        context = method.strength * bias_logits(method.beside, train, seed, first)
    extras = _Extras(_weights(method, train, pairs, seed), context)
    return _fit(head, config, method, train, extras)


def _shrink(term: object, strength: float) -> None:
    """Multiply the context term in place."""
    if term is not None and strength != 1:
        for name in ("weight", "bias", "held_out_logits"):
            getattr(term, name).mul_(strength)


def _first(
    method: Method, train: TokenSet, pairs: tuple[Pair, ...], seed: int, epochs: int | None = None
) -> CausalHead:
    """The plain head that JTT and the surroundings start from."""
    epochs = epochs or method.epochs
    plain = Method("first", method.model, lr=method.lr, epochs=epochs)
    return train_head(plain, train, pairs, seed)


def _weights(method: Method, train: TokenSet, pairs: tuple[Pair, ...], seed: int) -> Tensor:
    there = train.targets > 0
    weight = np.ones(train.targets.shape, np.float32)
    if method.weights == "jtt":
        head = _first(method, train, pairs, seed, _FIRST_EPOCHS)
        wrong = (score_tokens(head, train).deployed > 0.5) != there
        weight[wrong] = _WEIGHT
    elif method.weights == "pairs":  # b never stands without c here, but c without b does
        for b, c in pairs:
            weight[~there[:, b] & there[:, c], b] = _PAIR_WEIGHT
    return torch.from_numpy(weight)


def _fit(
    head: CausalHead, config: TrainConfig, method: Method, train: TokenSet, extras: _Extras
) -> CausalHead:
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=config.weight_decay)
    size = min(config.batch_size, len(train.tokens))
    batches = len(train.tokens) // size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.epochs * batches, pct_start=config.warmup_share
    )
    changes = _Changes(head, method, train, extras, config.seed)
    rng = np.random.default_rng(config.seed)
    head.train()
    for epoch in range(config.epochs):
        order = rng.permutation(len(train.tokens))[: batches * size]
        for rows in order.reshape(batches, -1):
            batch = changes.draw(rows, epoch / config.epochs)
            loss, found = torch.zeros(()), _training_logits(head, batch)
            wanted = head.wanted(batch.targets)
            for logits in found:
                loss = loss + asymmetric_loss(
                    logits, wanted, gamma_negative=config.gamma_negative, weight=batch.weight
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), config.gradient_clip)
            optimizer.step()
            scheduler.step()
    return head.eval()


def _training_logits(head: CausalHead, batch: Batch) -> list[Tensor]:
    with torch.autocast("cpu", torch.bfloat16):
        output = head.head(batch.tokens)
    if head.intervention is not None or batch.context is None:
        return head.training_logits(output, batch.context)
    return [logits + batch.context for logits in head.training_logits(output, None)]


class _Changes:
    """Draws batches, and changes some of them as the method says."""

    def __init__(
        self, head: CausalHead, method: Method, train: TokenSet, extras: _Extras, seed: int
    ) -> None:
        self.head, self.method, self.train, self.extras = head, method, train, extras
        self._rng = np.random.default_rng((seed, 1))
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, rows: NDArray[np.int_], progress: float) -> Batch:
        """Give the batch of some rows; `progress` is the share of training that is done."""
        batch, method = self._take(rows), self.method
        kinds = self._rng.random(3) < (method.united, method.erased, method.surrounded)
        united, erased, surrounded = (bool(kind) for kind in kinds)
        if progress >= _ATTENTION_FROM:
            if erased:
                looks = attention(self.head, batch.tokens)
                batch = erase_label(batch, looks, method.token_share, self._generator)
            if surrounded and not united:
                other = self._other(len(rows))
                looks = attention(self.head, other.tokens)
                batch = add_surroundings(batch, other, looks, method.token_share)
        if united and method.uniting == "halves":
            batch = unite_halves(batch, self._other(len(rows)), self._generator)
        elif united:
            batch = unite(batch, self._other(len(rows)))
        return batch

    def _other(self, number: int) -> Batch:
        return self._take(self._rng.permutation(len(self.train.tokens))[:number])

    def _take(self, rows: NDArray[np.int_]) -> Batch:
        context = self.extras.context
        return Batch(
            self.train.batch(rows),
            torch.from_numpy(self.train.targets[rows]),
            self.extras.weight[rows],
            None if context is None else context[rows],
        )
