"""Image folders of the Hugging Face Hub: `metadata.csv` or `metadata.jsonl` beside the pictures of each split.

    file_name,labels                                 {"file_name": "1.jpg", "labels": ["cat", "dog"]}
    1.jpg,cat;dog                                    {"file_name": "2.jpg", "objects": {"categories": ["cat"]}}

The labels are in `labels` or `label`, or are the categories of `objects`; `unknown` may name labels that nobody
looked for.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.model.tables import read_rows, read_text
from train.data.base import LabeledImages, quote
from train.data.entries import Entry, from_entries, names_in, split_of

_FILES = ("metadata.csv", "metadata.jsonl")
_FOLDERS = ("", "*/", "data/*/")
_CATEGORIES = ("categories", "category", "labels", "label")
_SEPARATOR = ";"


def metadata_files(root: Path) -> list[Path]:
    """Every table of pictures in a folder, its folders, and those of `data`."""
    found = {path for folder in _FOLDERS for name in _FILES for path in root.glob(folder + name)}
    return sorted(found)


def read_hf_folder(root: Path) -> LabeledImages:
    """Read every such table.

    Raises:
        DataError: A row names no picture, or no column holds labels.
    """
    paths = metadata_files(root)
    entries = [entry for path in paths for entry in _entries(path, root)]
    return from_entries(root, entries, None, paths[0])


def _entries(path: Path, root: Path) -> Iterator[Entry]:
    parts = [] if path.parent == root else [*path.parent.relative_to(root).parts[::-1]]
    for where, row in _rows(path):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where} has no file_name, which names its picture")
        split = split_of(str(row.get("split") or ""), *parts, *Path(name).parts[:-1])
        unknown = _names(row.get("unknown"), where)
        yield Entry(path.parent / name, split, _labels(row, where), where, unknown)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".csv":
        rows = read_rows(path, DataError, most=None)
        _, columns = next(rows, ("", []))
        for where, row in rows:
            if len(row) != len(columns):
                raise DataError(f"{where} has another number of columns")
            yield where, dict(zip(columns, row, strict=True))
        return
    lines = io.StringIO(read_text(path, DataError, most=None), newline="")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json_value(line)
        except ValueError as error:
            raise DataError(f"{path}:{number} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number} should be an object, got {quote(value)}")
        yield f"{path}:{number}", value


def _labels(row: dict[str, Any], where: str) -> tuple[str, ...]:
    for key in ("labels", "label"):
        if key in row:
            return _names(row[key], where)
    objects = row.get("objects")
    if isinstance(objects, dict):
        for key in _CATEGORIES:
            if key in objects:
                return _names(objects[key], where)
    raise DataError(
        f"{where} has the columns {quote(sorted(map(str, row)))}: expected labels, label, or "
        "objects with categories"
    )


def _names(value: Any, where: str) -> tuple[str, ...]:
    """Names in a cell: a list, JSON of one, or text with `;` between them."""
    if value is None or value == "":
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json_value(value)
        except ValueError as error:
            raise DataError(f"{where}: {quote(value)} is no list: {error}") from error
    if isinstance(value, str):
        value = [name.strip() for name in value.split(_SEPARATOR) if name.strip()]
    return names_in(value, where)
