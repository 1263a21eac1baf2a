"""A folder per class: torchvision's ImageFolder, YOLO's classification data, Roboflow's folder export.

`train/dog/1.jpg`, `valid/dog/2.jpg`; or `dog/1.jpg` without splits. Every picture has the one label of its folder, and
all others count as absent: such data cannot say that two are there.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from train.data.base import LabeledImages
from train.data.entries import (
    Entry,
    folders_in,
    from_entries,
    is_picture,
    pictures_below,
    split_of,
    tells_split,
)

# Folders that tools put pictures or labels into: no classes.
_NO_CLASSES = {"images", "labels", "annotations", "data", "img", "masks"}
_log = logging.getLogger(__name__)


def is_class_folders(root: Path) -> bool:
    """Whether at least two folders, below those of splits if there are, hold pictures directly."""
    folders = [folder for _, folder in _class_folders(root) if folder.name not in _NO_CLASSES]
    sure = {f.name for f in folders if f.parent != root or not tells_split(f.name)}
    return len({f.name for f in folders if f.name in sure and _has_pictures(f)}) >= 2


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    """The split and folder of every class.

    A folder `train` is a split if folders with pictures are in it; else it is of pictures of trains.
    """
    splits = [folder for folder in folders_in(root) if tells_split(folder.name)]
    if any(_has_pictures(folder) for split in splits for folder in folders_in(split)):
        return [(split_of(s.name), folder) for s in splits for folder in folders_in(s)]
    return [("train", folder) for folder in folders_in(root)]


def _has_pictures(folder: Path) -> bool:
    """Whether pictures lie in a folder, and none has a text file beside it: those hold boxes."""
    with os.scandir(folder) as items:
        paths = [Path(item.name) for item in items]
    stems = {path.stem for path in paths if is_picture(path)}
    return bool(stems) and not stems & {path.stem for path in paths if path.suffix == ".txt"}


def read_class_folders(root: Path) -> LabeledImages:
    """Read a folder per class.

    Raises:
        DataError: A class has an unusable name, or a picture is in two splits.
    """
    folders = [(s, f) for s, f in _class_folders(root) if f.name not in _NO_CLASSES]
    for folder in {folder for _, folder in folders if folder.parent == root}:
        if tells_split(folder.name):
            _log.warning("folder %r is a label, no split: pictures lie directly in it", folder.name)
    entries = [
        Entry(picture, split, (folder.name,), str(folder))
        for split, folder in folders
        for picture in pictures_below(folder)
    ]
    return from_entries(root, entries, sorted({folder.name for _, folder in folders}), root)
