"""Own data as a table: pictures, `labels.csv`, and `classes.txt` with one class a line.

    file,split,labels
    train/1.jpg,train,person;dog
    val/7.jpg,val,

`file` is relative to the folder and stays inside it; labels are separated by `;` and may be none.
Further columns are refused, but `license` and `source`. `classes.txt` fixes the order of the labels
and makes a misspelt label an error. `biased_pairs.csv` may name labels that are mostly seen with
another one, with the heading `label,context`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from cmlr_edge.errors import DataError
from train.data.base import (
    ContextBias,
    LabeledImages,
    name_of,
    read_text_lines,
)
from train.data.checks import check_classes, check_images
from train.data.labels_json import read_biased_pairs, read_entry

_SEPARATOR = ";"


def read_labels_csv(root: Path) -> LabeledImages:
    """Read `root/labels.csv` and `root/classes.txt`.

    Raises:
        DataError: A missing or unknown column, an unknown class, a repeated or missing file.
    """
    path, class_list = root / "labels.csv", root / "classes.txt"
    names = [line.strip() for line in read_text_lines(class_list) if line.strip()]
    index = {name: i for i, name in enumerate(check_classes(names, class_list))}
    images, places = [], []
    for where, row in _rows(path):
        labels = [name.strip() for name in row.get("labels", "").split(_SEPARATOR)]
        entry = {**row, "labels": [name for name in labels if name]} if "labels" in row else row
        images.append(read_entry(entry, where, root, index))
        places.append(where)
    if not images:
        raise DataError(f"{path} should have the heading file,split,labels and a line per picture")
    bias = _read_pairs(root / "biased_pairs.csv", index)
    data = LabeledImages(name_of(root), tuple(index), tuple(images), bias)
    check_images(data, root, lambda i: places[i])
    return data


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where a row stands, and its values by column."""
    rows = csv.DictReader(read_text_lines(path))
    try:
        columns = [*(rows.fieldnames or ())]
        if len(set(columns)) != len(columns):
            raise DataError(f"{path}:1 names a column twice: {','.join(columns)!r}")
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where} should have {len(columns)} columns")
            yield where, row
    except csv.Error as error:  # a field of megabytes, say
        raise DataError(f"{path}:{rows.line_num + 1} cannot be read as a table: {error}") from error


def _read_pairs(path: Path, index: dict[str, int]) -> ContextBias | None:
    if not path.exists():
        return None
    heading, *rows = [*csv.reader(read_text_lines(path))] or [[]]
    if heading != ["label", "context"]:
        raise DataError(f"{path} should have the heading label,context, got {','.join(heading)!r}")
    return read_biased_pairs([row for row in rows if row], index, path)
