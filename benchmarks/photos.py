"""`python -m benchmarks.photos`: heads compared on real photos, on one frozen backbone.

Tokens are computed once, without augmentation, so that a head trains in seconds and several seeds
are affordable; the numbers are lower than those of a full training run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from benchmarks.context_bias.features import extract_tokens
from cmlr_edge.strict_json import write_atomically
from train.backbones import create_backbone
from train.bootstrap import mean_ap_interval
from train.config import ConfounderConfig, ModelConfig, TrainConfig
from train.datasets import read_dataset
from train.frozen import TokenSet, fit_head, prepare_tokens, score_tokens
from train.metrics import MIN_POSITIVES, average_precisions
from train.reporting import exit_on_error

_BASE = ModelConfig(
    backbone="tf_efficientnet_lite2",
    image_size=384,
    token_stages=2,
    standardize_tokens=True,
    intervention="none",
    dropout=0.2,
)
_RECIPE = TrainConfig(epochs=12, batch_size=32, gamma_negative=0.0, amp="bf16")
_EARLY = ConfounderConfig(kind="early")
_METHODS = {
    "standard (pooled)": replace(_BASE, head="pooled"),
    "label decoder": _BASE,
    "label decoder and pooled tokens": replace(_BASE, pooled_skip=True),
    "ML-Decoder": replace(_BASE, head="ml-decoder"),
    "matrix links, no confounders": replace(
        _BASE, intervention="back-door", confounders=ConfounderConfig(kind="none")
    ),
    "back-door, matrix links": replace(_BASE, intervention="back-door", confounders=_EARLY),
    "back-door, gated attention links": replace(
        _BASE, intervention="back-door", confounders=_EARLY, label_links="gated-attention"
    ),
    "back-door, matrix links, and pooled tokens": replace(
        _BASE, intervention="back-door", confounders=_EARLY, pooled_skip=True
    ),
}


@dataclass(frozen=True)
class Row:
    """One read-out of one method: mAP in percent over seeds."""

    method: str
    read_out: str
    median: float
    low: float  # of the seeds
    high: float
    images_low: float  # 95 % bootstrap interval over images, of the seeds' mean scores
    images_high: float


def compare(
    data: Annotated[Path, typer.Option(help="Photos with train and val split.")],
    out: Annotated[Path, typer.Option(help="Folder for results.json and table.md.")],
    seeds: Annotated[int, typer.Option(min=2, help="Trainings per method.")] = 5,
) -> None:
    """Compare heads on real photos with a frozen EfficientNet-Lite2.

    Example: python -m benchmarks.photos --data photos --out benchmarks/results/photos
    """
    photos = read_dataset(data)
    backbone = create_backbone(_BASE.backbone, _BASE.image_size, stages=2, pretrained=True).eval()
    parts = {
        split: TokenSet(
            extract_tokens(backbone, photos.split(split), _BASE, lambda _done: None),
            photos.split(split).targets(),
            backbone.finer_channels,
        )
        for split in ("train", "val")
    }
    rows: list[Row] = []
    for name in track(_METHODS, "training heads", console=Console(stderr=True)):
        rows += _rows(name, parts, seeds)
    _write(rows, out, {split: len(part.tokens) for split, part in parts.items()}, seeds)


def _rows(name: str, parts: dict[str, TokenSet], seeds: int) -> list[Row]:
    # Pooled heads learn too slowly at the common rate.
    lr = 1e-2 if _METHODS[name].head == "pooled" else _RECIPE.lr
    scores: dict[str, list[NDArray[np.float32]]] = {}
    for seed in range(seeds):
        config = replace(_RECIPE, model=_METHODS[name], seed=seed, lr=lr)
        head = fit_head(config, parts["train"], prepare_tokens(config, parts["train"]))
        found = score_tokens(head, parts["val"])
        if found.own_context is None or found.prior_context is None:
            scores.setdefault("deployed", []).append(found.deployed)
        else:
            scores.setdefault("prior", []).append(found.prior_context)
            scores.setdefault("own", []).append(found.own_context)
    targets = parts["val"].targets
    scored = targets.sum(axis=0) >= MIN_POSITIVES
    rows = []
    for read_out, tables in scores.items():
        maps = [100 * float(np.nanmean(average_precisions(t, targets)[scored])) for t in tables]
        mean_scores = np.mean(tables, axis=0)[:, scored]
        low, high = mean_ap_interval(mean_scores, targets[:, scored])
        rows.append(
            Row(name, read_out, float(np.median(maps)), min(maps), max(maps), 100 * low, 100 * high)
        )
    return rows


def _write(rows: list[Row], out: Path, counts: dict[str, int], seeds: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "images": counts,
        "seeds": seeds,
        "torch": torch.__version__,
        "rows": [vars(row) for row in rows],
    }
    write_atomically(out / "results.json", (json.dumps(record, indent=1) + "\n").encode())
    lines = [
        "| method, read-out | mAP, median | lowest - highest seed | 95 % over images, seeds' mean |",
        "|---|---|---|---|",
    ]
    for row in rows:
        name = row.method + ("" if row.read_out == "deployed" else f", {row.read_out} context")
        lines.append(
            f"| {name} | {row.median:.1f} | {row.low:.1f} - {row.high:.1f} "
            f"| {row.images_low:.1f} - {row.images_high:.1f} |"
        )
    write_atomically(out / "table.md", ("\n".join(lines) + "\n").encode())
    Console().print("\n".join(lines))


if __name__ == "__main__":
    with exit_on_error():
        typer.run(compare)
