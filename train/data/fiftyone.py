"""FiftyOne's exports: its own data set folder, and labels of whole pictures in `labels.json`.

Its COCO export is read by `coco.py`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from cmlr_edge.errors import DataError
from train.data.base import LabeledImages, quote, read_json_object
from train.data.entries import Entry, PictureFinder, from_entries, mentions, names_in, split_of

_LABELS = {"Classification", "Classifications", "Detection", "Detections", "Polyline", "Polylines"}
_LISTS = ("classifications", "detections", "polylines")
_USUAL = "ground_truth"


def is_fiftyone(root: Path) -> bool:
    """Whether there are samples and metadata of a FiftyOne data set."""
    return (root / "samples.json").is_file() and (root / "metadata.json").is_file()


def is_fiftyone_classification(root: Path) -> bool:
    """Whether `labels.json` gives the labels of each file in `data`."""
    path = root / "labels.json"
    return (
        (root / "data").is_dir() and mentions(path, '"labels"') and not mentions(path, '"images"')
    )


def read_fiftyone(root: Path) -> LabeledImages:
    """Read `samples.json`: labels, boxes or polylines of the one field that holds them.

    Tags named train, val or test are splits.

    Raises:
        DataError: It is malformed, or several fields hold labels and none is ground_truth.
    """
    path = root / "samples.json"
    samples = read_json_object(path).get("samples")
    if not isinstance(samples, list):
        raise DataError(f"{path} has no list of samples")
    field, finder = _field(samples, path), PictureFinder(root)
    entries = []
    for number, sample in enumerate(samples):
        where = f"{path}: samples[{number}]"
        file = sample.get("filepath") if isinstance(sample, dict) else None
        if not isinstance(file, str):
            raise DataError(f"{where} has no filepath")
        tags = sample.get("tags")
        told = tags if isinstance(tags, list) else []
        split = split_of(*(tag for tag in told if isinstance(tag, str)))
        labels = _labels(sample.get(field), where)
        picture = finder.at(PurePosixPath(file)) or finder.find(file, where)
        entries.append(Entry(picture, split, labels, where))
    return from_entries(root, entries, _classes(root, field), path)


def _field(samples: list[Any], path: Path) -> str:
    found = sorted(
        {
            key
            for sample in samples
            if isinstance(sample, dict)
            for key, value in sample.items()
            if isinstance(value, dict) and str(value.get("_cls")) in _LABELS
        }
    )
    if _USUAL in found or len(found) == 1:
        return _USUAL if _USUAL in found else found[0]
    raise DataError(
        f"{path} holds labels in the fields {found}: export with one of them, or call it {_USUAL}"
    )


def _labels(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, dict):
        return ()
    items = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), [value])
    labels = [item.get("label") for item in items if isinstance(item, dict)]
    return names_in([label for label in labels if label is not None], where)


def _classes(root: Path, field: str) -> list[str] | None:
    """The classes that the data set names, if it does."""
    about = read_json_object(root / "metadata.json")
    info = about.get("info")
    for place in (about, info if isinstance(info, dict) else {}):
        by_field = place.get("classes")
        listed = by_field.get(field) if isinstance(by_field, dict) else by_field
        listed = listed or place.get("default_classes")
        if isinstance(listed, list) and listed:
            return listed
    return None


def read_fiftyone_classification(root: Path) -> LabeledImages:
    """Read `labels.json` and the pictures in `data`: a name, a number, an object with one, or a list for each.

    Raises:
        DataError: It is malformed.
    """
    path = root / "labels.json"
    record = read_json_object(path)
    labels, classes = record.get("labels"), record.get("classes")
    if not isinstance(labels, dict) or not (classes is None or isinstance(classes, list)):
        raise DataError(f"{path} should have labels by file, got {quote(sorted(record))}")
    by_stem = {file.stem: file for file in sorted((root / "data").iterdir())}
    entries = []
    for name, value in labels.items():
        where = f"{path}: {quote(name)}"
        items = value if isinstance(value, list) else [] if value is None else [value]
        # With boxes, or attributes, each is an object.
        items = [item.get("label") if isinstance(item, dict) else item for item in items]
        if classes and any(type(item) is int and not 0 <= item < len(classes) for item in items):
            raise DataError(f"{where} has {quote(value)}: there are {len(classes)} classes")
        names = [classes[i] if classes and type(i) is int else i for i in items]
        picture = by_stem.get(name, root / "data" / name)
        entries.append(Entry(picture, "train", names_in(names, where), where))
    return from_entries(root, entries, classes, path)
