"""A dataset looked at: pictures and frames that a condition chooses, on one sheet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.archive.dataset import FRAMES, PICTURES
from cmlr_edge.archive.header import Header
from cmlr_edge.archive.inputs import Item, kind_of
from cmlr_edge.archive.packages import arrow, arrow_dataset, duckdb
from cmlr_edge.archive.pictures import find_again, opened_here
from cmlr_edge.archive.stores import Store, being_read, is_address, open_store
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.pyav import pyav
from cmlr_edge.model.label_names import require_known
from cmlr_edge.prediction import LabelScore, Latency, Prediction
from cmlr_edge.redaction import printable
from cmlr_edge.sinks.base import Result
from cmlr_edge.sinks.contact_sheet import ContactSheet

_CELLS = 12  # of a sheet
_TOLERANCE_S = 1e-4  # of a frame's time, in files that keep rounded ones
_LOOK_UP = re.compile(r"\b(has|score)\(\s*'((?:[^']|'')*)'\s*\)", re.IGNORECASE)
_COLUMNS = ("path", "member", "frame", "time_s", "stream_s", "labels", "scores")


def draw_sheet(where_it_lies: str, condition: str, out: Path) -> tuple[int, int]:
    """Draw rows of a dataset, evenly spaced over those that a condition chooses.

    Args:
        where_it_lies: The dataset.
        condition: SQL over its columns.
        out: PNG to write.

    Returns:
        How many rows there are, and how many are drawn: pictures may be gone since.

    Raises:
        SpecError: There is no dataset, the condition cannot be read, or chooses nothing.
        CaptureError: None of the pictures can be read any more.
    """
    store = open_store(where_it_lies)
    header = Header.read(store)
    if header is None:
        raise SpecError(f"{where_it_lies} is no dataset of `cmlr-edge archive`")
    sheet = ContactSheet(out)
    count, rows = choose_rows(store, header.model.labels, condition)
    drawn, last = 0, ""
    for row in rows:
        try:
            image = _picture_of(row)
        except (CaptureError, OSError) as error:
            last = str(error)
            continue
        sheet.write(_result_of(row, image, header.model.labels, drawn))
        drawn += 1
    if not drawn:
        raise CaptureError(f"none of the chosen pictures can be read any more: {last}")
    sheet.close()
    return count, drawn


def choose_rows(
    store: Store, labels: Sequence[str], condition: str
) -> tuple[int, list[dict[str, Any]]]:
    """Count the rows that a condition chooses, and take some of them, evenly spaced.

    Raises:
        SpecError: The condition cannot be read, or chooses nothing.
    """
    database, asked = duckdb(), _LOOK_UP.sub(partial(_looked_up, labels), condition)
    with database.connect() as connection:
        connection.register("dataset", _rows_of(store))
        # What stands in the condition reads no other file and fetches nothing.
        connection.execute("SET enable_external_access = false")
        readable = "(FROM dataset WHERE error IS NULL) AS dataset"
        query = f"FROM {readable} WHERE ({asked}\n)"
        try:
            if len(connection.extract_statements(f"SELECT 1 {query}")) != 1:
                raise SpecError(
                    f"cannot read the condition {condition!r}: it is several statements"
                )
            [count] = connection.execute(f"SELECT count(*) {query}").fetchone()
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM (SELECT *, row_number() OVER () AS n {query}) "
                f"WHERE (n - 1) * {_CELLS} % {max(1, count)} < {_CELLS}"  # all, or as many as there are cells
            ).fetchall()
        except database.Error as error:
            first = str(error).splitlines()[0]
            raise SpecError(f"cannot read the condition {condition!r}: {first}") from error
    if not count:
        raise SpecError(f"no row fulfils {condition!r}")
    return count, [dict(zip(_COLUMNS, row, strict=True)) for row in rows]


def _looked_up(labels: Sequence[str], found: re.Match[str]) -> str:
    """What has('dog') and score('dog') mean in SQL."""
    label = found[2].replace("''", "'")
    require_known([label], labels, "the condition names")
    if found[1].lower() == "has":
        return f"list_contains(labels, '{found[2]}')"
    return f"scores[{[*labels].index(label) + 1}]"


def _rows_of(store: Store) -> Any:
    """All rows, as one table that is read piece by piece."""
    pa, dataset = arrow(), arrow_dataset()
    files = [
        f"{store.root}/{folder}/{name}.parquet"
        for folder in (PICTURES, FRAMES)
        for name in sorted(store.names(folder))
    ]
    if not files:
        raise SpecError(f"{store.root} holds no rows yet")
    fs = None
    if is_address(store.root):
        from cmlr_edge.archive.stores import opened_address

        fs, _ = opened_address(store.root)
        files = [file.partition("://")[2] for file in files]
    partitioning = dataset.partitioning(pa.schema([("kind", pa.string())]), flavor="hive")
    with being_read(store.root, "rows"):
        return dataset.dataset(files, filesystem=fs, format="parquet", partitioning=partitioning)


def _picture_of(row: dict[str, Any]) -> NDArray[np.uint8]:
    path = _found_again(row["path"])
    if row["frame"] is None:
        return find_again(Item(kind_of(path) or "picture", path, 0), row["member"])
    av = pyav()
    if av is None:
        raise CaptureError("frames of films are found again by PyAV: pip install av")
    from cmlr_edge.capture.film_part import find_frame

    with opened_here(Item("film", path, 0)) as film:
        return find_frame(av, film, row["stream_s"], row["frame"], _TOLERANCE_S)


def _found_again(told: str) -> str:
    """Where a file lies whose path a row tells: names that hold unprintable characters are written out in it."""
    if is_address(told) or "\\" not in told or Path(told).exists():
        return told
    place = Path("/")
    for part in Path(told).parts[1:]:
        exact = place / part
        if "\\" in part and not exact.exists():
            exact = next((path for path in place.iterdir() if printable(path.name) == part), exact)
        place = exact
    return str(place)


def _result_of(
    row: dict[str, Any], image: NDArray[np.uint8], labels: Sequence[str], number: int
) -> Result:
    scores = np.asarray(row["scores"], np.float32)
    said = tuple(LabelScore(name, float(scores[labels.index(name)])) for name in row["labels"])
    name = Path(row["member"] or row["path"]).name
    title = name if row["time_s"] is None else f"{name} {row['time_s']:.1f} s"
    frame = Frame(image, number, None, 0.0, 0.0, title)
    return Result(frame, Prediction(scores, said, Latency(), 0.0), (), title)
