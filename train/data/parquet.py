"""Parquet with the bytes of pictures, as the Hugging Face Hub keeps data sets: unpacked once, beside it.

Columns: `image`, a struct with `bytes` or bytes alone; and `labels` or `label`: names, or numbers whose names the
file's schema tells.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import write_atomically
from train.data.base import LabeledImages, quote
from train.data.entries import Entry, from_entries, names_in, split_of

PICTURES = "pictures_of_parquet"  # folder that they are unpacked into
_DONE = "unpacked.json"
_ROWS = 64  # at a time
_SUFFIXES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"RI": ".webp", b"BM": ".bmp"}
_log = logging.getLogger(__name__)


def parquet_files(root: Path) -> list[Path]:
    """The files of a data set, in its folder or in `data`, by split or not."""
    return sorted(
        {*root.glob("*.parquet"), *root.glob("data/*.parquet"), *root.glob("*/*.parquet")}
    )


def read_parquet(root: Path) -> LabeledImages:
    """Unpack the pictures where that was not done yet, and read the labels.

    Raises:
        DependencyError: pyarrow is not installed.
        DataError: A file cannot be read, or holds no pictures or labels.
    """
    paths = parquet_files(root)
    folder = root / PICTURES
    state = {str(p.relative_to(root)): [p.stat().st_size, p.stat().st_mtime_ns] for p in paths}
    done, unpack = folder / _DONE, True
    if done.is_file():
        try:
            unpack = json.loads(done.read_text()) != state
        except ValueError:
            unpack = True
    if unpack:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _log.info("%s: pictures are unpacked into %s", root.name, folder)
    classes: list[str] | None = None
    entries: list[Entry] = []
    for path in paths:
        file = _open(path)
        column = _label_column(file, path)
        classes = classes or _names_of(file, column)
        entries += _entries(file, path, folder, column, _names_of(file, column), unpack=unpack)
    if unpack:
        write_atomically(done, json.dumps(state).encode())
    return from_entries(root, entries, classes, paths[0])


def _open(path: Path) -> Any:
    with needed(f"{path.name} needs pyarrow, which cannot be imported", "pip install pyarrow"):
        import pyarrow.parquet as pq
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _label_column(file: Any, path: Path) -> str:
    names = file.schema_arrow.names
    for name in ("labels", "label"):
        if name in names and "image" in names:
            return name
    raise DataError(f"{path} has the columns {quote(names)}: expected image, and labels or label")


def _names_of(file: Any, column: str) -> list[str] | None:
    """Names of numbered labels, from what Hugging Face keeps in the schema."""
    try:
        told = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        feature = told.get("info", {}).get("features", {}).get(column, {})
        while isinstance(feature, dict | list) and "names" not in feature:
            feature = feature[0] if isinstance(feature, list) else feature.get("feature")
    except (ValueError, AttributeError, IndexError, RecursionError):
        return None
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # {"0": "cat"}
        names = [names[key] for key in sorted(names, key=lambda k: (len(k), k))]
    return names if isinstance(names, list) and names else None


def _entries(
    file: Any, path: Path, folder: Path, column: str, names: list[str] | None, *, unpack: bool
) -> Iterator[Entry]:
    stem, row = re.sub(r"[^\w.-]", "_", path.stem), 0
    split = split_of(re.split(r"[-_.]", path.stem)[0], path.parent.name)
    try:
        for batch in file.iter_batches(_ROWS, columns=["image", column]):
            for record in batch.to_pylist():
                where = f"{path}: row {row}"
                image = record["image"]
                content = image.get("bytes") if isinstance(image, dict) else image
                if not isinstance(content, bytes) or not content:
                    raise DataError(f"{where} holds no bytes of a picture")
                picture = folder / f"{stem}_{row:07d}{_SUFFIXES.get(content[:2], '.jpg')}"
                if unpack:
                    picture.write_bytes(content)
                yield Entry(picture, split, _labels(record[column], names, where), where)
                row += 1
    except (OSError, ValueError, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error


def _labels(value: Any, names: list[str] | None, where: str) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    if names and any(type(item) is int and not 0 <= item < len(names) for item in items):
        raise DataError(f"{where} has the labels {quote(value)}: there are {len(names)}")
    return names_in([names[i] if names and type(i) is int else i for i in items], where)
