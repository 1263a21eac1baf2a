"""Own data: a folder with pictures and one `labels.json`.

{"classes": ["person", ...],
 "images": [{"file": "train/1.jpg", "split": "train", "labels": ["person"]}, ...]}

`file` is relative to the folder and stays inside it; `license` and `source` may stand beside it, and
`"unknown": ["dog"]`, labels that nobody looked for in this picture: no loss is taken on them.
`"biased_pairs": [["cup", "table"], ...]` may stand beside the classes: cup is mostly seen with table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from train.data.base import (
    ContextBias,
    LabeledImage,
    LabeledImages,
    name_of,
    quote,
    read_json_object,
)
from train.data.checks import check_classes, check_images, refuse_unknown

_REQUIRED = {"file", "split", "labels"}
_ALLOWED = _REQUIRED | {"license", "source", "unknown"}


def read_labels_json(root: Path) -> LabeledImages:
    """Read `root/labels.json`.

    Raises:
        DataError: A missing or unknown key, an unknown class, a repeated or missing file.
    """
    path = root / "labels.json"
    record = read_json_object(path)
    if not {"classes", "images"} <= set(record) <= {"classes", "images", "biased_pairs"}:
        raise DataError(
            f"{path} has keys {quote(sorted(record))}, expected ['classes', 'images'] and perhaps "
            "'biased_pairs'"
        )
    classes = check_classes(record["classes"], path)
    if not isinstance(record["images"], list) or not record["images"]:
        raise DataError(f"{path}: images should be a list with at least one entry")
    index = {name: i for i, name in enumerate(classes)}
    images = tuple(
        read_entry(entry, f"{path}: images[{i}]", root, index)
        for i, entry in enumerate(record["images"])
    )
    bias = read_biased_pairs(record.get("biased_pairs", []), index, path)
    data = LabeledImages(name_of(root), classes, images, bias)
    check_images(data, root, lambda i: f"{path}: images[{i}]")
    return data


def read_entry(entry: Any, where: str, root: Path, index: dict[str, int]) -> LabeledImage:
    """Read one picture's entry.

    Args:
        entry: Its `file`, `split` and `labels`.
        where: Named in errors.
        root: The data folder.
        index: Class name -> index.

    Raises:
        DataError: A missing or unknown key, an unknown class.
    """
    if not isinstance(entry, dict) or not _REQUIRED <= set(entry) <= _ALLOWED:
        raise DataError(
            f"{where} should have the keys {sorted(_REQUIRED)} (and may have license, source, unknown), "
            f"got {quote(sorted(entry) if isinstance(entry, dict) else entry)}"
        )
    file, split, labels = entry["file"], entry["split"], entry["labels"]
    unknown = entry.get("unknown", [])
    are_lists = isinstance(labels, list) and isinstance(unknown, list)
    texts = [file, split, *labels, *unknown] if are_lists else [labels, None]
    if not all(isinstance(text, str) for text in texts) or not file or not split:
        raise DataError(f"{where}: file and split should be text and labels a list of names")
    refuse_unknown([*labels, *unknown], index, f"{where} ({quote(file)[1:-1]})", "classes")
    if both := sorted(set(labels) & set(unknown)):
        raise DataError(f"{where} ({quote(file)[1:-1]}) says that {both} are present and unknown")
    present, open_ = ({index[label] for label in names} for names in (labels, unknown))
    return LabeledImage(root / file, split, tuple(sorted(present)), tuple(sorted(open_)))


def read_biased_pairs(value: Any, index: dict[str, int], path: Path) -> ContextBias | None:
    """Read pairs of names, to be scored by average precision; None where there is none.

    Args:
        value: [[label, its usual company], ...].
        index: Class name -> index.
        path: Named in errors.

    Raises:
        DataError: Not pairs of two different classes, or one twice.
    """
    pairs, seen = value if isinstance(value, list) else [value], set()
    for pair in pairs:
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(n, str) for n in pair)
        ):
            raise DataError(
                f"{path}: biased_pairs should hold [label, context] pairs, got {quote(pair)}"
            )
        refuse_unknown(pair, index, f"{path}: biased pair {quote(pair)}", "classes")
        if pair[0] == pair[1] or tuple(pair) in seen:
            raise DataError(
                f"{path}: biased pair {quote(pair)} is a label with itself, or stands twice"
            )
        seen.add(tuple(pair))
    found = tuple((index[label], index[context]) for label, context in pairs)
    return ContextBias(found, (), "average precision") if found else None
