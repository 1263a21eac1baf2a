"""COCO detection annotations read as image labels: a class is present if any instance of it is.

Layout, as published: `annotations/instances_<split>.json` and the pictures in `<split>/` or
`images/<split>/`. `train*` is read as split train, `val*` as val. The releases of 2014 and 2017 divide
the same pictures differently: a folder holds the annotations of one of them.

Tools put the same form elsewhere: CVAT into `annotations/instances_default.json`, Roboflow into
`train/_annotations.coco.json` beside the pictures, FiftyOne and Label Studio into a file beside `data` or `images`.
A file whose name and folder tell no split is one of training pictures. Where a picture lists `neg_category_ids`, as
LVIS does, labels that are neither there nor found are unknown.
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
    name_of,
    quote,
    read_json_object,
    warn_if_partial,
)
from train.data.checks import check_classes, check_images
from train.data.entries import is_there, json_files, mentions, split_of

_ROBOFLOW = "_annotations.coco.json"
_KEYS = ('"images"', '"annotations"', '"categories"')
_PUBLISHED = {
    "2014": {"train": 82783, "val": 40504},
    "2017": {"train": 118287, "val": 5000},
}


def coco_files(root: Path) -> list[Path]:
    """The files of annotations in a folder: published ones, or those of tools."""
    published = sorted((root / "annotations").glob("instances_*.json"))
    if published:
        return published
    found = [*root.glob(_ROBOFLOW), *root.glob(f"*/{_ROBOFLOW}"), *root.glob("annotations/*.json")]
    found += [path for path in json_files(root) if path.name != _ROBOFLOW]
    return sorted(path for path in found if mentions(path, *_KEYS))


def read_coco(root: Path) -> LabeledImages:
    """Read the annotations of `coco_files`.

    Images without instances are kept, with no label.

    Raises:
        DataError: Malformed annotations, files that disagree on the categories, missing pictures.
    """
    classes: tuple[str, ...] | None = None
    images: list[LabeledImage] = []
    places: list[tuple[Path, int]] = []  # of each image: file and number in it
    paths = coco_files(root)
    _refuse_two_releases(paths)
    for path in paths:
        record = read_json_object(path)
        ids, names = _read_categories(record, path)
        if classes is not None and names != classes:
            different = sorted(set(names) ^ set(classes)) or "another order"
            raise DataError(
                f"{path} has other categories than {paths[0].name}: {str(different)[:80]}"
            )
        classes = names
        found = _read_images(record, ids, _image_folder(root, path, record), path)
        images += found
        places += [(path, number) for number in range(len(found))]
    data = LabeledImages(name_of(root), classes or (), tuple(images))
    check_images(data, root, lambda i: f"{places[i][0]}: images[{places[i][1]}]")
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


def _read_categories(
    record: dict[str, Any], source: Path
) -> tuple[dict[Any, int], tuple[str, ...]]:
    """Index of every category id, and the names, in the order of the ids."""
    listed = _without_placeholder(record, _entries(record, "categories", ("id", "name"), source))
    try:
        categories = sorted(listed, key=lambda item: item["id"])
    except TypeError as error:
        raise DataError(f"{source}: ids of categories are numbers and text: {error}") from error
    names = check_classes([item["name"] for item in categories], source)
    return _by_id(categories, "categories", source), names


def _without_placeholder(
    record: dict[str, Any], categories: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Leave out the category that Roboflow puts above all others; nothing is ever annotated with it."""
    above = {name for item in categories if isinstance(name := item.get("supercategory"), str)}
    annotations = record.get("annotations")
    used = {
        item.get("category_id")
        for item in (annotations if isinstance(annotations, list) else [])
        if isinstance(item, dict) and type(item.get("category_id")) in {int, str}
    }
    return [
        item
        for item in categories
        if item.get("supercategory") != "none"
        or str(item["name"]) not in above
        or item["id"] in used
    ]


