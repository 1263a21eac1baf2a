"""Labelled pictures from the layouts people have; `read_dataset` tells them apart."""

from __future__ import annotations

from pathlib import Path

from cmlr_edge.errors import DataError
from train.datasets.base import LabeledImage, LabeledImages
from train.datasets.coco import read_coco
from train.datasets.labels_json import read_labels_json

__all__ = ["LabeledImage", "LabeledImages", "read_dataset"]


def read_dataset(root: Path) -> LabeledImages:
    """Read a folder with `labels.json`, or with COCO's `annotations/instances_*.json`.

    Raises:
        DataError: Neither is there, or what is there contradicts itself.
    """
    if not root.is_dir():
        raise DataError(f"no data folder at {root}: expected a folder with labels.json in it")
    if (root / "labels.json").is_file():
        return read_labels_json(root)
    if sorted((root / "annotations").glob("instances_*.json")):
        return read_coco(root)
    raise DataError(
        f"{root} holds neither labels.json nor annotations/instances_*.json: see the README for "
        "both layouts"
    )
