"""Pairs (b, c) that a set of photos offers, and splits in which b is never trained without c."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError

PARTS = ("reported", "development")
_MOST_FREQUENT = 1 / 3  # a label on more photos than this is no label to be left out
_LEAST_SHARE = 0.2  # of b's photos that show c
_TRAIN_SHARE = 0.78
_FIRST_SPLIT = {"reported": 1000, "development": 0}  # seeds of the splits

Pair = tuple[int, int]


@dataclass(frozen=True)
class Split:
    """Rows of the photos that are trained on, and of those that are tested on."""

    train: NDArray[np.int_]
    test: NDArray[np.int_]


def choose_pairs(
    targets: NDArray[np.float32], *, min_photos: int, count: int
) -> dict[str, tuple[Pair, ...]]:
    """Divide the pairs that most photos show, with and without c, among the two parts.

    A label is the b of one pair at most, and no pair is another's reverse. In order of how many
    photos there are, pairs go to the two parts in turn.

    Args:
        targets: (N, L), 0 or 1.
        min_photos: Least number of photos of b with c, and of b without c.
        count: Most pairs of a part.

    Raises:
        DataError: The photos offer less than a pair for each part.
    """
    together = targets.T @ targets
    apart = together.diagonal()[:, None] - together
    fewer = np.minimum(together, apart)
    fewer[together < _LEAST_SHARE * together.diagonal()[:, None]] = 0
    fewer[targets.mean(axis=0) > _MOST_FREQUENT] = 0
    np.fill_diagonal(fewer, 0)
    chosen: list[Pair] = []
    while len(chosen) < len(PARTS) * count and fewer.max() >= min_photos:
        b, c = (int(i) for i in np.unravel_index(fewer.argmax(), fewer.shape))
        chosen.append((b, c))
        fewer[b] = 0
        fewer[c, b] = 0
    if len(chosen) < len(PARTS):
        raise DataError(
            f"{len(targets)} photos offer {len(chosen)} pairs of labels with {min_photos} photos "
            f"together and {min_photos} apart: at least {len(PARTS)} are needed; use more photos, "
            "or lower --min-photos"
        )
    return {part: tuple(chosen[i :: len(PARTS)]) for i, part in enumerate(PARTS)}


def draw_split(
    targets: NDArray[np.float32], pairs: tuple[Pair, ...], part: str, number: int
) -> Split:
    """Draw photos for training, and move to the test what training may not see.

    Args:
        targets: (N, L), 0 or 1.
        pairs: In training no b stands without its c.
        part: Of `PARTS`: their splits are drawn apart.
        number: Of the split.
    """
    rng = np.random.default_rng(_FIRST_SPLIT[part] + number)
    order = rng.permutation(len(targets))
    drawn, rest = np.split(order, [round(_TRAIN_SHARE * len(order))])
    there = targets > 0
    forbidden = np.zeros(len(targets), bool)
    for b, c in pairs:
        forbidden |= there[:, b] & ~there[:, c]
    test = np.concatenate([rest, drawn[forbidden[drawn]]])
    return Split(train=np.sort(drawn[~forbidden[drawn]]), test=np.sort(test))
