"""Tables and plots of peers.json; every number on them is in it, or a ratio of two that are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

from benchmarks.peers.routes import FLOORS, OURS, PEERS
from cmlr_edge.model.files import write_atomically

# With 80 labels: ours over the backbone at most, and the peer over ours at least.
GOALS = {
    "lite0-224": (1.15, 1.35),
    "mobilenetv3-224": (None, 1.35),
    "resnet50-448": (1.05, 1.25),
    "resnet101-448": (1.05, 1.15),
}
INT8_GOAL = 1.5
LABEL_GOALS = {("lite0-224", 600): 1.5, ("lite0-224", 1200): 2.0}  # at most, against 80 labels
_PRECISIONS = ("ort-f32", "openvino-f32", "openvino-bf16")


def write_report(folder: Path) -> None:
    """Write peers.md, routes.png and labels.png beside peers.json."""
    report = json.loads((folder / "peers.json").read_text())
    comparisons = report["comparisons"]
    write_atomically(folder / "peers.md", tables(comparisons).encode())
    _plot_routes(comparisons, folder / "routes.png")
    _plot_labels(comparisons, folder / "labels.png")


def tables(comparisons: dict[str, Any]) -> str:
    """All tables in Markdown."""
    parts = _times_table, _ratio_table, _int8_table, _labels_table
    return "\n".join(line for part in parts for line in [*part(comparisons), ""])


def _times_table(comparisons: dict[str, Any]) -> list[str]:
    timed = {name for record in comparisons.values() for name in record["routes"]}
    names = [name for name in (*PEERS, *OURS, *FLOORS) if name in timed]
    lines = [f"| network, labels | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    for record in comparisons.values():
        cells = [
            "{p50:.2f} ({min:.2f})".format(**record["routes"][name])
            if name in record["routes"]
            else "-"
            for name in names
        ]
        lines.append(f"| {record['network']}, {record['labels']} | {' | '.join(cells)} |")
    return [
        "Medians, and minima in brackets, in ms, from a BGR frame 640 x 480 to labels:",
        "",
        *lines,
    ]


def _ratio_table(comparisons: dict[str, Any]) -> list[str]:
    """Ours over the floor, and the peer over ours, in the same engine and precision."""
    head = [
        "network, labels",
        "engine",
        "ours / backbone",
        "peer / ours",
        "goals: at most / at least",
    ]
    head += ["decisions that differ: ours, peer"]
    lines = [f"| {' | '.join(head)} |", "|---|---|--:|--:|--:|--:|"]
    for record in comparisons.values():
        routes = record["routes"]
        for engine in _PRECISIONS:
            ours, peer, bare = f"ours-{engine}", engine, f"bare-{engine}"
            if not {ours, peer, bare} <= set(routes):
                continue
            over_bare, over_ours = ratio(routes, ours, bare), ratio(routes, peer, ours)
            flips = ", ".join(
                f"{routes[name]['decisions_that_differ']} of {routes[name]['decisions']}"
                for name in (ours, peer)
            )
            goals = GOALS.get(record["network"], ()) if record["labels"] == 80 else ()
            wanted = " / ".join(f"{goal:.2f}" if goal else "-" for goal in goals) or "-"
            lines.append(
                f"| {record['network']}, {record['labels']} | {engine} | {over_bare} | {over_ours} "
                f"| {wanted} | {flips} |"
            )
    note = "Ratios of medians, in brackets of minima:"
    return [note, "", *lines]


def _int8_table(comparisons: dict[str, Any]) -> list[str]:
    lines = ["| network, labels | int8 | best other of ours | other / int8 |", "|---|---|---|--:|"]
    for record in comparisons.values():
        routes = record["routes"]
        if found := best_of_ours(routes):
            other, int8 = found
            lines.append(
                f"| {record['network']}, {record['labels']} | {int8} | {other} "
                f"| {ratio(routes, other, int8)} |"
            )
    return [
        f"int8 against our best other precision; goal with resnet50-448: {INT8_GOAL}:",
        "",
        *lines,
    ]


def best_of_ours(routes: dict[str, Any]) -> tuple[str, str] | None:
    """Our fastest route without int8 and with it, by medians; None where either was not timed."""
    ours = sorted((n for n in routes if n in OURS), key=lambda name: float(routes[name]["p50"]))
    other = next((name for name in ours if "int8" not in name), None)
    int8 = next((name for name in ours if "int8" in name), None)
    return (other, int8) if other and int8 else None


def _labels_table(comparisons: dict[str, Any]) -> list[str]:
    """What further labels cost, beside 80 of them."""
    lines = ["| network | labels | route | against 80 labels | goal |", "|---|--:|---|--:|--:|"]
    for record in comparisons.values():
        network, labels = record["network"], record["labels"]
        few = comparisons.get(f"{network}-80", {"routes": {}})["routes"]
        for name in OURS:
            if labels > 80 and name in record["routes"] and name in few:
                both = {"many": record["routes"][name], "few": few[name]}
                goal = LABEL_GOALS.get((network, labels), "-")
                cost = ratio(both, "many", "few")
                lines.append(f"| {network} | {labels} | {name} | {cost} | {goal} |")
    return ["What labels cost:", "", *lines]


def ratio(routes: dict[str, Any], above: str, below: str) -> str:
    """Of two routes: medians, and minima."""
    values = [routes[above][key] / routes[below][key] for key in ("p50", "min")]
    return f"{values[0]:.2f} ({values[1]:.2f})"


def _plot_routes(comparisons: dict[str, Any], path: Path) -> None:
    records = [r for r in comparisons.values() if r["labels"] == 80]
    if not records:
        return
    figure, axes = plt.subplots(
        1,
        len(records),
        figsize=(max(6.4, 3.2 * len(records)), 3.6),
        squeeze=False,
        layout="constrained",
    )
    for axis, record in zip(axes[0], records, strict=True):
        names = [n for n in (*PEERS, *OURS, *FLOORS) if n in record["routes"]]
        colors = ["C0" if n in PEERS else "C2" if n in OURS else "0.7" for n in names]
        values = [record["routes"][n]["p50"] for n in names]
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
        axis.invert_yaxis()
        axis.set_title(record["network"], fontsize=9)
        axis.set_xlabel("median, ms", fontsize=8)
        axis.tick_params(labelsize=7, labelleft=axis is axes[0][0])
        axis.margins(x=0.2)
    figure.suptitle("Frame to 80 labels: peers, ours, and the bare backbone", fontsize=10)
    _save(figure, path)


def _plot_labels(comparisons: dict[str, Any], path: Path) -> None:
    figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
    for name in (*_PRECISIONS, *OURS):
        points = sorted(
            (record["labels"], record["routes"][name]["p50"])
            for record in comparisons.values()
            if record["network"] == "lite0-224" and name in record["routes"]
        )
        if points:
            style = "-o" if name in OURS else "--x"
            axis.plot(*zip(*points, strict=True), style, label=name)
    axis.set(xlabel="labels", ylabel="median, ms", ylim=(0, None))
    axis.set_title("EfficientNet-Lite0 at 224: what labels cost", fontsize=10)
    axis.legend(fontsize=7)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
    plt.close(figure)
