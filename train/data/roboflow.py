"""Roboflow's multi-label export: `train/_classes.csv`, `valid/_classes.csv` and so on, a column per class.

    filename, cat, dog
    1.jpg, 1, 0

An empty cell or -1 is a label that nobody looked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cmlr_edge.errors import DataError
from cmlr_edge.model.tables import read_rows
from train.data.base import LabeledImages, quote
from train.data.entries import Entry, from_entries, split_of

FILE = "_classes.csv"
_VALUES = {"1": "present", "0": "absent", "": "unknown", "-1": "unknown"}


def read_roboflow_classes(root: Path) -> LabeledImages:
    """Read every `_classes.csv` in a folder or its folders.

    Raises:
        DataError: The tables differ in their classes, or a cell holds something else.
    """
    paths = sorted([*root.glob(FILE), *root.glob(f"*/{FILE}")])
    headings = {path: _heading(path) for path in paths}
    classes = headings[paths[0]]
    for path, found in headings.items():
        if found != classes:
            raise DataError(f"{path} has other classes than {paths[0]}, or in another order")
    entries = [entry for path in paths for entry in _entries(path, classes)]
    return from_entries(root, entries, classes, paths[0])


def _table(path: Path) -> list[tuple[str, list[str]]]:
    rows = read_rows(path, DataError, most=None, spaced=True)
    return [(where, [cell.strip() for cell in row]) for where, row in rows]


def _heading(path: Path) -> list[str]:
    (_, heading), *_ = _table(path) or [("", [])]
    if heading[:1] != ["filename"] or len(heading) < 2:
        raise DataError(f"{path} should have the heading filename,CLASS,.., got {quote(heading)}")
    return heading[1:]


def _entries(path: Path, classes: list[str]) -> Iterator[Entry]:
    for where, row in _table(path)[1:]:
        if len(row) != len(classes) + 1:
            raise DataError(f"{where} should have {len(classes) + 1} columns, has {len(row)}")
        if wrong := [cell for cell in row[1:] if cell not in _VALUES]:
            raise DataError(
                f"{where} holds {quote(wrong[0])}: expected 1, 0, or nothing if unknown"
            )
        said = {name: _VALUES[cell] for name, cell in zip(classes, row[1:], strict=True)}
        yield Entry(
            path.parent / row[0],
            split_of(path.parent.name),
            tuple(name for name, value in said.items() if value == "present"),
            where,
            tuple(name for name, value in said.items() if value == "unknown"),
        )
