"""The table and the picture of docs/teach.md, from the stored record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MARKS = "<!-- teach -->\n", "<!-- end -->"
_PARTS = {"scenes": "ContextScenes", "photos": "photos of COCO"}


def means(part: dict[str, Any]) -> list[tuple[int, float, float]]:
    """Pictures with the label at most, mean average precision, and its share of full training's."""
    full = float(np.mean([row["full"] for row in part["labels"]]))
    found = []
    for i, lesson in enumerate(part["labels"][0]["taught"]):
        mean = float(np.mean([row["taught"][i]["ap"] for row in part["labels"]]))
        most = max(row["taught"][i]["positives"] for row in part["labels"])
        found.append((max(most, lesson["positives"]), mean, mean / full))
    return found


def table(record: dict[str, Any]) -> str:
    """Markdown: a row for each part and number of pictures."""
    lines = [
        "| | pictures with the label | without | mAP of ten labels | of full training |",
        "|---|---|---|---|---|",
    ]
    for name, title in _PARTS.items():
        part = record[name]
        full = float(np.mean([row["full"] for row in part["labels"]]))
        for i, (_, mean, share) in enumerate(means(part)):
            lessons = [row["taught"][i] for row in part["labels"]]
            counts = sorted({lesson["positives"] for lesson in lessons})
            said = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            lines.append(
                f"| {title} | {said} | {lessons[0]['negatives']} | {mean:.1f} | {share:.0%} |"
            )
        lines.append(f"| {title} | full training | | {full:.1f} | |")
    return "\n".join(lines)


def fill_page(page: str, text: str) -> str:
    """The page with `text` between its marks."""
    before, rest = page.split(MARKS[0])
    return f"{before}{MARKS[0]}{text}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}"


def plot(record: dict[str, Any], path: Path) -> None:
    """Average precision of every label, by pictures."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(_PARTS), figsize=(11, 4), sharey=True)
    for ax, (name, title) in zip(axes, _PARTS.items(), strict=True):
        rows = record[name]["labels"]
        places = np.arange(len(rows))
        steps = len(rows[0]["taught"])
        for i, color in enumerate(plt.get_cmap("Greens")(np.linspace(0.35, 0.85, steps))):
            values = [row["taught"][i]["ap"] for row in rows]
            wanted = ("10", "20", "50")[i]
            ax.bar(places + 0.25 * (i - 1), values, 0.25, color=color, label=f"from {wanted}")
        full = [row["full"] for row in rows]
        ax.plot(places, full, "_", color="black", ms=22, mew=2, label="full training")
        ax.set_xticks(places, [row["label"] for row in rows], rotation=45, ha="right")
        ax.set_title(title)
    axes[0].set_ylabel("average precision, %")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
