"""The table and the picture of docs/teach.md, from the stored record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.records import fill_marks, markdown_table

_PARTS = {"scenes": "ContextScenes", "photos": "photos of COCO"}


def _measured(record: dict[str, Any]) -> dict[str, str]:
    return {name: title for name, title in _PARTS.items() if name in record}


def full_mean(part: dict[str, Any]) -> float:
    """Mean average precision of full training."""
    return float(np.mean([row["full"] for row in part["labels"]]))


def means(part: dict[str, Any]) -> list[tuple[str, float]]:
    """For each number of pictures: how many had the label, in words, and mean average precision."""
    found = []
    for i in range(len(part["labels"][0]["taught"])):
        lessons = [row["taught"][i] for row in part["labels"]]
        counts = sorted({lesson["positives"] for lesson in lessons})
        said = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        found.append((said, float(np.mean([lesson["ap"] for lesson in lessons]))))
    return found


def table(record: dict[str, Any]) -> str:
    """Markdown: a row for each part and number of pictures."""
    lines: list[tuple[object, ...]] = []
    for name, title in _measured(record).items():
        part = record[name]
        full, rows = full_mean(part), part["labels"]
        without = rows[0]["taught"][0]["negatives"]
        lines += [
            (title, len(rows), said, without, f"{mean:.1f}", f"{mean / full:.0%}")
            for said, mean in means(part)
        ]
        lines.append((title, len(rows), "full training", "", f"{full:.1f}", ""))
    head = "", "labels", "pictures with the label", "without", "mAP", "of full training"
    return markdown_table(head, lines)


def fill_page(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    return fill_marks(page, {"teach": text})


def plot(record: dict[str, Any], path: Path) -> None:
    """Average precision of every label, by pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    parts = _measured(record)
    figure, grid = plt.subplots(1, len(parts), figsize=(11, 4), sharey=True, squeeze=False)
    axes = grid[0]
    for ax, (name, title) in zip(axes, parts.items(), strict=True):
        part, rows = record[name], record[name]["labels"]
        places, said = np.arange(len(rows)), [words for words, _ in means(part)]
        colors = plt.get_cmap("Greens")(np.linspace(0.35, 0.85, len(said)))
        for i, (words, color) in enumerate(zip(said, colors, strict=True)):
            values = [row["taught"][i]["ap"] for row in rows]
            beside = 0.25 * (i - (len(said) - 1) / 2)
            ax.bar(places + beside, values, 0.25, color=color, label=f"from {words}")
        full = [row["full"] for row in rows]
        ax.plot(places, full, "_", color="black", ms=22, mew=2, label="full training")
        ax.set_xticks(places, [row["label"] for row in rows], rotation=45, ha="right")
        ax.set_title(title)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("average precision, %")
    axes[0].set_ylim(0, 130)  # room for the legends
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
