"""Every layout that a data folder may have: what gives it away, and who reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from cmlr_edge.capture.images import NO_FILMS
from cmlr_edge.errors import DataError
from cmlr_edge.machine.pillow import HEIC_REMEDY
from cmlr_edge.wording import counted
from train.data.base import LabeledImages
from train.data.class_folders import is_class_folders, read_class_folders
from train.data.coco import coco_files, read_coco
from train.data.coco_stuff import read_coco_stuff
from train.data.cvat import cvat_files, read_cvat
from train.data.deepfashion import read_deepfashion
from train.data.entries import is_picture, mentions
from train.data.fiftyone import (
    is_fiftyone,
    is_fiftyone_classification,
    read_fiftyone,
    read_fiftyone_classification,
)
from train.data.hf_folder import metadata_files, read_hf_folder
from train.data.label_studio import label_studio_files, read_label_studio
from train.data.labels_csv import read_labels_csv
from train.data.labels_json import read_labels_json
from train.data.nus_wide import read_nus_wide
from train.data.parquet import parquet_files, read_parquet
from train.data.roboflow import FILE as ROBOFLOW_CLASSES
from train.data.roboflow import read_roboflow_classes
from train.data.yolo import is_yolo, read_yolo

_MOST_WALKED = 20_000  # names, for a message


@dataclass(frozen=True)
class Layout:
    """One way to lay out a data set."""

    name: str
    given_away_by: str  # for messages
    is_here: Callable[[Path], bool]
    read: Callable[[Path], LabeledImages]
    weak: bool = False  # taken only where no other is found: its folders may hold anything


def _has(*patterns: str) -> Callable[[Path], bool]:
    return lambda root: any(any(root.glob(pattern)) for pattern in patterns)


def _is_own_json(root: Path) -> bool:
    """Whether `labels.json` is not one of FiftyOne's."""
    path = root / "labels.json"
    others = is_fiftyone_classification(root) or mentions(path, '"categories"', '"annotations"')
    return path.exists() and not others


LAYOUTS = (
    Layout("own, JSON", "labels.json", _is_own_json, read_labels_json),
    Layout("own, table", "labels.csv", _has("labels.csv"), read_labels_csv),
    Layout(
        "COCO",
        "annotations/*.json or _annotations.coco.json",
        lambda root: bool(coco_files(root)),
        read_coco,
    ),
    Layout("COCO-Stuff", "stuffthingmaps", _has("stuffthingmaps"), read_coco_stuff),
    Layout(
        "DeepFashion", "Anno*/list_attr_img.txt", _has("Anno*/list_attr_img.txt"), read_deepfashion
    ),
    Layout(
        "NUS-WIDE",
        "ImageList/TrainImagelist.txt",
        _has("ImageList/TrainImagelist.txt"),
        read_nus_wide,
    ),
    Layout("YOLO detection", "data.yaml or classes.txt with labels/", is_yolo, read_yolo),
    Layout(
        "Roboflow classes",
        f"*/{ROBOFLOW_CLASSES}",
        _has(ROBOFLOW_CLASSES, f"*/{ROBOFLOW_CLASSES}"),
        read_roboflow_classes,
    ),
    Layout("CVAT for images", "annotations.xml", lambda root: bool(cvat_files(root)), read_cvat),
    Layout(
        "Label Studio",
        "*.json with a list of tasks",
        lambda root: bool(label_studio_files(root)),
        read_label_studio,
    ),
    Layout("FiftyOne", "samples.json and metadata.json", is_fiftyone, read_fiftyone),
    Layout(
        "FiftyOne classification",
        "labels.json and data/",
        is_fiftyone_classification,
        read_fiftyone_classification,
    ),
    Layout(
        "Hugging Face folder",
        "metadata.csv or metadata.jsonl",
        lambda root: bool(metadata_files(root)),
        read_hf_folder,
    ),
    Layout("Parquet", "*.parquet", lambda root: bool(parquet_files(root)), read_parquet),
    Layout(
        "folder per class",
        "a folder of pictures per class",
        is_class_folders,
        read_class_folders,
        weak=True,
    ),
)


def layout_of(root: Path) -> Layout:
    """Find out which layout a data folder has.

    Raises:
        DataError: It has none, or two.
    """
    if root.is_file():
        raise DataError(f"{root} is a file: give the folder with the pictures, here {root.parent}")
    if not root.is_dir():
        raise DataError(f"no data folder at {root}: expected one with pictures and their labels")
    found = [layout for layout in LAYOUTS if not layout.weak and layout.is_here(root)]
    found = found or [layout for layout in LAYOUTS if layout.weak and layout.is_here(root)]
    if not found:
        raise DataError(
            f"{root} holds {_some_pictures(root)} and nothing that tells their labels: add labels.csv with "
            "the heading file,split,labels; or put the pictures of each label into a folder named after "
            "it, of two labels at least; docs/datasets.md has what other tools write"
        )
    if len(found) > 1:
        signs = " and ".join(f"{layout.given_away_by} ({layout.name})" for layout in found)
        raise DataError(
            f"{root} holds {signs}, two data sets in one folder: give each a folder "
            "of its own; links to the same pictures will do"
        )
    return found[0]


def _some_pictures(root: Path) -> str:
    """How many pictures there are; a folder of anything is not walked to its end."""
    paths = [*islice(root.rglob("*"), _MOST_WALKED)]
    number = sum(map(is_picture, paths))
    phones = sum(path.suffix.lower() in NO_FILMS for path in paths)
    heic = f", {phones} of HEIC, which is not read ({HEIC_REMEDY})," if phones else ""
    return f"{counted(number, 'picture') if number else 'no pictures'}{heic}"


def read_dataset(root: Path) -> LabeledImages:
    """Read a data folder in any of the layouts that `docs/datasets.md` describes.

    Raises:
        DataError: It has none of the layouts, or two, or what is there contradicts itself.
    """
    return replace(layout_of(root).read(root), root=root)
