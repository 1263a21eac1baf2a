"""Tables that lose nothing: whole in a file or a pipe, folded where a terminal is narrow."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.table import Column, Table

_WIDE = 1000  # columns; a table takes what it needs of them


def stdout(**options: Any) -> Console:
    """Where results go. A pipe has no width, so nothing is cut or wrapped for one."""
    console = Console(**options)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def table(*headings: str, right: tuple[str, ...] = (), **options: Any) -> Table:
    """A table of whole words and paths: what is too long goes on below, in its own column.

    Args:
        headings: Of the columns of text.
        right: Of the columns of numbers, behind those.
        options: Of rich's Table.
    """
    words = [Column(heading, overflow="fold") for heading in headings]
    return Table(*words, *(Column(heading, justify="right") for heading in right), **options)
