"""Pictures of one's own with their labels, in each of the layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8))


def write(
    root: Path, layout: str, pictures: list[tuple[str, str]], classes: list[Any] | None = None
) -> Path:
    """Pictures as (file, split), all with the first class, in one of the layouts of own data."""
    classes = ["cat", "dog"] if classes is None else classes
    root.mkdir(parents=True, exist_ok=True)
    if layout == "json":
        images = [{"file": f, "split": s, "labels": classes[:1]} for f, s in pictures]
        (root / "labels.json").write_text(json.dumps({"classes": classes, "images": images}))
    elif layout == "csv":
        lines = ["file,split,labels", *(f"{file},{split},{classes[0]}" for file, split in pictures)]
        (root / "labels.csv").write_text("\n".join(lines) + "\n")
        (root / "classes.txt").write_text("\n".join(classes) + "\n")
    else:
        write_coco(root, pictures, [{"id": i, "name": c} for i, c in enumerate(classes)])
    return root


def write_coco(root: Path, pictures: list[tuple[str, str]], categories: list[Any]) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    for split in {split for _, split in pictures}:
        files = [file for file, other in pictures if other == split]
        record = {
            "categories": categories,
            "images": [{"id": i, "file_name": file} for i, file in enumerate(files)],
            "annotations": [{"id": i, "image_id": i, "category_id": 0} for i in range(len(files))],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(record))


def draw_all(root: Path, layout: str, *names: str) -> None:
    for name in names:
        for folder in ("train", "val") if layout == "coco" else (".",):
            draw(root / folder / name)
