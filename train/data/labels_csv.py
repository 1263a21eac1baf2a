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
from pathlib import Path

from cmlr_edge.errors import DataError
from train.data.base import (
    ContextBias,
    LabeledImages,
    read_text_lines,
    require_images_exist,
)
from train.data.labels_json import (
    check_classes,
    read_biased_pairs,
    read_entry,
    refuse_repeated,
)

_SEPARATOR = ";"


def read_labels_csv(root: Path) -> LabeledImages:
    """Read `root/labels.csv` and `root/classes.txt`.

    Raises:
        DataError: A missing or unknown column, an unknown class, a repeated or missing file.
    """
    path, class_list = root / "labels.csv", root / "classes.txt"
    names = [line.strip() for line in read_text_lines(class_list) if line.strip()]
    index = {name: i for i, name in enumerate(check_classes(names, class_list))}
    rows = csv.DictReader(read_text_lines(path))
    images = []
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if None in row or None in row.values():
            raise DataError(f"{where} should have {len(rows.fieldnames or ())} columns")
        labels = [name.strip() for name in row.get("labels", "").split(_SEPARATOR)]
        entry = {**row, "labels": [name for name in labels if name]} if "labels" in row else row
        images.append(read_entry(entry, where, root, index))
    if not images:
        raise DataError(f"{path} should have the heading file,split,labels and a line per picture")
    bias = _read_pairs(root / "biased_pairs.csv", index)
    data = LabeledImages(root.resolve().name, tuple(index), tuple(images), bias)
    refuse_repeated(data.images, path)
    require_images_exist(data)
    return data


def _read_pairs(path: Path, index: dict[str, int]) -> ContextBias | None:
    if not path.exists():
        return None
    heading, *rows = [*csv.reader(read_text_lines(path))] or [[]]
    if heading != ["label", "context"]:
        raise DataError(f"{path} should have the heading label,context, got {','.join(heading)!r}")
    return read_biased_pairs([row for row in rows if row], index, path)
