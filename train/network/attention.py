"""Multi-head attention with the contract of the native operator CmlrAttention."""

from __future__ import annotations

from torch import Tensor, nn


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, num_heads: int, scale: float
) -> Tensor:
    """softmax(scale * q k^T + bias) v per head, without projections; arguments as below, projected."""
    weights = attention_weights(query, key, bias, num_heads, scale)
    return (weights @ _split(value, num_heads)).transpose(1, 2).flatten(2)


def attention_weights(
    query: Tensor, key: Tensor, bias: Tensor | None, num_heads: int, scale: float
) -> Tensor:
    """Attention weights (1|B, H, L, T); rows sum to 1."""
    scores = (_split(query, num_heads) * scale) @ _split(key, num_heads).transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1)


def _split(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, d) -> (B, H, N, d / H)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


class MultiHeadAttention(nn.Module):
    """softmax(scale * q k^T + bias) v per head, between linear projections.

    A query or key of batch 1 stands for the whole batch. Export puts its operator in the place of
    `attend`.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        """Build the four projections of `width`, which `num_heads` divides."""
        super().__init__()
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.attend = attend
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
        projected = self.query(query), self.key(key), self.value(value)
        return self.out(self.attend(*projected, bias, self.num_heads, self.scale))

    def weights(self, query: Tensor, key: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """Attention weights, averaged over heads, (1|B, L, T); rows sum to 1."""
        return self.head_weights(query, key, bias).mean(dim=1)

    def head_weights(self, query: Tensor, key: Tensor, bias: Tensor | None) -> Tensor:
        """Attention weights (1|B, H, L, T); rows sum to 1."""
        return attention_weights(self.query(query), self.key(key), bias, self.num_heads, self.scale)
