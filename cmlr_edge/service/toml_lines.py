"""Finds the line of a setting in a TOML file, so that an error can name it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"\s*(\"[^\"]*\"|'[^']*'|[A-Za-z0-9_-]+)\s*[.=]")


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
    """Return the first line where one of `words` stands as a key or a value; 0 for none.

    Args:
        text: TOML.
        words: Such as labels, without quotes.
    """
    either = "|".join(re.escape(word) for word in words)
    found = re.compile(rf"(?<![^\s\"'.,\[=])(?:{either})(?![^\s\"'.,\]=])")
    lines = (line.partition("#")[0] for line in text.splitlines())
    return next((number for number, line in enumerate(lines, 1) if found.search(line)), 0)


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
