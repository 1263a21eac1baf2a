"""A few of all combinations of parameters, for tests that would take too long on all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def covering(
    parameters: Mapping[str, Sequence[Any]], *together: tuple[str, ...]
) -> list[tuple[Any, ...]]:
    """Combinations in which any two values of two parameters meet, and each corner is there.

    Also every combination of the parameters that each of `together` names. The corners are the
    first values of all parameters, and the last. Greedy, and the same each time.
    """
    names = [*parameters]
    groups = [*itertools.combinations(names, 2), *together]
    places = [tuple(names.index(name) for name in group) for group in groups]
    every = [*itertools.product(*parameters.values())]

    def meetings(case: tuple[Any, ...]) -> set[tuple[tuple[int, ...], tuple[Any, ...]]]:
        return {(place, tuple(case[i] for i in place)) for place in places}

    chosen = [every[0], every[-1]]
    missing = set().union(*map(meetings, every)) - set().union(*map(meetings, chosen))
    while missing:
        best = max(every, key=lambda case: len(meetings(case) & missing))
        chosen.append(best)
        missing -= meetings(best)
    return chosen


def names_of(cases: Iterable[tuple[Any, ...]]) -> list[str]:
    """What pytest calls them."""
    return ["-".join(getattr(x, "__name__", str(x)) for x in case) for case in cases]
