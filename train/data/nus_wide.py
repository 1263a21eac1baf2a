r"""NUS-WIDE with its 81 concepts.

Layout, as published: `ImageList/{Train,Test}Imagelist.txt` (`folder\name.jpg` a line),
`Groundtruth/TrainTestLabels/Labels_<concept>_{Train,Test}.txt` (0 or 1 a line, in the order of the
list), and the pictures in `Flickr/`, `Images/` or `images/`. Concepts come in alphabetical order, as
in `Concepts81.txt`. Pictures without any concept are dropped, as is usual.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from train.data.base import (
    LabeledImage,
    LabeledImages,
    name_of,
    read_text_lines,
    warn_if_partial,
)
from train.data.checks import check_classes, check_images

NUM_CONCEPTS = 81
_PUBLISHED = {"train": 161789, "test": 107859}  # lines of the lists, before dropping
_FOLDERS = ("Flickr", "Images", "images")
# One line of the published release is no label: file, line, what it says. It is read as absent.
_KNOWN_FAULT = ("Labels_lake_Train.txt", 78372, "-1130179")
_log = logging.getLogger(__name__)


def read_nus_wide(root: Path) -> LabeledImages:
    """Read both lists and the labels of all concepts.

    Raises:
        DataError: Missing or contradicting lists, missing pictures.
    """
    concepts = _read_concepts(root)
    folder = next((root / name for name in _FOLDERS if (root / name).is_dir()), root / _FOLDERS[0])
    images: list[LabeledImage] = []
    places: list[str] = []
    listed: dict[str, int] = {}
    for part in ("Train", "Test"):
        names = _read_names(root / "ImageList" / f"{part}Imagelist.txt")
        split, listed[part.lower()] = part.lower(), len(names)
        present = np.stack([_read_column(root, c, part, len(names)) for c in concepts], axis=1)
        kept = np.flatnonzero(present.any(axis=1))
        _log.info("%d of %d %s pictures have a concept", len(kept), len(names), split)
        images += [
            LabeledImage(folder / names[i], split, tuple(np.flatnonzero(present[i]).tolist()))
            for i in kept
        ]
        places += [f"ImageList/{part}Imagelist.txt: picture {i + 1}" for i in kept]
    data = LabeledImages(name_of(root), concepts, tuple(images), published=True)
    check_images(data, root, lambda i: places[i])
    warn_if_partial(data.name, listed, _PUBLISHED)
    return data


def _label_folder(root: Path) -> Path:
    return root / "Groundtruth" / "TrainTestLabels"


def _read_concepts(root: Path) -> tuple[str, ...]:
    files = _label_folder(root).glob("Labels_*_Train.txt")
    concepts = sorted(path.stem.removeprefix("Labels_").removesuffix("_Train") for path in files)
    if len(concepts) != NUM_CONCEPTS:
        raise DataError(
            f"{_label_folder(root)} has Labels_<concept>_Train.txt for {len(concepts)} concepts, "
            f"expected {NUM_CONCEPTS}: unpack Groundtruth.zip there"
        )
    return check_classes(concepts, _label_folder(root))


def _read_names(path: Path) -> list[PurePosixPath]:
    lines = [line.strip() for line in read_text_lines(path)]
    names = [PurePosixPath(line.replace("\\", "/")) for line in lines if line]
    for number, name in enumerate(names, start=1):
        if name.suffix != ".jpg" or name.is_absolute() or ".." in name.parts:
            raise DataError(f"{path}:{number} should name a .jpg picture, got {str(name)[:80]!r}")
    return names


def _read_column(root: Path, concept: str, part: str, num_images: int) -> NDArray[np.bool_]:
    path = _label_folder(root) / f"Labels_{concept}_{part}.txt"
    values = [line.strip() for line in read_text_lines(path) if line.strip()]
    if len(values) != num_images:
        raise DataError(
            f"{path} has {len(values)} lines and {part}Imagelist.txt {num_images}: they do not "
            "belong together"
        )
    column = np.array(values)
    for line in np.flatnonzero((column != "0") & (column != "1")).tolist():
        if (path.name, line + 1, values[line]) != _KNOWN_FAULT:
            raise DataError(f"{path}:{line + 1} should be 0 or 1, got {values[line][:40]!r}")
        _log.warning(
            "%s:%d is %s in the published release: read as absent", path, line + 1, values[line]
        )
    present: NDArray[np.bool_] = column == "1"
    return present
