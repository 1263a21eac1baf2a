"""The names of a foreign model's classes: from a file, or from the model's own metadata."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from typing import Any

from cmlr_edge.errors import SpecError
from cmlr_edge.model.strict_json import json_value
from cmlr_edge.model.tables import read_text

_MOST_TEXT = 4 * 2**20  # of metadata; Python's own parser needs many times that


def read_labels(path: Path) -> tuple[str, ...]:
    """Read names: one a line; or JSON, a list or {"0": "cat"}, or a configuration with id2label.

    Raises:
        SpecError: It holds no names, or one twice.
    """
    text = read_text(path, SpecError)
    if path.suffix == ".json":
        try:
            value = json_value(text)
        except ValueError as error:
            raise SpecError(f"{path} is not JSON: {error}") from error
        if isinstance(value, dict) and isinstance(value.get("id2label"), dict):
            value = value["id2label"]
        return _checked(_in_order(value), str(path))
    return _checked([line.strip() for line in text.splitlines() if line.strip()], str(path))


def labels_of_metadata(metadata: dict[str, str], where: str) -> tuple[str, ...]:
    """Read the names that Ultralytics and others put into a file; () where there are none.

    Raises:
        SpecError: They are there, and are no names.
    """
    text = metadata.get("names", "")
    if not text or len(text) > _MOST_TEXT:
        return ()
    try:
        value = ast.literal_eval(text)  # as Python writes a dict; nothing is run
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ()
    return _checked(_in_order(value), f"the metadata of {where}")


def _in_order(value: Any) -> Any:
    """The values of {0: name, 1: name}, by number."""
    if not isinstance(value, dict):
        return value
    if not all(isinstance(key, int | str) for key in value):  # 0.5 is no number of a class
        return None
    try:
        numbered = {int(key): name for key, name in value.items()}
    except ValueError:
        return None
    return (
        [numbered[i] for i in sorted(numbered)]
        if sorted(numbered) == [*range(len(value))]
        else None
    )


def _checked(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise SpecError(
            f"{where} holds no label names: expected one a line, or in JSON a list, or an object "
            "of numbers from 0 to names"
        )
    for number, name in enumerate(value):
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise SpecError(
                f"{where}: label {number} is {repr(name)[:60]}: expected printable text"
            )
    names = tuple(name.strip() for name in value)  # flags strip what they are given, too
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SpecError(
            f"{where} gives {repr(twice[0])[:60]} twice: every class needs a name of its own, "
            "such as 'crane (bird)'"
        )
    return names
