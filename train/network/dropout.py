"""Dropout whose masks belong to the samples, not to their place in a batch.

So a step is the same whether its batch is computed at once, in parts, or by several processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_generators: ContextVar[tuple[torch.Generator, ...] | None] = ContextVar("samples", default=None)


@contextmanager
def seeded_per_sample(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Draw the masks of a forward pass from one generator per sample.

    Args:
        seeds: One for each sample of the batch.
        device: Where the network is.
    """
    token = _generators.set(tuple(torch.Generator(device).manual_seed(seed) for seed in seeds))
    try:
        yield
    finally:
        _generators.reset(token)


def shared_generator() -> torch.Generator | None:
    """Of draws that concern the whole batch: its first sample's; None outside `seeded_per_sample`."""
    generators = _generators.get()
    return generators[0] if generators else None


def drop(x: Tensor, p: float, *, training: bool) -> Tensor:
    """`torch.nn.functional.dropout`, per sample inside of `seeded_per_sample`.

    Args:
        x: (B, ...), or (1, ...) where all samples share it.
        p: Share of values set to 0.
        training: Else nothing is dropped.
    """
    generators = _generators.get()
    if generators is None or not training or p == 0:
        return F.dropout(x, p, training)
    kept = x.new_empty(len(generators), *x.shape[1:])
    for row, generator in zip(kept, generators, strict=True):
        row.bernoulli_(1 - p, generator=generator)
    return x * kept / (1 - p)


class SampleDropout(nn.Dropout):
    """`nn.Dropout` on top of `drop`."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of (B, ...)."""
        return drop(x, self.p, training=self.training)
