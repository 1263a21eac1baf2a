"""`python -m benchmarks.event_contract`: does the bound of an event contract hold as often as it says?

A pool of synthetic recordings stands for a place; its mean is the truth. Recordings are drawn from it again and
again, a contract is fitted to each draw, and its bounds are held against the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.records import markdown_table, write_json
from cmlr_edge.events.contract import (
    Wish,
    candidates,
    choose,
    false_a_day_at_most,
    found_at_least,
)
from cmlr_edge.events.recordings import Recording, Visit
from cmlr_edge.events.replay import Counts, count_events
from train.reporting import exit_on_error

_FRAMES, _FPS = 600, 1.0
_VISITS = 3
_DRAWS = 1000
_PER_DRAW = 30  # recordings
_WISHES = (Wish(72.0, 0.6), Wish(72.0, 0.7), Wish(72.0, 0.8))


def stream(rng: np.random.Generator, spread: float) -> Recording:
    """Ten minutes of flickering scores with three visits; `spread` makes some recordings worse than others."""
    times = np.arange(_FRAMES) / _FPS
    values, level = np.zeros(_FRAMES), 0.0
    for i, noise in enumerate(rng.normal(size=_FRAMES) * 0.7):
        level = 0.7 * level + noise
        values[i] = level
    values += rng.normal() * spread
    visits = []
    for begin in np.sort(rng.choice(np.arange(1, 14), _VISITS, replace=False)) * 40.0:
        visit = Visit(float(begin), float(begin + rng.uniform(5, 30)))
        values[(times >= visit.begin_s) & (times <= visit.end_s)] += rng.normal(3.5, 1.0)
        visits.append(visit)
    scores = (1 / (1 + np.exp(2.5 - values))).astype(np.float32)
    return Recording("synthetic", times, scores, tuple(visits))


def measure(pool: list[Counts], wish: Wish, draws: int, seed: int) -> dict[str, Any]:
    """Draw recordings, fit, and count how often the truth lies outside what was proven.

    Args:
        pool: What each setting did on each recording.
        wish: Of the contract.
        draws: How often.
        seed: Of the draws.
    """
    rng, truth = np.random.default_rng(seed), Counts.joined(pool)
    rates, shares = truth.false_events / (truth.hours / 24), truth.found / truth.visits
    outside = {"false_a_day": 0, "found": 0, "either": 0}
    proven = wrong = 0
    for _ in range(draws):
        drawn: NDArray[np.int_] = rng.integers(len(pool), size=_PER_DRAW)
        third = _PER_DRAW // 3
        tried, held_out = (
            Counts.joined([pool[i] for i in part]) for part in (drawn[:third], drawn[third:])
        )
        best = choose(tried, wish, held_out.hours, held_out.visits)
        proof = held_out.of(best)
        missed = (
            rates[best] > false_a_day_at_most(proof),
            shares[best] < found_at_least(proof),
        )
        for name, value in zip(outside, (*missed, any(missed)), strict=True):
            outside[name] += bool(value)
        if wish.kept_by(proof):
            proven += 1
            wrong += bool(rates[best] > wish.false_a_day or shares[best] < wish.found)
    return {
        "wish": vars(wish),
        "draws": draws,
        "recordings": _PER_DRAW,
        "covered": {name: round(1 - n / draws, 4) for name, n in outside.items()},
        "proven": round(proven / draws, 4),
        "proven_and_untrue": round(wrong / draws, 4),
    }


def table(record: dict[str, Any]) -> str:
    """Markdown: a row for each place and wish."""
    lines = []
    for place, rows in record["places"].items():
        for row in rows:
            held, wish = row["covered"], row["wish"]
            shares = *(held[name] for name in ("false_a_day", "found", "either")), row["proven"]
            cells = [f"{share:.1%}" for share in (*shares, row["proven_and_untrue"])]
            lines.append((place, f"{wish['false_a_day']:g}/day, {wish['found']:.0%}", *cells))
    head = "recordings", "wish", "false events held", "visits held", "both", "proven", "and untrue"
    return markdown_table(head, lines)


def main(
    out: Annotated[Path, typer.Option(help="JSON file.")] = Path(
        "benchmarks/results/events/contract.json"
    ),
    pool: Annotated[int, typer.Option(min=30, help="Recordings that stand for a place.")] = 200,
    draws: Annotated[int, typer.Option(min=1)] = _DRAWS,
) -> None:
    """Measure coverage on a place whose recordings are alike, and on one where they differ."""
    record = {}
    for name, spread in (("alike", 0.0), ("different", 0.5)):
        rng = np.random.default_rng(7)
        recordings = [stream(rng, spread) for _ in range(pool)]
        settings = candidates(recordings[:10])[::3]  # every third: they are all replayed
        counts = [count_events(recording, settings) for recording in recordings]
        record[name] = [measure(counts, wish, draws, seed=1) for wish in _WISHES]
    whole = {"pool": pool, "confidence": 0.95, "places": record}
    write_json(out, whole)
    Console().print_json(data=whole)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
