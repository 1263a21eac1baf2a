"""Labelled recordings: scores over time as `label --csv` writes them, and when a label really was there."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.model.tables import read_rows, read_text

_VISIT_FILES = ("visits.csv", "visits.json")
_COLUMNS = ["file", "label", "begin", "end"]
_MOST_BYTES = 2**30
_MAX_STEP_S = 2.0  # as LabelStability: the longest time that one frame may speak for


@dataclass(frozen=True)
class Visit:
    """A label that was there, in seconds of the recording."""

    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Recording:
    """Scores of one label over time, and its true visits."""

    name: str
    times_s: NDArray[np.float64]  # (N,), rising
    scores: NDArray[np.float32]  # (N,); NaN of a frame that says nothing
    visits: tuple[Visit, ...]

    @property
    def hours(self) -> float:
        """Time that was looked at: an outage, or frames that say nothing, speak for at most two seconds."""
        steps = np.minimum(np.diff(self.times_s[~np.isnan(self.scores)]), _MAX_STEP_S)
        return float(steps.sum()) / 3600


def read_recordings(folder: Path) -> dict[str, list[Recording]]:
    """Read a folder with `visits.csv` or `visits.json` and the tables that it names, by label.

    A visit is a file, a label, begin and end in seconds. A file without label stands for a recording in which
    nothing was there. In every recording all labels that occur anywhere are taken to be marked.

    Raises:
        DataError: Something is missing, damaged or contradicts itself.
    """
    visits = _read_visits(folder)
    labels = sorted({label for found in visits.values() for label in found})
    if not labels:
        raise DataError(f"{folder} marks no visit of any label: there is nothing to fit to")
    recordings: dict[str, list[Recording]] = {label: [] for label in labels}
    first: dict[bytes, str] = {}
    for name, found in visits.items():
        times, scores = _read_table(_table_of(folder, name), labels)
        content = hashlib.sha256(times.tobytes())
        for label in labels:
            content.update(scores[label].tobytes())
        other = first.setdefault(content.digest(), name)
        if other != name:
            raise DataError(
                f"{name} holds what {other} holds: a recording that is given twice proves nothing "
                "twice; take one of them out"
            )
        for label in labels:
            there = _checked(found.get(label, []), times, f"{name}, {label}")
            recordings[label].append(Recording(name, times, scores[label], there))
    return recordings


def _table_of(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).name != name or path.suffix.lower() != ".csv":
        raise DataError(
            f"{name!r} is no table of scores in {folder}: write one of each recording with "
            "`cmlr-edge label RECORDING --csv NAME.csv`, and name that"
        )
    return path


def _read_visits(folder: Path) -> dict[str, dict[str, list[Visit]]]:
    path = next((folder / name for name in _VISIT_FILES if (folder / name).is_file()), None)
    if path is None:
        raise DataError(
            f"{folder} holds neither visits.csv nor visits.json: write a line for each visit, "
            "file,label,begin,end, in seconds"
        )
    found: dict[str, dict[str, list[Visit]]] = {}
    for where, row in _rows(path):
        name, label = row.get("file") or "", row.get("label")
        label = "" if label is None else label
        if not isinstance(name, str) or not isinstance(label, str):
            raise DataError(f"{where}: expected file and label as text, got {repr(row)[:120]}")
        of_file = found.setdefault(name, defaultdict(list))
        if not label:
            if any(row.get(key) not in {None, ""} for key in ("begin", "end")):
                raise DataError(f"{where} has times and no label: name what was there then")
            continue
        try:
            begin, end = float(row["begin"]), float(row["end"])
        except (KeyError, TypeError, ValueError):
            begin, end = math.nan, math.nan
        if not 0 <= begin <= end < math.inf:
            raise DataError(f"{where}: expected begin and end in seconds, begin first")
        of_file[label].append(Visit(begin, end))
    return found


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each visit as it stands there, and where that is."""
    if path.suffix == ".json":
        text = read_text(path, DataError, most=_MOST_BYTES)
        try:
            rows = json_value(text)
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{path} should be a list of objects with {', '.join(_COLUMNS)}")
        yield from ((f"{path.name}, visit {i}", row) for i, row in enumerate(rows, start=1))
        return
    table = read_rows(path, DataError, most=_MOST_BYTES)
    heading = [name.strip() for name in next(table, ("", []))[1]]
    if not set(_COLUMNS) <= {*heading}:
        raise DataError(f"{path.name} should begin with the line {','.join(_COLUMNS)}")
    for where, row in table:  # a shorter one lacks what stands last
        yield where, dict(zip(heading, map(str.strip, row), strict=False))


def _read_table(
    path: Path, labels: list[str]
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float32]]]:
    rows = read_rows(path, DataError, most=_MOST_BYTES)
    _, header = next(rows, ("", []))
    if missing := [name for name in ("time_s", *labels) if name not in header]:
        raise DataError(
            f"{path.name} has no column {missing[0]!r}: expected a table that `label --csv` wrote with "
            "an engine that knows the label"
        )
    places = [header.index(name) for name in ("time_s", *labels)]
    found = [_numbers(row, places, where) for where, row in rows]
    values = np.array(found, np.float64).reshape(-1, len(places))
    times = values[:, 0]
    if len(times) < 2 or not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise DataError(
            f"{path.name} needs two rows or more whose time_s never falls: pictures have no times"
        )
    scores = values[:, 1:].astype(np.float32)
    if (np.nan_to_num(scores) < 0).any() or (np.nan_to_num(scores) > 1).any():
        raise DataError(f"{path.name} has scores outside 0 to 1")
    return times, {label: scores[:, i] for i, label in enumerate(labels)}


def _numbers(row: list[str], places: list[int], where: str) -> list[float]:
    """Empty cells are those of a frame that says nothing."""
    try:
        return [float(row[i] or "nan") for i in places]
    except (IndexError, ValueError) as error:
        raise DataError(f"{where}: expected numbers, {error}") from error


def _checked(visits: list[Visit], times_s: NDArray[np.float64], where: str) -> tuple[Visit, ...]:
    ordered = sorted(visits, key=lambda visit: visit.begin_s)
    for first, second in pairwise(ordered):
        if second.begin_s < first.end_s:
            raise DataError(
                f"{where}: the visits at {first.begin_s:g} s and {second.begin_s:g} s overlap; join them"
            )
    begin_s, end_s = float(times_s[0]), float(times_s[-1])
    for visit in ordered:  # no event could find it
        if visit.end_s < begin_s or visit.begin_s > end_s:
            raise DataError(
                f"{where}: the visit at {visit.begin_s:g} s lies outside the recording, which is from "
                f"{begin_s:g} to {end_s:g} s: give seconds of the recording"
            )
    return tuple(ordered)
