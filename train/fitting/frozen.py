"""Stored tokens of a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BATCH = 250  # of passes without gradients


@dataclass(frozen=True)
class TokenSet:
    """One split of a data set as a frozen backbone sees it."""

    tokens: NDArray[np.float16]  # (N, T, D), usually mapped from disk
    targets: NDArray[np.float32]  # (N, L)
    finer_channels: int  # leading channels of a token that come from the finer stage

    def batches(self) -> Iterator[Tensor]:
        """Yield tokens as float32 (B, T, D) in order."""
        for start in range(0, len(self.tokens), _BATCH):
            yield self.batch(np.arange(start, min(start + _BATCH, len(self.tokens))))

    def batch(self, rows: NDArray[np.int_]) -> Tensor:
        """Tokens of some rows, float32."""
        return torch.from_numpy(self.tokens[rows].astype(np.float32))
