"""Tables that lose nothing: whole in a file or a pipe, folded where a terminal is narrow."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import measure_renderables
from rich.table import Column, Table

_WIDE = 1000  # columns; a table takes what it needs of them
_LEAST = 8  # of a column of text; a terminal that is narrower still breaks the lines itself


class _WholeConsole(Console):
    """Leaves it to the terminal where lines end that are longer than it is wide."""

    def print(self, *objects: Any, crop: bool = False, **options: Any) -> None:
        super().print(*objects, crop=crop, **options)


class _WholeTable(Table):
    """Wider than the terminal, before numbers are cut or columns vanish."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(max_width=_WIDE)
        least = self.__rich_measure__(console, wide).maximum
        for column in self.columns:
            if not column.no_wrap:
                cells = [column.header, *column.cells]
                least -= max(0, measure_renderables(console, wide, cells).maximum - _LEAST)
        return super().__rich_console__(
            console, options.update(max_width=max(options.max_width, least))
        )


def stdout(**options: Any) -> Console:
    """Where results go. A pipe has no width, so nothing is cut or wrapped for one."""
    console = _WholeConsole(**options)
    if not console.file.isatty() and "COLUMNS" not in os.environ:
        console.width = _WIDE
    return console


def table(*headings: str, right: tuple[str, ...] = (), **options: Any) -> Table:
    """A table of whole words and paths: what is too long goes on below, in its own column.

    Args:
        headings: Of the columns of text.
        right: Of the columns of numbers, behind those, which are never broken.
        options: Of rich's Table.
    """
    words = [Column(heading, overflow="fold") for heading in headings]
    numbers = [Column(heading, justify="right", no_wrap=True) for heading in right]
    return _WholeTable(*words, *numbers, **options)
