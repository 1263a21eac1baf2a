"""Archives of small pictures and films, and the tables that came of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.dataset
import pyarrow.parquet

from cmlr_edge import Recognizer
from cmlr_edge.archive.dataset import Tables
from cmlr_edge.archive.inputs import list_items
from cmlr_edge.archive.labeller import Labeller
from cmlr_edge.archive.plan import Cutting, Unit, cut
from cmlr_edge.archive.stores import open_store
from tests.conftest import Image

Record = dict[str, Any]


def write_pictures(folder: Path, count: int, size_hw: tuple[int, int] = (30, 40)) -> list[Path]:
    """PNG files of random colours, the same every time."""
    folder.mkdir(parents=True, exist_ok=True)
    random, paths = np.random.default_rng(0), []
    for index in range(count):
        image = np.empty((*size_hw, 3), np.uint8)
        image[:] = random.integers(0, 256, 3)
        paths.append(folder / f"{index:04d}.png")
        cv2.imwrite(str(paths[-1]), image)
    return paths


def encoded(image: Image) -> bytes:
    """A PNG in memory."""
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def label_here(
    recognizer: Recognizer,
    inputs: Iterable[Path | str],
    out: Path,
    cutting: Cutting | None = None,
    max_fps: float | None = None,
) -> list[Unit]:
    """Do an archive in this process, without a plan in a file; return its units."""
    units = [*cut(list_items(map(str, inputs)), cutting or Cutting())]
    labeller = Labeller(
        recognizer, Tables(recognizer.labels, {}), open_store(str(out)), lambda _: None, max_fps
    )
    for unit in units:
        labeller.do(unit, {})
    for unit in units:
        if unit.kind == "film" and unit.parts > 1 and unit.part == 0:
            labeller.join(replace(unit, part=0))
    return units


def rows_of(out: Path) -> list[Record]:
    """All rows, pictures by path and frames by number."""
    found = [record for path in out.glob("rows/*/*.parquet") for record in read(path)]
    return sorted(
        found,
        key=lambda r: (r["path"], r["member"] or "", -1 if r["frame"] is None else r["frame"]),
    )


def events_of(out: Path) -> list[Record]:
    """All events, in the order of each film."""
    return [record for path in sorted(out.glob("events/*.parquet")) for record in read(path)]


def read(path: Path) -> list[Record]:
    """The rows of one file."""
    records: list[Record] = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    return records
