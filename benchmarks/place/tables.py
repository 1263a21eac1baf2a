"""The tables of docs/place.md, made of the stored JSON files; `python -m benchmarks.place.tables` prints them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.place.alarms import DEFAULT_RATE, HOURS, RATES, SIZES, STAYS
from benchmarks.place.shifted import AVERAGED, OWN, READOUTS, SHIFTS
from benchmarks.records import markdown_table

RESULTS = Path(__file__).parents[1] / "results" / "place"


def read(name: str) -> Any:
    """One of the stored files."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def prior_table() -> str:
    """Calibration error and F1 of each read-out, by shift."""
    head = "the place's contexts", "read-out", "calibration error", "F1 at stored thresholds"
    rows = []
    found = read("scenes")["prior"]
    for shift in SHIFTS:
        for readout in READOUTS:
            one = found[shift][readout]
            cells = [f"{one[name]['mean']:.3f} {_interval(one[name])}" for name in ("ece", "f1")]
            rows.append((shift, readout, *cells))
    return markdown_table(head, rows)


def gains_table() -> str:
    """What each read-out changes, against the same without the place."""
    rows = []
    found = read("scenes")["prior"]
    for shift in SHIFTS:
        for readout in READOUTS[2:]:
            base = OWN if readout.startswith(OWN) else AVERAGED
            changes = [found[shift][readout][f"{name} less {base}"] for name in ("ece", "f1")]
            cells = [f"{one['mean']:+.4f} {_interval(one, '+.4f')}" for one in changes]
            rows.append((shift, readout, base, *cells))
    head = "the place's contexts", "read-out", "against", "calibration error", "F1"
    return markdown_table(head, rows)


def false_table() -> str:
    """False alarms a day by what was asked for and how long a scene stays."""
    found = read("scenes")["alarms"]["false_alarms"]
    rows = [
        (
            f"{stay:g} block{'s' * (stay != 1)}",
            *(_rate(found[f"{stay:g}"][f"{r:g}"]) for r in RATES),
        )
        for stay in STAYS
    ]
    return markdown_table(("a scene stays", *(f"asked for {rate:g}" for rate in RATES)), rows)


def detection_table() -> str:
    """Shifts that are found, by their size."""
    rows = []
    found = read("scenes")["alarms"]["detection"]
    for size in (0.0, *SIZES):
        one = found[f"{size:g}"][f"{DEFAULT_RATE:g}"]
        cells = [f"{one[str(h)]['mean']:.0%} {_interval(one[str(h)], '.0%')}" for h in HOURS]
        rows.append((f"{size:.0%}", *cells))
    return markdown_table(("of one context, besides", *(f"within {h} h" for h in HOURS)), rows)


def others_sentence() -> str:
    """Places of the same contexts whose textures training did not see."""
    found = read("scenes")["alarms"]["other_photographs"]
    told = ", ".join(f"{found[str(h)]['mean']:.0%} within {h} h" for h in HOURS)
    return (
        f"Scenes of the same contexts, drawn evenly, on photographs that training did not have, are "
        f"{found['distance']['mean']:.2f} away, and those on its own photographs "
        f"{found['distance_of_like']['mean']:.2f}: streams of them are told to be unlike, {told}."
    )


def clips_table() -> str:
    """Each clip as a place."""
    rows = []
    for name, one in read("clips")["clips"].items():
        cells = [
            "never" if one[key] is None else f"{one[key]} blocks"
            for key in ("blocks_until_told", "blocks_until_told_after_a_day_of_photos")
        ]
        rows.append((name, f"{one['distance']:.2f}", *cells))
    head = "clip", "distance", "told after, from the start", "after a day of photos"
    return markdown_table(head, rows)


def clips_sentence() -> str:
    """What held-out photos say of false alarms."""
    found = read("clips")
    rates = found["false_alarms"]
    told = ", ".join(f"{rates[f'{rate:g}']:.3f} where {rate:g} is asked for" for rate in RATES)
    return (
        f"The {found['photos']['held_out']} photos that were held out, in any order, one a block, have a "
        f"distance of {found['distance_of_photos']:.2f} and give these alarms a day: {told}."
    )


def cost_sentence() -> str:
    """What watching costs."""
    found = read("cost")
    counted, averaged = (found[f"{way}, median ms"] for way in ("counted", "counted and averaged"))
    return (
        f"With {found['surroundings']} surroundings, {found['confounders']} confounders and "
        f"{found['labels']} labels a frame costs {averaged:.2f} ms so, at a load of {found['load']:.0f}, "
        f"and {counted:.2f} ms where it is only counted"
    )


def _interval(one: dict[str, Any], form: str = ".3f") -> str:
    low, high = one["interval"]
    if form.endswith("%"):
        low, high = (min(1.0, max(0.0, value)) for value in (low, high))
    return f"[{low:{form}}, {high:{form}}]"


def _rate(one: dict[str, Any]) -> str:
    low, high = (max(0.0, value) for value in one["interval"])
    return f"{one['mean']:.3f} [{low:.3f}, {high:.3f}]"


TABLES: dict[str, Callable[[], str]] = {
    "prior": prior_table,
    "gains": gains_table,
    "false alarms": false_table,
    "detection": detection_table,
    "others": others_sentence,
    "clips": clips_table,
    "photos": clips_sentence,
    "cost": cost_sentence,
}

if __name__ == "__main__":
    for name, make in TABLES.items():
        print(f"<!-- {name} -->\n{make()}\n")  # noqa: T201