def _entries(
    record: dict[str, Any], key: str, needed: tuple[str, ...], source: Path
) -> list[dict[str, Any]]:
    """The list under a key; every entry has what is needed, and ids that can be compared."""
    items = record.get(key)
    if not isinstance(items, list):
        raise DataError(f"{source} is not a COCO instances file: it has no list of {key}")
    ids = [name for name in needed if name == "id" or name.endswith("_id")]
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not all(name in item for name in needed):
            raise DataError(
                f"{source}: {key}[{number}] should have {', '.join(needed)}, got "
                f"{quote(sorted(item) if isinstance(item, dict) else item)}"
            )
        if wrong := [name for name in ids if type(item[name]) not in {int, str}]:
            raise DataError(
                f"{source}: {key}[{number}] has the {wrong[0]} {quote(item[wrong[0]])}: "
                "expected a number"
            )
    return items


def _by_id(items: list[dict[str, Any]], key: str, source: Path) -> dict[Any, int]:
    """Index of each entry by its id, which no other has."""
    found: dict[Any, int] = {}
    for number, item in enumerate(items):
        if found.setdefault(item["id"], number) != number:
            name = "name" if key == "categories" else "file_name"
            both = [quote(items[i][name]) for i in (found[item["id"]], number)]
            raise DataError(
                f"{source}: {key} gives id {quote(item['id'])} to {' and to '.join(both)}: every entry "
                "needs an id of its own"
            )
    return found


def _read_images(
    record: dict[str, Any], ids: dict[Any, int], folder: Path, source: Path
) -> list[LabeledImage]:
    images = _entries(record, "images", ("id", "file_name"), source)
    present: dict[Any, set[int]] = {key: set() for key in _by_id(images, "images", source)}
    for number, item in enumerate(images):
        if not isinstance(item["file_name"], str) or not item["file_name"]:
            raise DataError(
                f"{source}: images[{number}] has the file_name {quote(item['file_name'])}: "
                "expected text"
            )
    needed = ("image_id", "category_id")
    for annotation in _entries(record, "annotations", needed, source):
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in present or category not in ids:
            raise DataError(
                f"{source}: annotation {quote(annotation.get('id'))} is of category "
                f"{quote(category)} on image {quote(image)}, and the file does not list both: correct the annotation or list them"
            )
        present[image].add(ids[category])
    return [
        LabeledImage(
            folder / item["file_name"],
            _split_of(source),
            tuple(sorted(present[item["id"]])),
            _unknown(item, present[item["id"]], ids, source),
        )
        for item in images
    ]


def _unknown(
    item: dict[str, Any], present: set[int], ids: dict[Any, int], source: Path
) -> tuple[int, ...]:
    """Labels that nobody looked for in a picture, where it says which were looked for."""
    if "neg_category_ids" not in item:
        return ()
    negative, partly = item["neg_category_ids"], item.get("not_exhaustive_category_ids", [])
    for listed in (negative, partly):
        if not isinstance(listed, list) or any(type(i) not in {int, str} for i in listed):
            raise DataError(f"{source}: a picture has the neg_category_ids {quote(listed)}")
    absent = {ids[i] for i in negative if i in ids}
    return tuple(sorted(set(ids.values()) - absent - present))


def _image_folder(root: Path, path: Path, record: dict[str, Any]) -> Path:
    """Where the pictures of a file lie: the first place where its first picture is."""
    name = path.stem.removeprefix("instances_")
    folders = [
        *(root / name, root / "images" / name, root / "images", root / "data"),
        *(path.parent, root, path.parent / "images"),
    ]
    images = record.get("images")
    first = images[0] if isinstance(images, list) and images else None
    file = first.get("file_name") if isinstance(first, dict) else None
    if isinstance(file, str) and file:
        for folder in folders:
            if is_there(folder / file):
                return folder
    return next((folder for folder in folders[:2] if folder.is_dir()), folders[0])


def _split_of(path: Path) -> str:
    """What a file's name, as instances_val2017, or its folder tells; train where neither does."""
    words = re.split(r"[^a-z]+", path.stem.removeprefix("instances_").casefold())
    return split_of(*words, path.parent.name)
