"""Hours and cost of large archives, computed from what one core was measured to do; and what holds them up."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.records import markdown_table

_PICTURES = 10_000_000
_CAMERA_DAYS = 1_000
_DAY_S = 86_400
_CORES = (2, 16, 128, 1024)


@dataclass(frozen=True)
class Prices:
    """What is assumed, for it depends on whose machines they are."""

    core_hour: float
    network_mb_s: float  # to each node
    cores_per_node: int


def plan_of(measured: dict[str, Any], prices: Prices) -> dict[str, Any]:
    """Work out both archives; frames of every measured clip in turn, for decoding depends on the film."""
    core_ms = measured["core_ms"]
    shared = {"prepare": core_ms["prepare"], "recognise": core_ms["recognise"]}
    pictures = {"decode": core_ms["decode_picture"], **shared}
    works = {
        "10 million pictures": _work(
            _PICTURES, pictures, _PICTURES * measured["picture_bytes"], prices
        )
    }
    for name, about in measured["films"].items():
        seconds = _CAMERA_DAYS * _DAY_S
        size = seconds * about["mbit_per_s"] * 1e6 / 8
        decode = core_ms[f"decode_frame of {name}"]
        for rate, what in ((about["fps"], "every frame"), (1.0, "a frame a second")):
            frames = seconds * about["fps"]
            share = rate / about["fps"]
            stages = {"decode": decode, **{key: value * share for key, value in shared.items()}}
            title = f"1,000 camera-days like {name} ({about['size']}, {about['fps']:g} fps), {what}"
            works[title] = _work(round(frames), stages, size, prices)
    return {"assumed": asdict(prices), "works": works}


def plan_table(plan: dict[str, Any]) -> str:
    """Markdown of a plan."""
    rows, keys = [], ("terabytes", "core_hours", "cost")
    for title, work in plan["works"].items():
        hours = ", ".join(f"{work['hours_by_cores'][str(cores)]:.1f}" for cores in _CORES)
        numbers = *(work[key] for key in keys), hours, work["node_mb_s"]
        rows.append((short_title(title), *numbers, work["bottleneck"]))
    hours = f"hours on {', '.join(f'{cores:,}' for cores in _CORES)} cores"
    head = "archive", "TB", "core hours", "cost", hours, "MB/s to a node", "bottleneck"
    return markdown_table(head, rows, numbers=(1, 2, 3, 5))


def short_title(title: str) -> str:
    """A work without the name of the film that was measured."""
    size_fps = re.compile(r"like \S+ \((\S+), ([\d.]+) fps\)")
    return size_fps.sub(lambda found: f"of {found[1]} at {float(found[2]):.0f} fps", title)


def _work(count: int, stages_ms: dict[str, float], size: float, prices: Prices) -> dict[str, Any]:
    """What `count` pictures or frames take."""
    core_hours = count * sum(stages_ms.values()) / 3.6e6
    network_hours = size / 1e6 / prices.network_mb_s / 3600  # of one node's link
    hours = {}
    for cores in _CORES:
        nodes = max(1, cores // prices.cores_per_node)
        hours[str(cores)] = round(max(core_hours / cores, network_hours / nodes), 1)
    per_node = core_hours / prices.cores_per_node
    slowest = max(stages_ms, key=lambda name: stages_ms[name])
    return {
        "count": count,
        "terabytes": round(size / 1e12, 2),
        "core_ms_each": {name: round(value, 3) for name, value in stages_ms.items()},
        "core_hours": round(core_hours),
        "cost": round(core_hours * prices.core_hour),
        "hours_by_cores": hours,
        "node_mb_s": round(size / 1e6 / (per_node * 3600), 1),  # that keep a node's cores busy
        "bottleneck": "network" if network_hours > per_node else slowest,
    }
