"""The pictures of `explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.files import write_atomically
from train.explaining.drawing import pyplot, save, shown

_PATCH, _STRIPS = 56, 3  # pixels; strips beside each other
_SHOWN = 12  # bars, and labels of the link map
# An effect on a probability below which colours and bars show nothing: no scale ends below it.
READABLE = 0.01


def draw_bars(
    rates: NDArray[np.float32],
    changes: NDArray[np.float32],
    labels: tuple[str, ...],
    cause: str,
    path: Path,
) -> None:
    """P(Y) in the data beside P(Y) moved by setting the cause, for the labels it moves most."""
    plt, cause = pyplot(), shown(cause)
    chosen = np.argsort(-np.abs(changes))[:_SHOWN]
    places = np.arange(len(chosen))
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.bar(places - 0.2, rates[chosen], 0.4, label="P(Y)")
    moved = np.clip(rates[chosen] + changes[chosen], 0, 1)
    axes.bar(places + 0.2, moved, 0.4, label=f"P(Y) + change by do({cause})")
    axes.set_xticks(places, [shown(labels[i]) for i in chosen], rotation=40, ha="right")
    axes.set(ylabel="probability", title=f"what {cause} moves{_too_weak(changes)}")
    axes.legend()
    save(plt, figure, path)


def draw_link_map(
    effects: NDArray[np.float32],
    together: NDArray[np.float32],
    labels: tuple[str, ...],
    path: Path,
) -> None:
    """The model's effects beside raw co-occurrence, for the labels with the strongest of either."""
    plt = pyplot()
    strength = np.maximum(np.abs(effects), np.abs(together))
    chosen = np.sort(np.argsort(-(strength.max(axis=0) + strength.max(axis=1)))[: 2 * _SHOWN])
    names = [shown(labels[i]) for i in chosen]
    figure, both = plt.subplots(1, 2, figsize=(13, 6), layout="constrained")
    titles = ("change of P(row) by do(column)", "P(row | column) - P(row | not column)")
    for axes, values, title in zip(both, (effects, together), titles, strict=True):
        view = values[np.ix_(chosen, chosen)]
        limit = max(float(np.abs(view).max()), READABLE)
        colours = axes.imshow(view, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_title(f"{title}{_too_weak(view)}", fontsize=10)
        figure.colorbar(colours, ax=axes, shrink=0.8)
    save(plt, figure, path)


def _too_weak(values: NDArray[np.float32]) -> str:
    strongest = float(np.abs(values).max(initial=0))
    return "" if strongest >= READABLE else f": too weak to read, at most {strongest:.0e}"


def draw_heat_maps(
    rows: list[list[tuple[NDArray[np.uint8], NDArray[np.float32], str]]], folder: Path
) -> None:
    """Rows of pictures (H, W, 3) RGB under heat maps in [0, 1], with titles, as heat_maps.png."""
    if not rows:
        return
    plt, path, columns = pyplot(), folder / "heat_maps.png", max(map(len, rows))
    size = (2.4 * columns, 2.7 * len(rows))
    figure, grid = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    figure.set_layout_engine("constrained")
    for axes in grid.flat:
        axes.axis("off")
    for line, items in zip(grid, rows, strict=True):
        for axes, (picture, heat, title) in zip(line, items, strict=False):
            size_wh = picture.shape[1], picture.shape[0]
            axes.imshow(picture)
            smooth = cv2.resize(heat, size_wh, interpolation=cv2.INTER_CUBIC)
            axes.imshow(smooth, cmap="jet", alpha=0.4, vmin=0, vmax=1)
            axes.set_title(title, fontsize=7)
    save(plt, figure, path)


def draw_company(found: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Scores of labels that are not there, with their usual company and without it, by network."""
    pairs = next(iter(found.values()), [])
    if not pairs:
        return
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    width, places = 0.8 / (2 * len(found)), np.arange(len(pairs))
    for number, (name, items) in enumerate(found.items()):
        for side, kind in enumerate(("with_company", "without_company")):
            at = places + (2 * number + side + 0.5) * width - 0.4
            values = [getattr(item, kind) for item in items]
            color = plt.get_cmap("tab20")(2 * number + side)
            axes.bar(
                at, values, width, label=f"{shown(name)}, {kind.replace('_', ' ')}", color=color
            )
    names = [f"{shown(item.label)}\n({shown(item.company)})" for item in pairs]
    axes.set_xticks(places, names, rotation=40, ha="right", fontsize=8)
    axes.set(ylabel="mean score", title="labels that are not there (their company)")
    axes.legend(fontsize=8)
    save(plt, figure, path)


def draw_patches(rows: list[list[NDArray[np.uint8]]], path: Path) -> None:
    """Patches of the same kind side by side: one strip per confounder, several strips a row."""
    gap = 8
    strips = []
    for patches in rows:
        cells = [cv2.resize(p, (_PATCH, _PATCH), interpolation=cv2.INTER_AREA) for p in patches]
        strips.append(np.hstack([*cells, np.full((_PATCH, gap, 3), 255, np.uint8)]))
    columns = min(_STRIPS, len(strips))
    strips += [np.full_like(strips[0], 255)] * (-len(strips) % columns)
    lines = [np.hstack(strips[i : i + columns]) for i in range(0, len(strips), columns)]
    spaced = [np.vstack([line, np.full((gap, line.shape[1], 3), 255, np.uint8)]) for line in lines]
    _, encoded = cv2.imencode(".png", np.vstack(spaced)[..., ::-1])
    write_atomically(path, encoded.tobytes())


def draw_scatter(
    features: NDArray[np.float32], names: list[str], confounders: NDArray[np.float32], path: Path
) -> None:
    """t-SNE of features (N, d), coloured by name, and of confounders (K, d), numbered from 0."""
    from sklearn.manifold import TSNE

    plt = pyplot()
    points = np.concatenate([features, confounders])
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 3))
    places = TSNE(perplexity=perplexity, random_state=0, init="pca").fit_transform(points)
    figure, axes = plt.subplots(figsize=(7, 6), layout="constrained")
    for name in sorted(set(names)):
        rows = [i for i, other in enumerate(names) if other == name]
        axes.scatter(places[rows, 0], places[rows, 1], s=12, label=shown(name))
    own = places[len(features) :]
    if len(own):
        axes.scatter(own[:, 0], own[:, 1], s=30, marker="x", color="black", label="confounders")
        for number, (x, y) in enumerate(own):
            axes.annotate(str(number), (x, y), fontsize=6)
    if len(set(names)) <= 2 * _SHOWN:
        axes.legend(fontsize=7, ncols=2)
    what = "label features and confounders" if len(own) else "label features"
    axes.set(title=f"{what} (t-SNE)", xticks=[], yticks=[])
    save(plt, figure, path)
