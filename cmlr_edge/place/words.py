"""A place in words and numbers, made of what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmlr_edge.machine.clocks import local_time
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place.histogram import distance
from cmlr_edge.place.store import StoredPlace
from cmlr_edge.wording import counted

_NAMED = 3  # labels of a confounder
_TOLD = 5  # confounders of an event


def speaks_for(training: TrainedSurroundings, labels: Sequence[str]) -> tuple[str, ...]:
    """The labels that each confounder speaks for most, (K,); confounders have no names of their own."""
    weight = np.array(training.weight)  # (K, L)
    weight = weight - weight.mean(axis=0)
    found = []
    for row in weight:
        best = np.argsort(-row, kind="stable")[:_NAMED]
        found.append(", ".join(labels[i] for i in best if row[i] > 0))
    return tuple(found)


def record_of(place: StoredPlace) -> dict[str, Any]:
    """A place for programs: how far it is from training, and in what; plain numbers and text."""
    trained = np.array(place.trained)
    mean = np.mean(place.blocks, axis=0) if place.blocks else trained
    order = np.argsort(-np.abs(mean - trained), kind="stable")[:_TOLD]
    since = place.unlike_since
    return {
        "source": place.source,
        "blocks": place.num_blocks,
        "block_s": place.block_s,
        "distance": round(distance(mean, trained), 4) if place.blocks else None,
        "statistic": round(place.statistic, 3),
        "threshold": round(place.threshold, 3),
        "false_alarms_a_day": place.false_alarms_a_day,
        "unlike_since": None if since is None else round(since, 1),
        "surroundings": [
            {
                "confounder": int(i),
                "speaks_for": place.speaks_for[i],
                "here": round(float(mean[i]), 4),
                "in_training": round(float(trained[i]), 4),
            }
            for i in order
        ],
    }


def sentences_of(place: StoredPlace) -> list[str]:
    """A place for people, a line each."""
    record, hours = record_of(place), place.num_blocks * place.block_s / 3600
    lines = [
        f"{place.source}: {_verdict(place)}",
        f"  {counted(place.num_blocks, 'block')} of {place.block_s:g} s ({hours:.1f} h); training: {place.model}",
    ]
    if record["distance"] is None:
        return lines
    lines.append(
        f"  distance {record['distance']:.2f} (0: the same mix of surroundings, 1: nothing in common); test "
        f"{record['statistic']:.2f}, an alarm above {record['threshold']:.2f}"
    )
    for item in record["surroundings"]:
        more = "more" if item["here"] > item["in_training"] else "less"
        what = f" (speaks for {item['speaks_for']})" if item["speaks_for"] else ""
        lines.append(
            f"  {more} of surroundings {item['confounder']}{what}: {item['here']:.0%}, in training "
            f"{item['in_training']:.0%}"
        )
    return lines


def _verdict(place: StoredPlace) -> str:
    if place.unlike_since is not None:
        since = local_time(place.unlike_since, "%Y-%m-%d %H:%M")
        return f"unlike what training saw, since {since}"
    if not place.statistic:
        return "too few blocks to say whether it is like what training saw"
    return "like what training saw, as far as can be told"
