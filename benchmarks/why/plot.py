"""What came out of the scenes, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.records import picture

_NAMES = {"iid": "as in training", "do": "context set from outside"}


def plot_flag(summary: dict[str, Any], path: Path) -> None:
    """Draw precision and recall of the flag over its margin, and the pointing game beside it."""
    with picture(path, 110, columns=2, figsize=(10, 3.6)) as (curve, game):
        for part, color in zip(_NAMES, ("tab:grey", "tab:blue"), strict=True):
            points = summary[part]["curve"]
            recall = [point["recall"]["mean"] for point in points]
            precision = [point["precision"]["mean"] for point in points]
            curve.plot(recall, precision, "o-", color=color, markersize=4, label=_NAMES[part])
            [middle] = [i for i, point in enumerate(points) if point["margin"] == 0]
            curve.plot(recall[middle], precision[middle], "o", color=color, markersize=9)
            curve.axhline(summary[part]["share_false"], color=color, linestyle=":", linewidth=1)
        curve.set_xlabel("of the false alarms, flagged")
        curve.set_ylabel("of what is flagged, false")
        curve.set_title(
            "The flag over its margin; large: margin 0; dotted: without a flag", fontsize=9
        )
        curve.set_xlim(0, 1)
        curve.set_ylim(0, 1)
        curve.legend(fontsize=8)
        names = ("attention", "Grad-CAM", "a random cell")
        for row, part in enumerate(_NAMES):
            for place, name in enumerate(names):
                found = summary[part]["pointing"][name]
                low, high = found["interval"]
                game.barh(
                    place + 0.4 * row,
                    found["mean"],
                    height=0.36,
                    color=("tab:grey", "tab:blue")[row],
                    xerr=[[found["mean"] - low], [high - found["mean"]]],
                )
        game.set_yticks([place + 0.2 for place in range(len(names))], names)
        game.set_xlim(0, 1)
        game.set_title("The map's maximum is inside the label's box", fontsize=9)
