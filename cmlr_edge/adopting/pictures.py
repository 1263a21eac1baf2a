"""Pictures of the user's with what is known of them: scores of another runtime, or their labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.capture.images import IMAGE_SUFFIXES
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.model.label_names import require_known
from cmlr_edge.model.strict_json import json_value, read_bounded
from cmlr_edge.model.tables import read_rows, scores_by_file

if TYPE_CHECKING:
    from numpy.typing import NDArray


def list_pictures(place: Path) -> list[Path]:
    """The pictures of a folder, sorted by name; or the one.

    Raises:
        CaptureError: There is none.
    """
    if place.is_file():
        return [place]
    found = sorted(p for p in place.glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise CaptureError(f"--check {place} holds no picture: expected one, or a folder of them")
    return found


def read_scores(
    path: Path, pictures: Sequence[Path], labels: tuple[str, ...]
) -> NDArray[np.float32]:
    """Scores (N, L) of the pictures, as another runtime gave them.

    Args:
        path: `.npy`, (N, L), in the order of the sorted names; `.json`, {"a.jpg": [..]} or {"a.jpg": {"cat":
            0.9, ..}}; or `.csv`, with the heading file,LABEL,LABEL,...
        pictures: In the order of the rows.
        labels: In the order of the columns.

    Raises:
        SpecError: It cannot be read, or tells other pictures or labels.
    """
    if path.suffix == ".npy":
        try:
            table = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise SpecError(f"cannot read the scores in {path}: {error}") from error
        wanted = len(pictures), len(labels)
        if table.shape != wanted or table.dtype.kind not in "fiu":
            raise SpecError(f"{path} has {table.dtype} {table.shape}: expected numbers {wanted}")
        return _finite(table, path)
    rows = _json_rows(path) if path.suffix == ".json" else _csv_rows(path, labels)
    if missing := [p.name for p in pictures if p.name not in rows]:
        raise SpecError(f"{path} has no scores of {missing[0]}, nor of {len(missing) - 1} others")
    return _finite([_in_order(rows[p.name], labels, f"{path}: {p.name}") for p in pictures], path)


def _finite(table: Any, path: Path) -> NDArray[np.float32]:
    try:
        scores = np.array(table, np.float32)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{path} holds something else than numbers: {error}") from error
    if not np.isfinite(scores).all():
        raise SpecError(f"{path} holds scores that are no finite numbers")
    return scores


def _in_order(row: Any, labels: tuple[str, ...], where: str) -> list[Any]:
    if isinstance(row, dict):
        require_known(row, labels, f"{where} names")
        if len(row) != len(labels):
            raise SpecError(f"{where} has {len(row)} of {len(labels)} scores")
        return [row[label] for label in labels]
    if not isinstance(row, list) or len(row) != len(labels):
        raise SpecError(f"{where}: expected {len(labels)} scores, one per label")
    return row


def _json_rows(path: Path) -> dict[str, Any]:
    try:
        value = json_value(read_bounded(path))
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read the scores in {path}: {error}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{path} should hold an object of picture names")
    return value


def _csv_rows(path: Path, labels: tuple[str, ...]) -> dict[str, dict[str, str]]:
    heading, rows = _table(path)
    if heading[:1] != ["file"] or len(heading) != len(labels) + 1:
        raise SpecError(
            f"{path} should have the heading file and {len(labels)} labels, got {len(heading)} columns"
        )
    return {
        name: dict(zip(heading[1:], cells[1:], strict=True))
        for name, cells in scores_by_file(rows, SpecError).items()
    }


def read_targets(path: Path, labels: tuple[str, ...]) -> tuple[list[Path], NDArray[np.float32]]:
    """Read labelled pictures: a table with the columns file and labels, these with `;` between them.

    Args:
        path: Of the table; its files lie beside it, or below.
        labels: Of the model.

    Returns:
        The pictures, and (N, L), 1 where the label is present.

    Raises:
        SpecError: It cannot be read, or names another label.
    """
    heading, rows = _table(path)
    if not {"file", "labels"} <= set(heading):
        raise SpecError(f"{path} should have the columns file and labels, got {heading[:8]}")
    files, targets = [], []
    for _, row in rows:
        values = dict(zip(heading, row, strict=True))
        names = [name.strip() for name in values["labels"].split(";") if name.strip()]
        require_known(names, labels, f"{path}: {values['file'][:80]} has")
        files.append(path.parent / values["file"])
        targets.append([float(label in names) for label in labels])
    if not files:
        raise SpecError(f"{path} lists no pictures")
    return files, np.array(targets, np.float32)


def _table(path: Path) -> tuple[list[str], list[tuple[str, list[str]]]]:
    (_, heading), *rows = [*read_rows(path, SpecError)] or [("", [])]
    for where, row in rows:
        if len(row) != len(heading):
            raise SpecError(f"{where} should have {len(heading)} columns, has {len(row)}")
    return heading, rows
