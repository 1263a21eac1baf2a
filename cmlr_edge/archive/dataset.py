"""The dataset that a run writes: its folders, its tables, and what identifies the model behind them.

    DATASET/_archive.json                   inputs, model, settings and versions; written when the plan is
    DATASET/_plan.parquet                   the units of work; written first, never changed
    DATASET/rows/kind=picture/UNIT.parquet  a row per picture
    DATASET/rows/kind=frame/UNIT.parquet    a row per frame of a film
    DATASET/events/UNIT.parquet             events of a film; the last of its files to be written
    DATASET/_parts/UNIT.parquet             frames of a long film's part, until the film is complete
    DATASET/_manifest.json                  units, rows and failures, once all is done

A file is there whole or not at all, and says that its unit is done; nothing else does.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.stores import Store, being_read
from cmlr_edge.events.event import Event
from cmlr_edge.redaction import one_line

PICTURES, FRAMES = "rows/kind=picture", "rows/kind=frame"
EVENTS, PARTS, MODEL = "events", "_parts", "_model"
MANIFEST = "_manifest.parquet"
_COUNTS = b"cmlr_edge.counts"
_ABOUT = b"cmlr_edge"
_ROWS_A_GROUP = 1024  # that are held in memory
# Numbers that repeat are worth a dictionary; scores are not.
_DICTIONARY = ["path", "status", "error_kind", "error", "labels.list.element"]


@dataclass
class Counts:
    """What some units amount to."""

    units: int = 0
    rows: int = 0  # pictures and frames that were labelled
    failures: dict[str, int] = field(default_factory=dict)  # by kind; each is a row too
    labels: dict[str, int] = field(default_factory=dict)  # rows that have them
    events: int = 0
    bytes: int = 0  # of the inputs
    busy_s: float = 0.0  # of one worker

    def add(self, other: Counts) -> None:
        """Add what others amount to."""
        self.units += other.units
        self.rows += other.rows
        self.events += other.events
        self.bytes += other.bytes
        self.busy_s += other.busy_s
        self.failures = dict(Counter(self.failures) + Counter(other.failures))
        self.labels = dict(Counter(self.labels) + Counter(other.labels))

    def note(self, row: Row) -> None:
        """Count one row."""
        if row.error_kind:
            self.failures[row.error_kind] = self.failures.get(row.error_kind, 0) + 1
            return
        self.rows += 1
        for label in row.labels or ():
            self.labels[label] = self.labels.get(label, 0) + 1


@dataclass(frozen=True)
class Row:
    """A picture or a frame, or why there is none."""

    path: str  # of the file
    member: str | None = None  # of it: a name in a tar, the number of a row in Parquet
    frame: int | None = None  # counts from 0 in a film
    time_s: float | None = None  # in the film, as `label` gives it
    stream_s: float | None = None  # as the file itself counts, to find the frame again
    taken_at: datetime | None = None  # as the file says, without a zone; of a film UTC
    modified_at: float | None = None  # seconds since the epoch
    width: int | None = None
    height: int | None = None
    scores: NDArray[np.float32] | None = None  # (L,)
    labels: tuple[str, ...] | None = None  # at or above their thresholds, best first
    why: list[dict[str, Any]] | None = None  # of each of them, see `why_of`; where it was asked for
    status: str | None = None  # "ok", or "damaged": the model's word on it does not count
    error_kind: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Tables:
    """The tables of one dataset."""

    labels: tuple[str, ...]
    about: Mapping[str, Any]  # model and versions, written into every file
    explained: bool = False  # rows say why

    def rows_schema(self) -> Any:
        """Of a row per picture or frame."""
        pa = arrow()
        why = [("why", _why_type())] if self.explained else []
        return pa.schema(
            [
                ("path", pa.string()),
                ("member", pa.string()),
                ("frame", pa.int64()),
                ("time_s", pa.float64()),
                ("stream_s", pa.float64()),
                ("taken_at", pa.timestamp("us")),
                ("modified_at", pa.timestamp("us", tz="UTC")),
                ("width", pa.int32()),
                ("height", pa.int32()),
                ("scores", pa.list_(pa.float32(), len(self.labels))),
                ("labels", pa.list_(pa.string())),
                *why,
                ("status", pa.string()),
                ("error_kind", pa.string()),
                ("error", pa.string()),
            ],
            metadata={_ABOUT: json.dumps(self.about).encode()},
        )

    def events_schema(self) -> Any:
        """Of a row per start, update and end of a label's visit."""
        pa = arrow()
        return pa.schema(
            [
                ("path", pa.string()),
                ("kind", pa.string()),
                ("id", pa.string()),
                ("label", pa.string()),
                *((name, pa.float64()) for name in ("time_s", "start_s", "end_s")),
                *((name, pa.float64()) for name in ("score", "max_score")),
            ],
            metadata={_ABOUT: json.dumps(self.about).encode()},
        )

    def to_table(self, rows: Sequence[Row]) -> Any:
        """Make a table of rows."""
        pa = arrow()
        schema = self.rows_schema()
        columns = []
        for item in schema:
            values = [getattr(row, item.name) for row in rows]
            if item.name == "scores":
                columns.append(self._scores(values))
                continue
            if item.name == "modified_at":
                values = [
                    None if v is None else datetime.fromtimestamp(v, timezone.utc) for v in values
                ]
            if item.name == "error":  # it may quote names that are no text
                values = [None if v is None else one_line(v) for v in values]
            columns.append(pa.array(values, item.type))
        return pa.Table.from_arrays(columns, schema=schema)

    def _scores(self, values: Sequence[NDArray[np.float32] | None]) -> Any:
        pa = arrow()
        width = len(self.labels)
        none = np.zeros(width, np.float32)
        flat = np.concatenate([none if v is None else v for v in values] or [none[:0]])
        mask = pa.array([v is None for v in values], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), width, mask=mask)

    def to_events(self, path: str, events: Sequence[Event]) -> Any:
        """Make a table of events."""
        schema = self.events_schema()
        names = [name for name in schema.names if name != "path"]
        records = [{name: getattr(event, name) for name in names} for event in events]
        return arrow().Table.from_pylist([{"path": path, **r} for r in records], schema=schema)


