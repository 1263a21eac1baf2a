"""Heads trained on stored tokens of a frozen backbone: a minute each, for comparisons."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmlr_edge.errors import DataError, TrainingError
from train.config import TrainConfig
from train.fitting.amp import has_bfloat16
from train.fitting.frozen import TokenSet
from train.fitting.losses import training_loss
from train.fitting.prepare import Preparation, TokenReaders, install, prepare
from train.judging.inference import DatasetScores, concatenate_scores, score_batch
from train.network.baselines import FeatureSplitClassifier
from train.network.model import CausalHead


def prepare_tokens(config: TrainConfig, train: TokenSet) -> Preparation:
    """`prepare` on stored tokens."""
    if config.model.confounders.other_view:
        raise DataError("stored tokens are of one backbone: confounders.backbone needs the images")
    readers = TokenReaders(train.batches, range(len(train.tokens)), train.finer_channels)
    return prepare(config.model, readers, train.targets, seed=config.seed)


def fit_head(
    config: TrainConfig,
    train: TokenSet,
    prepared: Preparation,
    *,
    exclusive: NDArray[np.bool_] | None = None,
    exclusive_weight: float = 1.0,
    beside: Tensor | None = None,
    report: Callable[[float], None] = lambda _loss: None,
) -> CausalHead:
    """Train a head with AdamW and OneCycle.

    Args:
        config: Its head settings and recipe; augmentation and averaging do not apply here.
        train: Training tokens.
        prepared: Result of `prepare_tokens` for this configuration.
        exclusive: (N, L), where a biased label is known to stand without its usual company.
        exclusive_weight: Multiplies the loss of those decisions.
        beside: Held-out logits (N, L) of a bias-only model, which a head without intervention is
            trained beside (a product of experts); at the test it stands alone.
        report: Told the loss of every step.

    Returns:
        In evaluation mode.

    Raises:
        TrainingError: The loss became NaN or infinite.
    """
    torch.manual_seed(config.seed)
    head = CausalHead(config.model, train.targets.shape[1], train.tokens.shape[2])
    install(head, prepared)
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=config.weight_decay)
    batches = len(train.tokens) // config.batch_size
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=config.epochs * batches, pct_start=config.warmup_share
    )
    alone = None if exclusive is None else torch.from_numpy(exclusive)
    rng = np.random.default_rng(config.seed)
    head.train()
    for _ in range(config.epochs):
        order = rng.permutation(len(train.tokens))[: batches * config.batch_size]
        for rows in order.reshape(batches, -1):
            outside = prepared.context_logits if beside is None else beside
            context = None if outside is None else outside[rows]
            lone = None if alone is None else alone[rows]
            loss = _loss(head, config, train, rows, context, lone, exclusive_weight)
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {loss.item()}: take a lower lr, or amp=off")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), config.gradient_clip)
            optimizer.step()
            head.shrink_links(float(scheduler.get_last_lr()[-1]) * config.link_sparsity)
            scheduler.step()
            report(float(loss.detach()))
    return head.eval()


def precision_of(config: TrainConfig) -> str:
    """What heads train in on this machine, by its name."""
    return "bfloat16" if config.amp != "off" and has_bfloat16() else "float32"


def _loss(
    head: CausalHead,
    config: TrainConfig,
    train: TokenSet,
    rows: NDArray[np.int_],
    context_logits: Tensor | None,
    alone: Tensor | None,
    exclusive_weight: float,
) -> Tensor:
    if alone is not None and isinstance(head.classifier, FeatureSplitClassifier):
        head.classifier.exclusive = alone
    with torch.autocast("cpu", torch.bfloat16, enabled=precision_of(config) == "bfloat16"):
        output = head.head(train.batch(rows))
    weight = None if alone is None else 1 + (exclusive_weight - 1) * alone
    targets = head.wanted(torch.from_numpy(train.targets[rows]))
    alongside = 0 if context_logits is None or head.intervention is not None else context_logits
    found = (logits + alongside for logits in head.training_logits(output, context_logits))
    return training_loss(found, targets, config, weight)


@torch.inference_mode()
def score_tokens(head: CausalHead, data: TokenSet) -> DatasetScores:
    """Score every image, float32."""
    return concatenate_scores([score_batch(head, head.head(tokens)) for tokens in data.batches()])
