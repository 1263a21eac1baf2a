"""Hashes of pictures, remembered by path, size and time of change: a start need not read them all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import clear_parts, write_atomically

Known = dict[str, tuple[int, int, str]]  # path -> size, modification time in ns, SHA-256
_log = logging.getLogger(__name__)


def hash_pictures(
    paths: Sequence[Path], memory: Path | None, report: Callable[[], None] = lambda: None
) -> list[str]:
    """SHA-256 of every file, in order.

    Args:
        paths: Of the pictures.
        memory: File of hashes that earlier runs left, written anew where pictures were read.
        report: Called after each picture.

    Raises:
        DataError: A picture cannot be read.
    """
    known = {} if memory is None else _load(memory)
    found: Known = {}
    with ThreadPoolExecutor() as threads:
        for path, entry in zip(paths, threads.map(lambda p: _hash(p, known), paths), strict=True):
            found[str(path.absolute())] = entry
            report()
    if memory is not None and any(known.get(path) != entry for path, entry in found.items()):
        _store(memory, known | found)
    return [found[str(path.absolute())][2] for path in paths]


def _hash(path: Path, known: Known) -> tuple[int, int, str]:
    try:
        stat = path.stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
        entry = known.get(str(path.absolute()))
        if entry is not None and entry[:2] == stamp:
            return entry
        return (*stamp, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _load(memory: Path) -> Known:
    if not memory.is_file():
        return {}
    try:
        record = json.loads(memory.read_bytes())
        return {path: (int(size), int(time), str(digest)) for path, (size, time, digest) in
                record.items()}  # fmt: skip
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("%s is damaged (%s): hashing the pictures again", memory, error)
        return {}


def _store(memory: Path, known: Known) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        clear_parts(memory)
        write_atomically(memory, json.dumps(known).encode())
    except OSError as error:  # costs only time
        _log.warning("%s cannot be written: %s", memory, error.strerror)