def why_of(said: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Why labels were said, as a column holds it: a record per label, the most probable first.

    Args:
        said: By label, as `Why.to_dict` tells it.
    """
    kept = {field.name for field in _why_type().value_type}
    records = []
    for label, told in said.items():
        others = [{"label": name, "amount": amount} for name, amount in told["others"].items()]
        record = {name: value for name, value in told.items() if name in kept}
        records.append({**record, "label": label, "others": others})
    return records


def _why_type() -> Any:
    pa = arrow()
    amounts = ("own", "surroundings", "others_rest", "bias", "logit")
    other = pa.struct([("label", pa.string()), ("amount", pa.float32())])
    return pa.list_(
        pa.struct(
            [
                ("label", pa.string()),
                *((name, pa.float32()) for name in amounts),
                ("others", pa.list_(other)),
                ("because_of_surroundings", pa.bool_()),
                ("map", pa.list_(pa.list_(pa.float32()))),
            ]
        )
    )


class PartWriter:
    """Writes the rows of one unit, a group at a time."""

    def __init__(self, tables: Tables, writer: Any) -> None:
        """Start empty; see `writing`."""
        self.counts = Counts(units=1)
        self._tables, self._writer = tables, writer
        self.facts: dict[bytes, bytes] = {}  # written into the file beside the counts
        self._held: list[Row] = []

    def add(self, row: Row) -> None:
        """Take a row."""
        self.counts.note(row)
        self._held.append(row)
        if len(self._held) >= _ROWS_A_GROUP:
            self.flush()

    def add_table(self, table: Any) -> None:
        """Take rows of a table, which are not counted."""
        self.flush()
        self._writer.write_table(table)

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            self._writer.write_table(self._tables.to_table(self._held))
            self._held = []


@contextmanager
def writing(store: Store, name: str, tables: Tables, schema: Any = None) -> Iterator[PartWriter]:
    """Write a table's file; it gets its place at the end of the block, unless that raises.

    Args:
        store: Of the dataset.
        name: Of the file, with its folder.
        tables: Of the dataset.
        schema: Of the table; that of rows by default.
    """
    pa = arrow()
    path = store.scratch() / f"{os.getpid()}-{Path(name).name}"
    schema = tables.rows_schema() if schema is None else schema
    try:
        with pa.parquet.ParquetWriter(
            str(path), schema, compression="zstd", use_dictionary=_DICTIONARY
        ) as writer:
            part = PartWriter(tables, writer)
            yield part
            part.flush()
            part.facts[_COUNTS] = json.dumps(asdict(part.counts)).encode()
            writer.add_key_value_metadata(part.facts)
        store.put(name, path)
    finally:
        path.unlink(missing_ok=True)


def read_counts(store: Store, name: str) -> Counts:
    """What the unit of a file amounts to, from the file's own words."""
    with store.open(name) as file, being_read(store.root, name):
        metadata = arrow().parquet.ParquetFile(file).metadata.metadata
        return Counts(**json.loads(metadata[_COUNTS]))
