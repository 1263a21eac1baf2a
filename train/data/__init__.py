"""Labelled pictures from the layouts people have; `read_dataset` tells them apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cmlr_edge.errors import DataError
from train.data.base import ContextBias, LabeledImage, LabeledImages
from train.data.coco import read_coco
from train.data.coco_stuff import read_coco_stuff
from train.data.deepfashion import read_deepfashion
from train.data.labels_csv import read_labels_csv
from train.data.labels_json import read_labels_json
from train.data.nus_wide import read_nus_wide

__all__ = ["ContextBias", "LabeledImage", "LabeledImages", "read_dataset"]

# What gives a layout away (a glob below the data folder), and who reads it.
_LAYOUTS: dict[str, Callable[[Path], LabeledImages]] = {
    "labels.json": read_labels_json,
    "labels.csv": read_labels_csv,
    "annotations/instances_*.json": read_coco,
    "stuffthingmaps": read_coco_stuff,
    "Anno*/list_attr_img.txt": read_deepfashion,
    "ImageList/TrainImagelist.txt": read_nus_wide,
}


def read_dataset(root: Path) -> LabeledImages:
    """Read a data folder in any of the layouts that `docs/datasets.md` describes.

    Raises:
        DataError: It has none of the layouts, or two, or what is there contradicts itself.
    """
    if not root.is_dir():
        raise DataError(f"no data folder at {root}: expected a folder with labels.json in it")
    found = [pattern for pattern in _LAYOUTS if any(root.glob(pattern))]
    if not found:
        raise DataError(
            f"{root} holds neither {' nor '.join(_LAYOUTS)}: see docs/datasets.md for the layouts"
        )
    if len(found) > 1:
        raise DataError(
            f"{root} holds {' and '.join(found)}, two data sets in one folder: give each a folder "
            "of its own; links to the same pictures will do"
        )
    return _LAYOUTS[found[0]](root)
