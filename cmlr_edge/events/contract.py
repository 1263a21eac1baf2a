"""A contract on events: "at most one false event a day, nine visits of ten", with a bound that few recordings earn.

Settings are chosen on a third of the recordings and tried on the others, which no choice has seen. There false
events count as Poisson and visits as independent, and the bounds are exact: each is wrong in 1 of 40
cases at most, both together in 1 of 20. Where recordings differ more than that, they are widened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError, TooFewError
from cmlr_edge.events.recordings import Recording
from cmlr_edge.events.replay import Counts, count_events
from cmlr_edge.model.shares import (
    hits_at_least,
    poisson_up_to,
    rate_at_least,
    rate_at_most,
    share_at_least,
)
from cmlr_edge.model.stability import LabelStability
from cmlr_edge.wording import counted

MISS = 0.025  # of each of the two bounds
_THRESHOLDS = 10
_LEAVE = (0.5, 0.8)  # share of `enter`
_SMOOTHING_S, _DURATION_S, _GAP_S = (0.3, 1.0), (0.3, 1.0, 2.0), (1.0, 3.0)
_CHANCE = 0.8  # of being proven, by which the recordings needed are told
_MOST_CASES = 10_000  # false events or visits that more recordings are wished for


@dataclass(frozen=True)
class Wish:
    """What is wanted of a label's events."""

    false_a_day: float  # at most
    found: float  # share of visits, at least

    def __post_init__(self) -> None:
        """Refuse what no recordings can prove."""
        if not (0 < self.false_a_day < math.inf and 0 < self.found < 1):
            raise DataError(
                f"at most {self.false_a_day:g} false events a day and at least {self.found:g} of the "
                "visits: expected more than 0 a day, and a share above 0 and below 1"
            )

    def kept_by(self, counts: Counts) -> bool:
        """Whether counts of one setting prove it."""
        return (
            false_a_day_at_most(counts) <= self.false_a_day and found_at_least(counts) >= self.found
        )


@dataclass(frozen=True)
class Contract:
    """The settings of a label, and what they did where they were not chosen."""

    label: str
    settings: LabelStability
    proof: Counts  # on the recordings that were held out
    chosen_on: Counts  # on the others
    proven: bool
    needed: str  # in words, where it is not proven
    tried: Counts  # every candidate on the recordings that were chosen on


def false_a_day_at_most(counts: Counts) -> float:
    """Upper bound of false events a day, of counts of one setting.

    Where recordings differ more than chance makes them, so many times fewer of them count.
    """
    false_events, days = int(counts.false_events[0]), counts.hours / 24
    expected = counts.hours_in * (false_events / max(counts.hours, 1e-9))
    spread = _spread(counts.false_in[:, 0], expected, expected)
    return rate_at_most(math.ceil(false_events / spread), days / spread, miss=MISS)


def found_at_least(counts: Counts) -> float:
    """Lower bound of the share of visits that are found; likewise."""
    found, visits = int(counts.found[0]), counts.visits
    share = found / max(visits, 1)
    expected = counts.visits_in * share
    spread = _spread(counts.found_in[:, 0], expected, expected * (1 - share))
    return share_at_least(math.floor(found / spread), math.ceil(visits / spread), miss=MISS)


def _spread(counted: NDArray[np.int_], expected: NDArray[Any], variance: NDArray[Any]) -> float:
    """How much more counts vary than chance makes them, at least 1: Pearson's statistic by freedom."""
    known = variance > 0
    if known.sum() < 2:
        return 1.0
    squares = (counted[known] - expected[known]) ** 2 / variance[known]
    return max(1.0, float(squares.sum()) / (int(known.sum()) - 1))


def fit_contract(
    label: str, recordings: Sequence[Recording], wish: Wish, *, seed: int = 0
) -> Contract:
    """Choose settings, and prove them on other recordings.

    Args:
        label: For messages.
        recordings: Of this label; at least 3.
        wish: What is wanted.
        seed: Of the division.

    Raises:
        TooFewError: There are too few recordings to divide, or none with a visit on either side.
    """
    chosen, held_out = divide(recordings, seed)
    for part in (chosen, held_out):
        if not any(recording.visits for recording in part):
            raise TooFewError(
                f"{label}: {len(recordings)} recordings, and those with a visit cannot be divided: at "
                "least 2 with a visit and 3 in all are needed, better 20"
            )
    settings = candidates(chosen)
    tried = Counts.joined([count_events(recording, settings) for recording in chosen])
    hours = sum(recording.hours for recording in held_out)
    visits = sum(len(recording.visits) for recording in held_out)
    best = choose(tried, wish, hours, visits)
    proof = Counts.joined([count_events(r, [settings[best]]) for r in held_out])
    proven = wish.kept_by(proof)
    needed = (
        "" if proven else tell_needed(Counts.joined([proof, tried.of(best)]), wish, len(recordings))
    )
    return Contract(label, settings[best], proof, tried.of(best), proven, needed, tried)


def choose(tried: Counts, wish: Wish, hours: float, visits: int) -> int:
    """Which setting is likeliest to be proven by so many hours and visits; else the nearest to the wish."""
    allowed = _most_false(hours / 24, wish.false_a_day)
    wanted = _least_found(visits, wish.found)

    def worth(i: int) -> tuple[float, float, int]:
        counts = tried.of(i)
        days = counts.hours / 24
        rate = (int(counts.false_events[0]) + 0.5) / days if days else math.inf
        share = (int(counts.found[0]) + 0.5) / (counts.visits + 1)
        # The promise does not count them; of settings that keep it alike, take an event for each visit.
        apart = int(counts.repeats[0] + counts.merged[0])
        merit = min(math.log(wish.false_a_day / rate), math.log(share / wish.found))
        if allowed < 0 or wanted > visits:
            return 0.0, merit, -apart
        likely = poisson_up_to(allowed, rate * hours / 24)
        return likely * hits_at_least(wanted, visits, share), merit, -apart

    return max(range(len(tried.found)), key=worth)


