"""Tables of users: CSV in UTF-8, whose line ends may stand within quotes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from cmlr_edge.errors import CmlrError
from cmlr_edge.model.files import read_file
from cmlr_edge.model.strict_json import MAX_BYTES, read_bounded


def read_text(path: Path, kind: type[CmlrError], *, most: int | None = MAX_BYTES) -> str:
    """Read a text file with its line ends, without the mark that editors of Windows put first.

    Args:
        path: Of the file.
        kind: Of the errors.
        most: Bytes; None is for data of the user's own, which may be large.

    Raises:
        CmlrError: It is missing, too large, or not UTF-8 text.
    """
    try:
        content = read_file(path) if most is None else read_bounded(path, most)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise kind(
            f"{path}:{line} cannot be read as text: byte 0x{error.object[error.start]:02x} is no UTF-8; "
            "save the file as UTF-8"
        ) from error
    except (OSError, ValueError) as error:
        raise kind(f"{path} cannot be read as text: {error}") from error


def read_rows(
    path: Path, kind: type[CmlrError], *, most: int | None = MAX_BYTES, spaced: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Yield where a row ends, as FILE:LINE, and its cells; empty lines are no rows.

    Args:
        path: Of the table.
        kind: Of the errors.
        most: See `read_text`.
        spaced: Whether blanks behind a comma are not part of the cell.

    Raises:
        CmlrError: See `read_text`; or it is no table.
    """
    lines = io.StringIO(read_text(path, kind, most=most), newline="")
    rows = csv.reader(lines, skipinitialspace=spaced)
    try:
        for row in rows:
            if row:
                yield f"{path}:{rows.line_num}", row
    except csv.Error as error:  # a field of megabytes, say
        raise kind(f"{path}:{rows.line_num} cannot be read as a table: {error}") from error


def scores_by_file(
    rows: Iterable[tuple[str, list[str]]], kind: type[CmlrError]
) -> dict[str, list[str]]:
    """The rows of a table whose first cell names a picture, by this name.

    Raises:
        CmlrError: A picture stands there twice.
    """
    found: dict[str, list[str]] = {}
    for where, cells in rows:
        if cells[0] in found:
            raise kind(f"{where} has scores of {repr(cells[0])[:80]} twice: keep one line")
        found[cells[0]] = cells
    return found
