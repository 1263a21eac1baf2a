"""Which pictures each step learns from, and which of them are this process's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from train import distributed
from train.config import TrainConfig
from train.data.transforms import ImageTensors
from train.fitting.learner import Part
from train.network.token_memory import TokenMemory

Pair = tuple[int, int]  # index of a picture, and the seed of its augmentation and dropout


def epoch_batches(config: TrainConfig, num_images: int, epoch: int) -> list[list[Pair]]:
    """Shuffle the pictures into whole batches, the same on every machine.

    Args:
        config: Size of a batch, and the seed.
        num_images: To choose from.
        epoch: From 0.

    Returns:
        Batches of (index, seed) pairs. What fills no batch is left out; fewer pictures than a batch
        are one batch.
    """
    size, rng = config.batch_size, np.random.default_rng((config.seed, epoch))
    order = rng.permutation(num_images)
    seeds = rng.integers(2**31, size=num_images)
    pairs = [(int(i), int(s)) for i, s in zip(order, seeds, strict=True)]
    whole = max(size, num_images - num_images % size)
    return [pairs[i : i + size] for i in range(0, whole, size)]


def load_parts(
    batches: list[list[Pair]],
    images: ImageTensors,
    targets: Tensor,
    context_logits: Tensor | None,
    config: TrainConfig,
    lone: Tensor | None = None,
    memory: TokenMemory | None = None,
    known: Tensor | None = None,
) -> Iterator[list[Part]]:
    """Yield, batch by batch, the parts that this process computes, all of the same number.

    Args:
        batches: Of `epoch_batches`.
        images: Augmented.
        targets: (N, L).
        context_logits: (N, L), g of the training images.
        config: Parts of a batch.
        lone: (N, L), where a biased label stands without its usual company.
        memory: Pictures whose tokens it has are not read.
        known: (N, L), where somebody looked for the label; None: everywhere.
    """
    own = [
        distributed.split_evenly(
            distributed.split_evenly(batch, distributed.count())[distributed.rank()],
            config.accumulate,
        )
        for batch in batches
    ]
    kept = {} if memory is None else {key: memory.get(key) for key in _keys(own)}
    sampler = [list(key) for key in _keys(own) if kept.get(key) is None]
    loader = images.read(sampler)

    def load(pairs: Sequence[Pair], share: float) -> Part:
        rows, key = [index for index, _ in pairs], tuple(pairs)
        tokens = kept.pop(key, None)
        return Part(
            images=next(loader) if tokens is None else None,
            tokens=tokens,
            remember=None if memory is None else partial(memory.keep, key),
            targets=targets[rows],
            context_logits=None if context_logits is None else context_logits[rows],
            seeds=[seed for _, seed in pairs],
            share=share,
            lone=None if lone is None else lone[rows],
            known=None if known is None else known[rows],
        )

    for batch, parts in zip(batches, own, strict=True):
        yield [load(pairs, len(pairs) / len(batch)) for pairs in parts]


def _keys(batches: list[list[Sequence[Pair]]]) -> list[tuple[Pair, ...]]:
    return [tuple(part) for parts in batches for part in parts]
