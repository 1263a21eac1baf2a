"""Finds the line of a setting in a TOML file, so that an error can name it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]")
_PART = re.compile(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|#.*|[A-Za-z0-9_-]+")
_OF_LABELS = {"labels", "thresholds", "stability", "without"}  # where labels are named


def line_of(text: str, where: str) -> int:
    """Return the line where the setting `where` stands, or else the table it is missing from.

    Args:
        text: TOML.
        where: Such as "sources[1].name".

    Returns:
        Counted from 1.
    """
    lines = _lines_by_path(text)
    parts = where.split(".")
    for length in range(len(parts), 0, -1):
        path = ".".join(parts[:length])
        for candidate in (path, re.sub(r"\[\d+\]$", "", path)):
            if candidate in lines:
                return lines[candidate]
            if inside := [n for key, n in lines.items() if key.startswith(f"{candidate}.")]:
                return min(inside)  # a table without a header of its own
    return 1


def line_with(text: str, words: Sequence[str]) -> int:
    """Return the first line where one of `words` stands as a label, as a key or a value; 0 for none.

    Args:
        text: TOML.
        words: Labels, without quotes.
    """
    table: list[str] = []
    key: list[str] = []  # of the value, which may go on in further lines
    for number, line in enumerate(text.splitlines(), start=1):
        said = [_unquoted(part) for part in _PART.findall(line) if part[0] != "#"]
        if _HEADER.match(line):
            table, key = said, []
        elif _KEY.match(line):
            key = said
        if _OF_LABELS & {*table, *key} and {*words} & {*said}:
            return number
    return 0


def line_of_reference(text: str, reference: str) -> int:
    """Return the first line that holds `reference` in one of its texts, and not in a remark; 0 for none.

    Args:
        text: TOML.
        reference: Such as "${CAMERA}".
    """
    inside = 0  # a text of several lines
    for number, line in enumerate(text.splitlines(), start=1):
        if any(part[0] != "#" and reference in part for part in _PART.findall(line)):
            return number
        if not inside and reference in line.partition("#")[0]:
            inside = number
    return inside


def _unquoted(part: str) -> str:
    with suppress(ValueError):  # escapes that only TOML has
        return str(json.loads(part)) if part[0] == '"' else part.strip("'")
    return part


def _lines_by_path(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    counts: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = header[2]
            if header[1] == "[[":
                table = f"{header[2]}[{counts[header[2]]}]"
                counts[header[2]] += 1
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            name = key[1].strip("\"'")
            lines.setdefault(f"{table}.{name}".lstrip("."), number)
    return lines
