"""How long large archives take where nodes are slow or lost, simulated from the rates that were measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.archive.planning import short_title
from benchmarks.archive.stragglers import Loss, Outcome, Worker, simulate
from benchmarks.records import markdown_table

_MIB = 2**20
_CORES = (128, 1024)
_DAYS = 1_000
_FILM = "640x360"
_CUTS: dict[str, tuple[tuple[str, int], ...]] = {  # flags that say how large units are
    "pictures": (("--chunk", 1000), ("--chunk", 100)),
    _FILM: (("--part-mb", 64), ("--part-mb", 8)),
    "": (),
}
_CASES = {
    "calm": (False, False),
    "slow": (True, False),
    "lost": (False, True),
    "both": (True, True),
}


@dataclass(frozen=True)
class Trouble:
    """What is assumed of a cluster."""

    cores_per_node: int = 16
    slow_share: float = 1 / 16  # of the nodes
    slowness: float = 2.0  # how many times as long a unit takes there
    hours_to_loss: float = 24.0  # of a node, on average
    noticed_s: float = 20.0  # until the units of a lost node are given to others
    back_s: float = 300.0  # until another node works in its place
    unit_spread: float = 0.2  # a unit takes so much less or more, evenly
    draws: int = 20


def simulate_works(plan: dict[str, Any], trouble: Trouble, seed: int = 0) -> dict[str, Any]:
    """Simulate works of a plan by the number of cores and the size of units, with trouble and without.

    Args:
        plan: As `plan_of` made it.
        trouble: Of a cluster.
        seed: Of the draws.
    """
    works = {}
    for title, work in plan["works"].items():
        core_s = work["count"] * sum(work["core_ms_each"].values()) / 1e3
        for flag, cut in _CUTS[
            "pictures" if "pictures" in title else _FILM if _FILM in title else ""
        ]:
            units = _units(work, flag, cut)
            works[f"{title}; {flag} {cut}"] = {
                "units": units,
                "unit_core_s": round(core_s / units, 1),
                "by_cores": {
                    str(cores): _hours(core_s / units, units, cores, trouble, seed)
                    for cores in _CORES
                },
            }
    return {"assumed": {**asdict(trouble), "seed": seed}, "works": works}


def _units(work: dict[str, Any], flag: str, cut: int) -> int:
    if flag == "--chunk":
        return math.ceil(work["count"] / cut)
    return _DAYS * max(1, round(work["terabytes"] * 1e12 / _DAYS / (cut * _MIB)))


def _hours(unit_s: float, units: int, cores: int, trouble: Trouble, seed: int) -> dict[str, Any]:
    found: dict[str, Any] = {"even_share": round(unit_s * units / cores / 3600, 3)}
    for name, (slow, lost) in _CASES.items():
        outcomes = [
            _draw(unit_s, units, cores, trouble, slow=slow, lost=lost, seed=(seed, number))
            for number in range(trouble.draws)
        ]
        hours = [outcome.seconds / 3600 for outcome in outcomes]
        again = float(np.median([outcome.lost_core_s for outcome in outcomes]))
        found[name] = {
            "median": round(float(np.median(hours)), 3),
            "longest": round(max(hours), 3),
            "done_again": round(again / (unit_s * units), 4),
        }
    return found


def _draw(
    unit_s: float,
    units: int,
    cores: int,
    trouble: Trouble,
    *,
    slow: bool,
    lost: bool,
    seed: tuple[int, int],
) -> Outcome:
    rng = np.random.default_rng(seed)
    nodes = max(1, cores // trouble.cores_per_node)
    spread = rng.uniform(1 - trouble.unit_spread, 1 + trouble.unit_spread, units)
    slow_nodes = set(rng.permutation(nodes)[: math.ceil(trouble.slow_share * nodes) if slow else 0])
    workers = [
        Worker(node, trouble.slowness if node in slow_nodes else 1.0)
        for node in range(nodes)
        for _ in range(cores // nodes)
    ]
    horizon_s = 4 * unit_s * units / cores + 24 * 3600
    losses = [*_losses(rng, nodes, horizon_s, trouble)] if lost else []
    return simulate((unit_s * spread).tolist(), workers, losses=losses)


def _losses(
    rng: np.random.Generator, nodes: int, horizon_s: float, trouble: Trouble
) -> Iterator[Loss]:
    for node in range(nodes):
        time_s = rng.exponential(trouble.hours_to_loss * 3600)
        while time_s < horizon_s:
            yield Loss(node, time_s, trouble.noticed_s, trouble.back_s)
            time_s += trouble.back_s + rng.exponential(trouble.hours_to_loss * 3600)


def named(title: str, unit_s: float) -> str:
    """A work and how it is cut, as the table tells it."""
    work, _, cut = short_title(title).partition("; ")
    return f"{work}; units of {unit_s:.0f} s (`{cut}`)"


def scale_table(record: dict[str, Any]) -> str:
    """Markdown of what was simulated: medians, and the longest of all draws."""
    rows = []
    for title, work in record["works"].items():
        for cores, found in work["by_cores"].items():
            cells = [f"{found[n]['median']:.2f} ({found[n]['longest']:.2f})" for n in _CASES]
            name = named(title, work["unit_core_s"])
            rows.append((name, cores, f"{found['even_share']:.2f}", *cells))
    cases = "all well", "slow", "lost", "slow and lost"
    head = "archive, and units", "cores", "even share", *cases
    return markdown_table(head, rows, numbers=range(1, len(head)))
