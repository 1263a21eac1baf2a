"""Multi-head attention with the contract of the native operator CmlrAttention."""

from __future__ import annotations

from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """softmax(scale * q k^T + bias) v per head, between linear projections.

    Written out, because export replaces exactly this product by one operator and a query or key of
    batch 1 stands for the whole batch.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        """Build the four projections of `width`, which `num_heads` divides."""
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None
    ) -> Tensor:
        """Attend.

        Args:
            query: (1|B, L, d).
            key: (1|B, T, d).
            value: (1|B, T, d).
            bias: Added to the scaled scores: (T,) or (L, T).

        Returns:
            (B, L, d).
        """
        mixed = self.head_weights(query, key, bias) @ self._split(self.value(value))
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, query: Tensor, key: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """Attention weights, averaged over heads, (1|B, L, T); rows sum to 1."""
        return self.head_weights(query, key, bias).mean(dim=1)

    def head_weights(self, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
        """Attention weights (1|B, H, L, T); rows sum to 1."""
        q, k = self._split(self.query(query)), self._split(self.key(key))
        scores = (q * self.scale) @ k.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        return scores.softmax(dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, d) -> (B, H, N, d / H)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
