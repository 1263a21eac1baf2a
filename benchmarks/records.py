"""What a benchmark found, as a JSON file and on a page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from cmlr_edge.model.files import write_atomically


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write it with four significant digits, which is what noise leaves of a number, and more; say where."""
    write_atomically(path, (json.dumps(_rounded(record), indent=1) + "\n").encode())
    Console().print(f"wrote {path}")


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
