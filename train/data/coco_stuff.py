"""COCO-Stuff with the contextual-bias split (Singh et al., CVPR 2020): 171 labels, 20 biased pairs.

Layout: `train2014/` and `val2014/` (COCO-2014 pictures), `stuffthingmaps/{train2017,val2017}/` (the
COCO-Stuff 2017 pixel maps) and COCO-Stuff's `labels.txt`. A label is present in a picture if any
pixel of the map with the same image id has it. The benchmark tests on val2014, which is therefore
read as split test; a validation part comes from train where one is asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cmlr_edge.errors import DataError
from cmlr_edge.machine.opencv import opencv
from train.data.base import (
    ContextBias,
    LabeledImage,
    LabeledImages,
    count_splits,
    indices_of,
    name_of,
    read_text_lines,
    warn_if_partial,
)
from train.data.checks import check_classes, check_images
from train.data.label_cache import cached_labels

CACHE = "stuffthingmaps_labels.npz"
NUM_THINGS = 80  # the first labels; the rest is stuff
_UNLABELED = 255
_NUM_RAW_LABELS = 182
_PUBLISHED = {"train": 82783, "test": 40504}
_SPLITS = {"train2014": "train", "val2014": "test"}
# Listed in labels.txt, but never annotated.
_DROPPED = (
    "street sign",
    "hat",
    "shoe",
    "eye glasses",
    "plate",
    "mirror",
    "window",
    "desk",
    "door",
    "blender",
    "hair brush",
)
# (b, c) by name, and the indices that the benchmark publishes for them.
BIASED_PAIRS = {
    ("cup", "dining table"): (41, 60),
    ("wine glass", "person"): (40, 0),
    ("handbag", "person"): (26, 0),
    ("apple", "fruit"): (47, 110),
    ("car", "road"): (2, 137),
    ("bus", "road"): (5, 137),
    ("potted plant", "vase"): (58, 75),
    ("spoon", "bowl"): (44, 45),
    ("microwave", "oven"): (68, 69),
    ("keyboard", "mouse"): (66, 64),
    ("skis", "person"): (30, 0),
    ("clock", "building-other"): (74, 84),
    ("sports ball", "person"): (32, 0),
    ("remote", "person"): (65, 0),
    ("snowboard", "person"): (31, 0),
    ("toaster", "ceiling-other"): (70, 90),
    ("hair drier", "towel"): (78, 156),
    ("tennis racket", "person"): (38, 0),
    ("skateboard", "person"): (36, 0),
    ("baseball glove", "person"): (35, 0),
}


def read_coco_stuff(root: Path) -> LabeledImages:
    """Read the pictures of COCO-2014 with the labels of the COCO-Stuff pixel maps.

    The maps are read once and their labels kept in `CACHE` beside them.

    Raises:
        DataError: A missing folder or map, a damaged map, another `labels.txt`.
    """
    raw_names = _read_raw_names(root / "labels.txt")
    raw_labels = [k for k, name in enumerate(raw_names) if name not in _DROPPED]
    classes = check_classes([raw_names[k] for k in raw_labels], root / "labels.txt")
    bias = _context_bias(classes, root / "labels.txt")
    pictures = [
        (path, split) for name, split in _SPLITS.items() for path in _list_pictures(root, name)
    ]
    maps = _find_maps(root / "stuffthingmaps", [path for path, _ in pictures])
    presence = cached_labels(root / CACHE, maps, lambda: _read_presence(maps))[:, raw_labels]
    images = tuple(
        LabeledImage(path, split, tuple(np.flatnonzero(row).tolist()))
        for (path, split), row in zip(pictures, presence, strict=True)
    )
    data = LabeledImages(name_of(root), classes, images, bias, published=True)
    check_images(data, root, lambda i: str(images[i].path))
    warn_if_partial(data.name, count_splits(data), _PUBLISHED)
    return data


def _read_raw_names(path: Path) -> list[str]:
    """Name of every pixel value: value k is line k + 1, because line 0 is `unlabeled`."""
    lines = [line.partition(": ") for line in read_text_lines(path) if line.strip()]
    if [number for number, _, _ in lines] != [str(k) for k in range(_NUM_RAW_LABELS + 1)]:
        raise DataError(
            f"{path} should have the lines '0: unlabeled' to '{_NUM_RAW_LABELS}: ...' of "
            f"COCO-Stuff's labels.txt, got {len(lines)} other lines"
        )
    names = [name.strip() for _, _, name in lines[1:]]
    indices_of(_DROPPED, tuple(names), path)
    return names


def _context_bias(classes: tuple[str, ...], source: Path) -> ContextBias:
    for names, published in BIASED_PAIRS.items():
        if (found := tuple(indices_of(names, classes, source))) != published:
            raise DataError(
                f"{source} puts {' and '.join(names)} at {found}, the published list at "
                f"{published}: it is another list, download it again"
            )
    pairs = tuple(BIASED_PAIRS.values())
    biased = {b for b, _ in pairs}
    others = tuple(label for label in range(NUM_THINGS) if label not in biased)
    return ContextBias(pairs, others, "average precision")


def _list_pictures(root: Path, name: str) -> list[Path]:
    folder = next((p for p in (root / name, root / "images" / name) if p.is_dir()), root / name)
    if not (pictures := sorted(folder.glob("*.jpg"))):
        raise DataError(f"{folder} holds no .jpg pictures: put those of COCO-2014 {name} there")
    return pictures


def _find_maps(folder: Path, pictures: list[Path]) -> list[Path]:
    """Find the map with each picture's image id; COCO divided the ids anew between 2014 and 2017.

    Raises:
        DataError: Some have none.
    """
    maps: dict[str, Path] = {}
    for name in ("train2017", "val2017"):
        for path in folder.glob(f"{name}/*.png"):
            if (other := maps.setdefault(path.stem, path)) != path:
                raise DataError(f"{other} and {path} are maps of the same picture: keep one")
    ids = [_image_id(path) for path in pictures]
    _refuse_repeated_ids(ids, pictures)
    if missing := [path.name for path, key in zip(pictures, ids, strict=True) if key not in maps]:
        raise DataError(
            f"{len(missing)} of {len(pictures)} pictures have no map in {folder}/train2017 or "
            f"{folder}/val2017, first {', '.join(missing[:3])}: unpack "
            "stuffthingmaps_trainval2017.zip there"
        )
    return [maps[key] for key in ids]


def _refuse_repeated_ids(ids: list[str], pictures: list[Path]) -> None:
    """One id is one picture: in both splits it would be trained on and tested on."""
    first: dict[str, Path] = {}
    for key, path in zip(ids, pictures, strict=True):
        if (other := first.setdefault(key, path)) != path:
            raise DataError(f"{other} and {path} are the same picture, {key}: keep one of them")


def _image_id(path: Path) -> str:
    match = re.search(r"(\d{12})$", path.stem)
    if match is None:
        raise DataError(
            f"{path} is not named like a COCO picture: expected COCO_train2014_000000000009.jpg"
        )
    return match[1]


def _read_presence(maps: list[Path]) -> NDArray[np.bool_]:
    """(N, 182): whether any pixel has the value. Decoding releases the interpreter lock."""
    rows = np.zeros((len(maps), _NUM_RAW_LABELS), bool)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results: Iterator[NDArray[np.bool_]] = pool.map(_values_present, maps)
        console = Console(stderr=True)
        for row, present in zip(
            rows, track(results, "reading pixel maps", len(maps), console=console), strict=True
        ):
            row[:] = present
    return rows


def _values_present(path: Path) -> NDArray[np.bool_]:
    cv2 = opencv()
    encoded = np.fromfile(path, np.uint8)
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    except cv2.error:  # raised for sizes beyond OpenCV's limits
        pixels = None
    if pixels is None or pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise DataError(f"{path} is not a whole 8-bit grey PNG: unpack the pixel maps again")
    counts = np.bincount(pixels.ravel(), minlength=256)
    if unknown := np.flatnonzero(counts[_NUM_RAW_LABELS:_UNLABELED]).tolist():
        raise DataError(
            f"{path} has the pixel values {[v + _NUM_RAW_LABELS for v in unknown]}: COCO-Stuff "
            f"2017 has 0 to {_NUM_RAW_LABELS - 1}, and {_UNLABELED} for unlabeled"
        )
    present: NDArray[np.bool_] = counts[:_NUM_RAW_LABELS] > 0
    return present
