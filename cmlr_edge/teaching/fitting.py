"""How a further label is read off the tokens of pictures: a small classifier, fitted with NumPy alone.

logit = sum_t softmax_t(x_t . a) (x_t . e) + mean_t x_t . m + bias: tokens vote with weights that say where to
look, so an object that fills one token of a hundred counts. Tokens are whitened first: a step that costs little
then points at what is rare in pictures without the label, and a few pictures are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends.onnx_rows import Row

Array = NDArray[np.float32]
_STEPS = 40  # of the optimiser, each of the two times
_MEMORY = 8  # steps that it remembers
# Cost of the evidence's squared length. Where to look and what the mean says cost a tenth: the one only shares
# out, and the other is steadier than what one token says.
_RIDGE = 0.3
_SHARPNESS = 4.0  # of the first look: how much more a token counts for each unit of its evidence
_WIDEST = 256  # directions of tokens that are kept
_SAMPLE = 40_000  # tokens that they are found from, at most: more take longer


@dataclass(frozen=True)
class Basis:
    """Tokens (.., D) to coordinates (.., R) of deviation 1 over pictures as they usually are."""

    mean: Array  # (D,)
    directions: Array  # (D, R)

    @classmethod
    def of(cls, tokens: Array, width: int = _WIDEST) -> Basis:
        """Find it from tokens (N, D): the directions of largest variance, each scaled to 1.

        Of channels that count alike: those of one layer may be many times as large as those of another.
        """
        if (
            len(tokens) > _SAMPLE
        ):  # drawn: with every k-th, whole columns of all pictures may be left out
            chosen = np.random.default_rng(0).choice(len(tokens), _SAMPLE, replace=False)
            tokens = tokens[np.sort(chosen)]
        mean, deviation = tokens.mean(axis=0), tokens.std(axis=0)
        # A channel that stood still may move in a later lesson: it counts like the one that moved most then.
        largest = deviation.max() + 1e-12
        deviation = np.where(deviation < 1e-4 * largest, largest, deviation)
        scaled = (tokens - mean) / deviation
        covariance = (scaled.T @ scaled) / max(1, len(tokens) - 1)
        variances, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
        order = np.argsort(-variances)[: min(width, len(tokens) - 1)]
        # What hardly varies would be blown up to noise.
        floor = 1e-2 * variances[order[0]] + 1e-12
        directions = vectors[:, order] / np.sqrt(variances[order] + floor) / deviation[:, None]
        return cls(mean, directions.astype(np.float32))

    def __call__(self, tokens: Array) -> Array:
        """Coordinates of tokens."""
        found = (tokens - self.mean) @ self.directions
        return np.asarray(found, np.float32)


@dataclass(frozen=True)
class Fitted:
    """How one label is read off coordinates (R,)."""

    evidence: Array
    attention: Array
    mean: Array
    bias: float

    def logits(self, bags: Array) -> Array:
        """Of pictures (N, T, R)."""
        point = np.concatenate([self.evidence, self.attention, self.mean, [self.bias]])
        return _logits(point, bags, bags.mean(axis=1))[0]

    def folded(self, basis: Basis) -> Row:
        """Read tokens as the graph computes them.

        A constant that is added to every token's look changes no share; one that is added to what each
        says is added to the sum, for the shares add up to 1.
        """
        vectors = (self.evidence, self.attention, self.mean)
        evidence, attention, mean = (
            (basis.directions @ vector).astype(np.float32) for vector in vectors
        )
        return Row(evidence, attention, mean, self.bias - float(basis.mean @ (evidence + mean)))


def fit_row(bags: Array, present: NDArray[np.bool_]) -> Fitted:
    """Fit one label.

    Args:
        bags: Coordinates of pictures, (N, T, R).
        present: (N,), whether the label is there; some are and some are not.
    """
    means = bags.mean(axis=1)
    width = bags.shape[2]
    signs = np.where(present, 1.0, -1.0)
    weights = np.where(present, 0.5 / present.sum(), 0.5 / (~present).sum())
    penalty = np.concatenate([np.full(width, _RIDGE), np.full(2 * width, _RIDGE / 10), [0.0]])

    def cost(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits, gradient = _logits(point, bags, means)
        margins = signs * logits
        loss = weights @ np.logaddexp(0, -margins) + 0.5 * (penalty * point) @ point
        slopes = -weights * signs / (1 + np.exp(np.clip(margins, -60, 60)))
        return float(loss), gradient(slopes) + penalty * point

    start = np.zeros(3 * width + 1)
    point = minimise(cost, start, steps=_STEPS)
    # Where a label was told by the mean, look first at what speaks for it.
    e = point[:width] + point[2 * width : 3 * width]
    length = float(np.linalg.norm(e)) or 1.0
    point[width : 2 * width] = _SHARPNESS * e / length
    point = minimise(cost, point, steps=_STEPS)
    evidence, attention, mean = _parts(point, width)
    return Fitted(evidence, attention, mean, float(point[-1]))


def _logits(
    point: NDArray[np.float64], bags: Array, means: Array
) -> tuple[Array, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Logits (N,), and what turns their slopes into that of `point`."""
    width = bags.shape[2]
    e, a, m = _parts(point, width)
    both = bags @ np.stack([e, a], axis=1)  # (N, T, 2)
    says, looks = both[..., 0], both[..., 1]
    shares = np.exp(looks - looks.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    found = (says * shares).sum(axis=1)
    logits = found + means @ m + np.float32(point[-1])

    def gradient(slopes: NDArray[np.float64]) -> NDArray[np.float64]:
        slopes = slopes.astype(np.float32)
        of_says = slopes[:, None] * shares
        of_looks = of_says * (says - found[:, None])
        # Picture by picture: BLAS is slow at two rows times tokens of all pictures.
        parts = (np.stack([of_says, of_looks], axis=1) @ bags).sum(axis=0)
        return np.concatenate([parts[0], parts[1], slopes @ means, [slopes.sum()]]).astype(
            np.float64
        )

    return logits, gradient


def _parts(point: NDArray[np.float64], width: int) -> tuple[Array, Array, Array]:
    evidence, attention, mean = point[:-1].reshape(3, width).astype(np.float32)
    return evidence, attention, mean


def minimise(
    cost: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
    point: NDArray[np.float64],
    *,
    steps: int,
) -> NDArray[np.float64]:
    """L-BFGS with halved steps, from `point`; `cost` returns a value and its gradient."""
    value, slope = cost(point)
    moves: list[NDArray[np.float64]] = []
    turns: list[NDArray[np.float64]] = []
    for _ in range(steps):
        direction = -_times_inverse(slope, moves, turns)
        descent = float(direction @ slope)
        if descent > -1e-10:
            break
        size = 1.0 if moves else min(1.0, 1.0 / (float(np.linalg.norm(slope)) + 1e-12))
        for _ in range(20):
            next_value, next_slope = cost(point + size * direction)
            if next_value <= value + 1e-4 * size * descent:
                break
            size /= 2
        else:
            break
        move, turn = size * direction, next_slope - slope
        if move @ turn > 1e-12:
            moves, turns = [*moves, move][-_MEMORY:], [*turns, turn][-_MEMORY:]
        point, value, slope = point + move, next_value, next_slope
    return point


def _times_inverse(
    slope: NDArray[np.float64], moves: list[NDArray[np.float64]], turns: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The slope times L-BFGS's guess at the inverse of the second derivatives."""
    result: NDArray[np.float64] = slope.copy()
    shares = []
    for move, turn in zip(reversed(moves), reversed(turns), strict=True):
        share = (move @ result) / (move @ turn)
        shares.append(share)
        result -= share * turn
    if moves:
        result *= (moves[-1] @ turns[-1]) / (turns[-1] @ turns[-1])
    for move, turn, share in zip(moves, turns, reversed(shares), strict=True):
        result += (share - (turn @ result) / (move @ turn)) * move
    return result
