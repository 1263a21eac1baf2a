"""The tables of docs/why.md, made of the stored JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.records import markdown_table

RESULTS = Path(__file__).parents[1] / "results" / "why"
_PARTS = {"iid": "as in training", "do": "context set from outside"}
_SHOWN_MARGINS = (-2.0, -1.0, 0.0, 1.0, 2.0, 4.0)


def read(name: str) -> Any:
    """One of the stored files."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def sums_table() -> str:
    """Every head, and how far its sum is from its score's logit in both runtimes."""
    runtimes = "cpu", "openvino"
    rows = [
        (name, *("no sum" if "no_sum" in found else f"{found[r]['largest']:.1e}" for r in runtimes))
        for name, found in read("sums")["heads"].items()
    ]
    return markdown_table(("head", "ONNX Runtime", "OpenVINO"), rows)


def sums_sentence() -> str:
    """The largest of all."""
    return f"The largest is {read('sums')['largest']:.1e}."


def cost_table() -> str:
    """Time of a picture without explanations in the file, with them and not asked, and asked."""
    found = read("cost")["lite0"]
    rows = []
    for provider, name in (("cpu", "ONNX Runtime"), ("openvino", "OpenVINO")):
        run = found[provider]
        shown = [
            "x {:.3f} [{:.3f}, {:.3f}]".format(run[key]["median_ratio"], *run[key]["interval"])
            for key in ("not asked", "asked")
        ]
        rows.append((name, f"{run['exported without']['median_ms']:.1f}", *shown))
    return markdown_table(("runtime", "exported without, ms", "not asked", "asked"), rows)


def pointing_table() -> str:
    """Shares of labels whose map has its maximum inside the label's box, with intervals."""
    summary = read("scenes")["summary"]
    rows, maps = [], ("attention", "Grad-CAM", "a random cell")
    for part, name in _PARTS.items():
        pointing = summary[part]["pointing"]
        rows.append((name, summary[part]["labels"], *(_interval(pointing[key]) for key in maps)))
    return markdown_table(("scenes", "labels", *maps), rows)


def flag_table() -> str:
    """Precision and recall of the flag as a finder of false alarms, by margin."""
    summary = read("scenes")["summary"]
    rows = []
    for index, point in enumerate(summary["do"]["curve"]):
        if point["margin"] not in _SHOWN_MARGINS:
            continue
        iid = summary["iid"]["curve"][index]
        of_do = point["flagged"], _interval(point["precision"]), _interval(point["recall"])
        of_iid = iid["flagged"], _interval(iid["precision"])
        rows.append((f"{point['margin']:g}", *of_do, *of_iid))
    head = "margin", "flagged, set", "false, of these", "of all false alarms", "flagged, as trained"
    return markdown_table((*head, "false, of these"), rows)


def _interval(found: dict[str, Any]) -> str:
    low, high = (max(0.0, min(1.0, value)) for value in found["interval"])
    return f"{found['mean']:.0%} [{low:.0%}, {high:.0%}]"


def pointing_sentence() -> str:
    """Whether attention and Grad-CAM differ, in points."""
    parts = []
    for part, name in _PARTS.items():
        gain = read("scenes")["summary"][part]["attention less Grad-CAM"]
        low, high = (100 * value for value in gain["interval"])
        parts.append(f"{100 * gain['mean']:+.0f} points [{low:+.0f}, {high:+.0f}] ({name})")
    return f"Attention less Grad-CAM: {', '.join(parts)}."


def flag_sentence() -> str:
    """What the flag adds to chance, at the default margin."""
    summary = read("scenes")["summary"]["do"]
    [at_zero] = [point for point in summary["curve"] if point["margin"] == 0]
    return (
        f"With the context set, {summary['share_false']:.0%} of the {summary['said']} labels that are said "
        f"are false; of those flagged at margin 0, {at_zero['precision']['mean']:.0%} are, and they "
        f"are {at_zero['recall']['mean']:.0%} of all false alarms."
    )


def cost_sentence() -> str:
    """Under what the times were taken."""
    found = read("cost")
    return (
        f"Measured on two cores, at a load of {found['load']:.1f} before it. The file grows from "
        f"{found['lite0']['bytes']['without'] / 1e6:.2f} to {found['lite0']['bytes']['with'] / 1e6:.2f} MB."
    )