def divide(recordings: Sequence[Recording], seed: int) -> tuple[list[Recording], list[Recording]]:
    """A third to choose on, the others to prove on; likewise of those with visits and of those without."""
    rng, chosen, held_out = np.random.default_rng(seed), [], []
    for there in (True, False):
        group = [recording for recording in recordings if bool(recording.visits) == there]
        order = rng.permutation(len(group))
        first = max(1, len(group) // 3) if len(group) > 1 else 0
        chosen += [group[i] for i in order[:first]]
        held_out += [group[i] for i in order[first:]]
    return chosen, held_out


def candidates(recordings: Sequence[Recording]) -> list[LabelStability]:
    """Settings to try: thresholds where scores in and out of visits lie, and some durations."""
    within, outside = (
        np.concatenate(parts) for parts in zip(*map(_sides, recordings), strict=True)
    )
    found = [np.quantile(within, np.linspace(0.02, 0.9, _THRESHOLDS // 2))] if len(within) else []
    if len(outside):
        high = 1 - np.geomspace(0.05, 1e-5, _THRESHOLDS - _THRESHOLDS // 2)
        found.append(np.quantile(outside, high))
    enters = np.unique(np.clip(np.round(np.concatenate(found), 3), 0.001, 0.999))
    return [
        LabelStability(
            enter=float(enter),
            leave=round(float(enter) * leave, 4),
            smoothing_s=smoothing_s,
            min_duration_s=duration_s,
            min_gap_s=gap_s,
        )
        for enter, leave, smoothing_s, duration_s, gap_s in product(
            enters, _LEAVE, _SMOOTHING_S, _DURATION_S, _GAP_S
        )
    ]


def _sides(recording: Recording) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    times, inside = recording.times_s, np.zeros(len(recording.times_s), bool)
    for visit in recording.visits:
        inside |= (times >= visit.begin_s) & (times <= visit.end_s)
    known = ~np.isnan(recording.scores)
    return recording.scores[known & inside], recording.scores[known & ~inside]


def tell_needed(counts: Counts, wish: Wish, recordings: int) -> str:
    """Say what it would take to prove the wish, if settings go on as they did."""
    false_events, found = int(counts.false_events[0]), int(counts.found[0])
    days = max(counts.hours / 24, 1e-9)
    rate, share = false_events / days, found / max(counts.visits, 1)
    reasons = []
    if rate_at_least(false_events, days, miss=MISS) > wish.false_a_day:
        reasons.append(f"{rate:.3g} false events a day are more than {wish.false_a_day:g}")
    if 1 - share_at_least(counts.visits - found, counts.visits, miss=MISS) < wish.found:
        reasons.append(f"{share:.0%} of the visits found are less than {100 * wish.found:g}%")
    if reasons:
        return f"no number of recordings proves it: {' and '.join(reasons)}; train the label, or wish less"
    # Where few cases look worse than the wish, it is not known to be beyond reach: then the least there is.
    hours = hours_needed(rate if rate < wish.false_a_day else 0.0, wish)
    visits = visits_needed(share if share > wish.found else 1.0, wish)
    if math.inf in {hours, visits}:
        return (
            f"{rate:.3g} false events a day and {share:.1%} of the visits found are too near to the wish: "
            f"more than {_MOST_CASES} events or visits would have to prove it; train the label, or wish less"
        )
    # A third of all goes into the choice.
    how = "about" if rate < wish.false_a_day and share > wish.found else "at least"
    more = max(1.5 * hours / max(counts.hours, 1e-9), 1.5 * visits / max(counts.visits, 1), 1.0)
    return (
        f"it takes {how} {1.5 * hours:.0f} hours and {counted(math.ceil(1.5 * visits), 'visit')}, {more:.1f} times the "
        f"{counted(recordings, 'recording')} here"
    )


def hours_needed(rate: float, wish: Wish) -> float:
    """Hours that prove the rate in 4 of 5 cases, if it is `rate` a day; infinite where that is too many."""
    false_events = 0
    while false_events < _MOST_CASES:
        days = rate_at_most(false_events, 1.0, miss=MISS) / wish.false_a_day
        if poisson_up_to(false_events, rate * days) >= _CHANCE:
            return 24 * days
        false_events = max(false_events + 1, math.floor(false_events * 1.1))
    return math.inf


def visits_needed(share: float, wish: Wish) -> float:
    """Visits that prove the share in 4 of 5 cases, if it is `share`; likewise."""
    visits = math.ceil(math.log(MISS) / math.log(wish.found))
    while visits < _MOST_CASES:
        wanted = _least_found(visits, wish.found)
        if wanted <= visits and hits_at_least(wanted, visits, share) >= _CHANCE:
            return visits
        visits = math.ceil(visits * 1.05)
    return math.inf


def _most_false(days: float, wish: float) -> int:
    """The most false events that still prove a rate; -1 if none do."""
    low, high = -1, math.floor(max(days, 0.0) * wish) + 1  # the bound is above what was counted
    while high - low > 1:
        middle = (low + high) // 2
        if rate_at_most(middle, days, miss=MISS) <= wish:
            low = middle
        else:
            high = middle
    return low


def _least_found(visits: int, wish: float) -> int:
    """The fewest found that still prove a share; more than `visits` if none do."""
    low, high = math.floor(visits * wish), visits + 1  # the bound is below what was found
    while low < high:
        middle = (low + high) // 2
        if share_at_least(middle, visits, miss=MISS) >= wish:
            high = middle
        else:
            low = middle + 1
    return low
