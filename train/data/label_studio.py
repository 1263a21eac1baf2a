"""Label Studio's JSON export: a list of tasks with choices, boxes and other regions.

A task that nobody has annotated, or whose annotation was cancelled, says nothing and is left out.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cmlr_edge.errors import DataError
from train.data.base import LabeledImages, quote, read_json
from train.data.entries import (
    Entry,
    PictureFinder,
    from_entries,
    is_there,
    json_files,
    mentions,
    names_in,
    split_of,
)

_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # before the name of a file that was uploaded
_SAID = ('"annotations"', '"completions"', '"predictions"')  # by people, or by a model alone
_log = logging.getLogger(__name__)


def label_studio_files(root: Path) -> list[Path]:
    """JSON files that begin with a list and hold tasks."""
    return [
        path
        for path in json_files(root)
        if _begins_a_list(path)
        and mentions(path, '"data"')
        and any(mentions(path, word) for word in _SAID)
    ]


def _begins_a_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")


def read_label_studio(root: Path) -> LabeledImages:
    """Read every such file in a folder.

    Raises:
        DataError: A task names no picture, or something that is no label.
    """
    paths, finder, entries, left_out = label_studio_files(root), PictureFinder(root), [], 0
    for path in paths:
        tasks = read_json(path)
        for number, task in enumerate(tasks):
            where = f"{path}: task {number}"
            if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
                raise DataError(f"{where} should be an object with data, got {quote(task)}")
            results = _results(task)
            if results is None:
                left_out += 1
                continue
            picture = _picture(task["data"], where, finder)
            split = split_of(str(task["data"].get("split", "")))
            entries.append(Entry(picture, split, _labels(results, where), where))
    if left_out and entries:
        _log.warning("%d tasks that nobody annotated are left out", left_out)
    if left_out and not entries:
        raise DataError(
            f"{paths[0]}: none of its {left_out} tasks is annotated; predictions do not count: "
            "annotate or accept them in Label Studio, and export again as JSON"
        )
    return from_entries(root, entries, None, paths[0])


def _results(task: dict[str, Any]) -> list[Any] | None:
    """What the newest annotation that counts says; None where there is none."""
    given = task.get("annotations", task.get("completions"))
    counted = [
        item
        for item in (given if isinstance(given, list) else [])
        if isinstance(item, dict) and not item.get("was_cancelled")
    ]
    # Where they tell their times these count; else the last one is the newest.
    counted.sort(key=lambda item: str(item.get("updated_at") or item.get("created_at") or ""))
    results = counted[-1].get("result") if counted else None
    return results if isinstance(results, list) else None


def _labels(results: list[Any], where: str) -> tuple[str, ...]:
    names: list[str] = []
    for item in results:
        kind = item.get("type") if isinstance(item, dict) else None
        value = item.get("value") if isinstance(item, dict) else None
        if isinstance(kind, str) and isinstance(value, dict) and isinstance(value.get(kind), list):
            names += names_in(value[kind], where)
    return tuple(dict.fromkeys(names))


def _picture(data: dict[str, Any], where: str, finder: PictureFinder) -> Path:
    """Find the picture of a task: its address may be one of Label Studio, of a bucket, or a path."""
    address = next((data[key] for key in ("image", "img", "url") if key in data), None)
    if address is None:
        texts = [v for v in data.values() if isinstance(v, str)]
        address = texts[0] if len(texts) == 1 else None
    if not isinstance(address, str) or not address:
        raise DataError(f"{where} names no picture: data should have image, got {quote(data)}")
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise DataError(f"{where}: {quote(address)} is no address: {error}") from error
    local = parse_qs(parts.query).get("d", [""])[0]  # /data/local-files/?d=folder/1.jpg
    place = PurePosixPath(local or unquote(parts.path))
    if (found_there := finder.at(place)) is not None:
        return found_there
    name = place.name
    found = finder.find(name, where)
    if not is_there(found) and _UPLOADED.match(name):
        found = finder.find(name[9:], where)
    return found
