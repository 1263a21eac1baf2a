"""Units of work: what is done at once, under a name that tells its content, so that doing it twice is harmless."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cmlr_edge.archive.inputs import Item, Kind
from cmlr_edge.archive.packages import arrow
from cmlr_edge.archive.stores import Store, being_read, being_written, is_address
from cmlr_edge.errors import SpecError
from cmlr_edge.redaction import printable

PLAN = "_plan.parquet"
_UNITS_A_GROUP = 16  # of the plan's file, which is read group by group
_MIB = 2**20
_LEAST_PART_MB = 1e-4  # of a gigabyte 10 million parts, which a plan has to hold


@dataclass(frozen=True)
class Cutting:
    """How large a unit is: what is lost when it is killed, and how finely work is shared out."""

    chunk: int = 1000  # pictures
    part_mb: float = 64.0  # of a film, or of another file that holds much

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.chunk < 1 or not _LEAST_PART_MB <= self.part_mb < math.inf:
            raise SpecError(
                f"--chunk is {self.chunk} and --part-mb {self.part_mb}: expected at least 1, and "
                f"{_LEAST_PART_MB:g} megabytes"
            )


@dataclass(frozen=True)
class Unit:
    """Some pictures, or a part of one file that holds many."""

    kind: Kind
    items: tuple[Item, ...]
    part: int = 0
    parts: int = 1
    number: int = -1  # in the plan; -1 for none

    @cached_property
    def whole(self) -> str:
        """16 hexadecimal digits that all parts of one file have in common."""
        content = repr([self.kind, self.parts, *((i.path, i.size, i.modified) for i in self.items)])
        return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:16]

    @cached_property
    def name(self) -> str:
        """Of its file in the dataset, without folder and ending."""
        return self.whole if self.parts == 1 else f"{self.whole}-{self.part:06d}"

    @property
    def size(self) -> int:
        """Its share of the bytes to be read."""
        return sum(item.size for item in self.items) // self.parts

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Unit:
        """Read what `to_record` built."""
        items = tuple(Item(**item) for item in record["items"])
        return cls(record["kind"], items, record["part"], record["parts"], record["number"])


def cut(items: Iterable[Item], cutting: Cutting) -> Iterator[Unit]:
    """Yield units of files in their order; one folder's pictures are together."""
    pictures: list[Item] = []
    for item in items:
        if item.kind == "picture":
            pictures.append(item)
            if len(pictures) == cutting.chunk:
                yield Unit("picture", tuple(pictures))
                pictures = []
            continue
        parts = _parts(item, cutting)
        for part in range(parts):
            yield Unit(item.kind, (item,), part, parts)
    if pictures:
        yield Unit("picture", tuple(pictures))


def _parts(item: Item, cutting: Cutting) -> int:
    """How many parts a file is read in; by its size alone, for strange files are opened by workers."""
    return 1 if is_stream(item) else max(1, round(item.size / (cutting.part_mb * _MIB)))


def is_stream(item: Item) -> bool:
    """Whether a file is read from its beginning to its end alone: a tar that is packed, or far away."""
    is_near = item.path.lower().endswith(".tar") and not is_address(item.path)
    return item.kind == "tar" and not is_near


@dataclass(frozen=True)
class PlanSize:
    """What a plan amounts to."""

    units: int = 0
    size: int = 0  # in bytes
    pictures: int = 0
    films: int = 0
    holders: int = 0  # .tar and .parquet files


def write_plan(units: Iterable[Unit], store: Store) -> PlanSize:
    """Write the plan, whole or not at all; it is held in memory a group at a time."""
    pa = arrow()
    schema, path, count = _schema(), store.scratch() / f"plan.{os.getpid()}", PlanSize()
    with being_written(store.root):
        with pa.parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
            for group in _grouped(units):
                count = measure(group, count)
                rows = [_to_row(unit) for unit in group]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        store.put(PLAN, path)
    return count


def measure(units: Iterable[Unit], before: PlanSize | None = None) -> PlanSize:
    """Add up what units amount to."""
    total = asdict(before or PlanSize())
    for unit in units:
        total["units"] += 1
        total["size"] += unit.size
        if unit.kind == "picture":
            total["pictures"] += len(unit.items)
        elif unit.part == 0:
            total["films" if unit.kind == "film" else "holders"] += 1
    return PlanSize(**total)


class Plan:
    """A plan that was written, read group by group; pictures of ten million take no more memory."""

    def __init__(self, store: Store) -> None:
        """Open it.

        Raises:
            FileNotFoundError: There is none.
            DataError: It is damaged.
        """
        self._root = store.root
        with ExitStack() as cleanup:
            opened = cleanup.enter_context(store.open(PLAN))
            with being_read(self._root, PLAN):
                self._file = arrow().parquet.ParquetFile(opened)
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Plan:
        """Return itself."""
        return self

    def __exit__(self, *about: object) -> None:
        """Close its file."""
        self._cleanup.close()

    def __iter__(self) -> Iterator[Unit]:
        """Yield the units in order."""
        for index in range(self._file.num_row_groups):
            yield from self.group(index)

    def group(self, index: int) -> list[Unit]:
        """The units of one group."""
        with being_read(self._root, PLAN):
            rows = self._file.read_row_group(index).to_pylist()
            return [_from_row(row, index * _UNITS_A_GROUP + i) for i, row in enumerate(rows)]

    def unit(self, number: int) -> Unit:
        """One unit."""
        return self.group(number // _UNITS_A_GROUP)[number % _UNITS_A_GROUP]


def _grouped(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    for unit in units:
        group.append(unit)
        if len(group) == _UNITS_A_GROUP:
            yield group
            group = []
    if group:
        yield group


def _schema() -> Any:
    pa = arrow()
    return pa.schema(
        [
            ("kind", pa.string()),
            ("part", pa.int32()),
            ("parts", pa.int32()),
            ("paths", pa.list_(pa.binary())),
            ("sizes", pa.list_(pa.int64())),
            ("modified", pa.list_(pa.float64())),
        ]
    )


def _to_row(unit: Unit) -> dict[str, Any]:
    return {
        "kind": unit.kind,
        "part": unit.part,
        "parts": unit.parts,
        "paths": [os.fsencode(item.path) for item in unit.items],
        "sizes": [item.size for item in unit.items],
        "modified": [item.modified for item in unit.items],
    }


def _from_row(row: dict[str, Any], number: int) -> Unit:
    items = zip(row["paths"], row["sizes"], row["modified"], strict=True)
    return Unit(
        row["kind"],
        tuple(Item(row["kind"], os.fsdecode(path), size, when) for path, size, when in items),
        row["part"],
        row["parts"],
        number,
    )


def shown_path(item: Item) -> str:
    """The path of an item in rows and messages."""
    return item.path if is_address(item.path) else printable(Path(item.path))
