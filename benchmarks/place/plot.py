"""What came out of the scenes, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.place.alarms import DEFAULT_RATE, RATES, SIZES, STAYS
from benchmarks.place.shifted import AVERAGED, OWN, PLACE, SHIFTS
from benchmarks.records import picture

_COLORS = {OWN: "tab:grey", AVERAGED: "tab:orange", PLACE: "tab:blue"}


def plot_place(prior: dict[str, Any], alarms: dict[str, Any], path: Path) -> None:
    """Draw calibration by shift, detection by size, and false alarms by how long a scene stays."""
    with picture(path, 100, columns=3, figsize=(13, 3.6)) as (error, power, false):
        for offset, (name, color) in enumerate(_COLORS.items()):
            values = [prior[shift][name]["ece"]["mean"] for shift in SHIFTS]
            at = [i + 0.27 * (offset - 1) for i in range(len(SHIFTS))]
            error.bar(at, values, 0.25, color=color, label=name)
        error.set_xticks(
            range(len(SHIFTS)), [shift.replace(" ", "\n", 1) for shift in SHIFTS], fontsize=8
        )
        error.set_title("Expected calibration error by the place's contexts", fontsize=9)
        error.set_ylim(0, 1.5 * error.get_ylim()[1])  # room for the legend
        error.legend(fontsize=7)
        for hours, color in (("6", "tab:grey"), ("24", "tab:blue"), ("72", "tab:green")):
            shares = [
                alarms["detection"][f"{size:g}"][f"{DEFAULT_RATE:g}"][hours]["mean"]
                for size in SIZES
            ]
            power.plot(SIZES, shares, "o-", color=color, label=f"within {hours} h")
        power.set_xlabel("share of scenes that are of one context, besides")
        power.set_title(
            f"Shifts that are found, at {DEFAULT_RATE:g} false alarms a day", fontsize=9
        )
        power.set_ylim(0, 1.02)
        power.legend(fontsize=7)
        for stay in STAYS:
            measured = [alarms["false_alarms"][f"{stay:g}"][f"{rate:g}"]["mean"] for rate in RATES]
            false.plot(
                RATES, [max(value, 1e-3) for value in measured], "o-", label=f"{stay:g} blocks"
            )
        false.plot(RATES, RATES, "k:", linewidth=1)
        false.set_xscale("log")
        false.set_yscale("log")
        false.set_xlabel("asked for")
        false.set_title("False alarms a day, by how long a scene stays", fontsize=9)
        false.legend(fontsize=7)
