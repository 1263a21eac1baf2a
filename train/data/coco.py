"""COCO detection annotations read as image labels: a class is present if any instance of it is.

Layout, as published: `annotations/instances_<split>.json` and the pictures in `<split>/` or
`images/<split>/`. `train*` is read as split train, `val*` as val. The releases of 2014 and 2017 divide
the same pictures differently: a folder holds the annotations of one of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from train.data.base import (
    LabeledImage,
    LabeledImages,
    count_splits,
    read_json_object,
    require_images_exist,
    warn_if_partial,
)

_PUBLISHED = {
    "2014": {"train": 82783, "val": 40504},
    "2017": {"train": 118287, "val": 5000},
}


def read_coco(root: Path) -> LabeledImages:
    """Read every `annotations/instances_*.json` under `root`.

    Images without instances are kept, with no label.

    Raises:
        DataError: Malformed annotations, files that disagree on the categories, missing pictures.
    """
    classes: tuple[str, ...] | None = None
    images: list[LabeledImage] = []
    paths = sorted((root / "annotations").glob("instances_*.json"))
    _refuse_two_releases(paths)
    for path in paths:
        record = read_json_object(path)
        try:
            ids, names = _read_categories(record)
            if classes is not None and names != classes:
                raise DataError(f"{path} has other categories than the files before it")
            classes = names
            images += _read_images(record, ids, _image_folder(root, path), path)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} is not a COCO instances file: {error!r}") from error
    data = LabeledImages(root.resolve().name, classes or (), tuple(images))
    require_images_exist(data)
    warn_if_partial(data.name, count_splits(data), _published_sizes(paths))
    return data


def _refuse_two_releases(paths: list[Path]) -> None:
    years = sorted({path.stem[-4:] for path in paths} & set(_PUBLISHED))
    if len(years) > 1:
        raise DataError(
            f"{paths[0].parent} holds annotations of {' and '.join(years)}: they divide the same "
            "pictures differently, so that training would see test pictures; keep one release"
        )


def _published_sizes(paths: list[Path]) -> dict[str, int]:
    """Size of each official split that has a file here."""
    return {
        _split_of(path): _PUBLISHED[path.stem[-4:]][_split_of(path)]
        for path in paths
        if re.fullmatch(r"instances_(train|val)(2014|2017)", path.stem)
    }


def _read_categories(record: dict[str, Any]) -> tuple[dict[int, int], tuple[str, ...]]:
    categories = sorted(record["categories"], key=lambda item: item["id"])
    ids = {item["id"]: index for index, item in enumerate(categories)}
    return ids, tuple(item["name"] for item in categories)


def _read_images(
    record: dict[str, Any], ids: dict[int, int], folder: Path, source: Path
) -> list[LabeledImage]:
    present: dict[int, set[int]] = {item["id"]: set() for item in record["images"]}
    for annotation in record["annotations"]:
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in present or category not in ids:
            raise DataError(
                f"{source}: annotation {annotation.get('id')} is of category {category} on image "
                f"{image}, and the file does not list both: correct the annotation or list them"
            )
        present[image].add(ids[category])
    return [
        LabeledImage(
            folder / item["file_name"], _split_of(source), tuple(sorted(present[item["id"]]))
        )
        for item in record["images"]
    ]


def _image_folder(root: Path, path: Path) -> Path:
    name = path.stem.removeprefix("instances_")
    return next((p for p in (root / name, root / "images" / name) if p.is_dir()), root / name)


def _split_of(path: Path) -> str:
    match = re.match(r"instances_(train|val|test)", path.stem)
    if match is None:
        raise DataError(
            f"{path.name} names no split: expected instances_train*, instances_val* or "
            "instances_test*"
        )
    return match[1]
