"""What a benchmark found, as a JSON file and on a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cmlr_edge.model.files import write_atomically


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write it with four significant digits, which is what noise leaves of a number, and more; say where."""
    from rich.console import Console

    write_json(path, _rounded(record))
    Console().print(f"wrote {path}")


def write_json(path: Path, record: Any, *, indent: int = 1) -> None:
    """Write a record whole or not at all, as it is."""
    write_text(path, json.dumps(record, indent=indent))


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all, and end its last line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{text}\n".encode())


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()
) -> str:
    """Format rows of cells under a head; columns that are among `numbers` stand to the right."""
    rules = ("--:" if i in numbers else "---" for i in range(len(head)))
    lines = ["".join(f"| {cell} " if cell != "" else "| " for cell in row) for row in (head, *rows)]
    return "\n".join(f"{line}|" for line in (lines[0], "|" + "|".join(rules), *lines[1:]))


def kept(path: Path, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is found, which takes long: a run that was interrupted goes on."""
    if not path.is_file():
        write_text(path, json.dumps(find()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@contextmanager
def picture(path: Path, dpi: int, columns: int = 1, **options: Any) -> Iterator[Any]:
    """Give the axes of a figure, as `plt.subplots` does, without a screen; then write it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, columns, **{"layout": "constrained"} | options)
    yield axes
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a file of JSON lines; none where there is no file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


def fill_marks(page: str, tables: Mapping[str, str]) -> str:
    """Put each table between the marks `<!-- NAME -->` and `<!-- end -->` of a page that has them."""
    for name, table in tables.items():
        start, end = f"<!-- {name} -->", "<!-- end -->"
        if start in page:
            before, after = page.split(start, 1)
            page = f"{before}{start}\n{table}\n{end}{after.split(end, 1)[1]}"
    return page


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
