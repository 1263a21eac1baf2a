"""Own data as a table: pictures, `labels.csv`, and `classes.txt` with one class a line.

    file,split,labels
    train/1.jpg,train,person;dog
    val/7.jpg,val,

`file` is relative to the folder and stays inside it; labels are separated by `;` and may be none.
Without a column `split` all pictures are for training. Further columns are refused, but `license`, `source` and
`unknown`, labels that nobody looked for.
`classes.txt` fixes the order of the labels and makes a misspelt label an error; without it they are those that
occur, by the alphabet. `biased_pairs.csv` may name labels that are mostly seen with
another one, with the heading `label,context`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.model.tables import read_rows
from train.data.base import (
    ContextBias,
    LabeledImages,
    name_of,
    quote,
    read_text_lines,
)
from train.data.checks import check_classes, check_images
from train.data.labels_json import read_biased_pairs, read_entry

_SEPARATOR = ";"
_LISTS = ("labels", "unknown")
_REQUIRED = {"file", "labels"}
_COLUMNS = ("file", "split", "labels", "unknown", "license", "source")
_NAMED = 5  # labels in a warning
_log = logging.getLogger(__name__)


def read_labels_csv(root: Path) -> LabeledImages:
    """Read `root/labels.csv`, and `root/classes.txt` if it is there.

    Raises:
        DataError: A missing or unknown column, an unknown class, a repeated or missing file.
    """
    path, class_list = root / "labels.csv", root / "classes.txt"
    rows = [(where, {"split": "train"} | _with_lists(row)) for where, row in _rows(path)]
    if not rows:
        raise DataError(f"{path} has a heading and nothing below it: expected a line per picture")
    if class_list.exists():
        names = [line.strip() for line in read_text_lines(class_list) if line.strip()]
    else:
        names = sorted({name for _, row in rows for key in _LISTS for name in row.get(key, [])})
        if not names:
            raise DataError(
                f"{path} names no label on any picture, and there is no classes.txt: what is to be learned?"
            )
        _log.warning(
            "no classes.txt: labels are those that occur in %s, also those spelt wrongly: %s%s",
            path.name,
            quote(names[:_NAMED]),
            f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "",
        )
    source = class_list if class_list.exists() else path
    index = {name: i for i, name in enumerate(check_classes(names, source))}
    images = [read_entry(row, where, root, index) for where, row in rows]
    places = [where for where, _ in rows]
    bias = _read_pairs(root / "biased_pairs.csv", index)
    data = LabeledImages(name_of(root), tuple(index), tuple(images), bias)
    check_images(data, root, lambda i: places[i])
    return data


def _with_lists(row: dict[str, str]) -> dict[str, Any]:
    """The names in the cells that hold several."""
    lists = {
        key: [name.strip() for name in row[key].split(_SEPARATOR) if name.strip()]
        for key in _LISTS
        if key in row
    }
    return row | lists


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where a row stands, and its values by column."""
    rows = read_rows(path, DataError, most=None, spaced=True)
    _, heading = next(rows, ("", []))
    columns = [name.strip() for name in heading]
    _check_heading(columns, path)
    for where, row in rows:
        if len(row) != len(columns):
            raise DataError(
                f"{where} has {len(row)} values for {len(columns)} columns: put {_SEPARATOR} between "
                "labels, and a value with a comma in quotes"
            )
        yield where, dict(zip(columns, row, strict=True))


def _check_heading(columns: list[str], path: Path) -> None:
    if len(set(columns)) != len(columns):
        raise DataError(f"{path}:1 names a column twice: {quote(','.join(columns))}")
    if not set(columns) >= _REQUIRED or not set(columns) <= set(_COLUMNS):
        raise DataError(
            f"{path}:1 has the columns {quote(columns)}, expected {', '.join(_COLUMNS)} or some of them, "
            "file and labels at least, with commas between them"
        )


def _read_pairs(path: Path, index: dict[str, int]) -> ContextBias | None:
    if not path.exists():
        return None
    heading, *rows = [row for _, row in read_rows(path, DataError, most=None)] or [[]]
    if heading != ["label", "context"]:
        raise DataError(
            f"{path} should have the heading label,context, got {quote(','.join(heading))}"
        )
    return read_biased_pairs(rows, index, path)
