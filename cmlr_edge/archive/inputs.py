"""What is to be labelled: the files that folders, patterns and addresses mean, in a fixed order."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cmlr_edge.archive.stores import is_address, opened_address
from cmlr_edge.capture.images import IMAGE_SUFFIXES
from cmlr_edge.errors import CaptureError
from cmlr_edge.redaction import printable, redact

Kind: TypeAlias = Literal["picture", "film", "tar", "parquet"]
FILM_SUFFIXES = (
    ".3gp", ".asf", ".avi", ".dav", ".divx", ".flv", ".h264", ".h265", ".hevc", ".m2ts", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ts", ".webm", ".wmv",
)  # fmt: skip
TAR_SUFFIXES = (".tar", ".tar.bz2", ".tar.gz", ".tar.xz", ".tgz")
HEADER = "_archive.json"  # a folder that holds it is a dataset of ours
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """One file to be read."""

    kind: Kind
    path: str  # of this machine, with bytes that are no text as Python carries them; or an address
    size: int  # in bytes
    modified: float | None = None  # seconds since the epoch, as its file system says


def list_items(inputs: Iterable[str]) -> Iterator[Item]:
    """Yield the files that arguments mean, each once, in an order that only names decide.

    Args:
        inputs: Files, folders with all below them, and patterns; of this machine or as addresses.

    Raises:
        CaptureError: An argument means nothing that can be labelled.
    """
    inputs = list(inputs)
    seen: set[bytes] = set()
    for text in inputs:
        listed = _list_address(text) if is_address(text) else _list_here(text)
        found = False
        for item in listed:
            found = True
            if len(inputs) > 1:
                # Whole names of ten million files would fill the memory.
                key = hashlib.blake2b(os.fsencode(item.path), digest_size=12).digest()
                if key in seen:
                    continue
                seen.add(key)
            yield item
        if not found:
            raise CaptureError(
                f"{printable(redact(text))} holds nothing to label: looked for pictures, films, .tar "
                "and .parquet"
            )


def kind_of(name: str) -> Kind | None:
    """What a file is by its name; None for what is not labelled."""
    lower = name.lower()
    if lower.endswith(IMAGE_SUFFIXES):
        return "picture"
    if lower.endswith(FILM_SUFFIXES):
        return "film"
    if lower.endswith(TAR_SUFFIXES):
        return "tar"
    return "parquet" if lower.endswith(".parquet") else None


def _list_here(text: str) -> Iterator[Item]:
    path = Path(text.removeprefix("file://"))
    if path.is_dir():
        yield from _walk(path.absolute())
    elif path.exists():
        yield _here(path.absolute(), kind_of(path.name) or "film")
    elif glob.has_magic(text):
        for match in sorted(glob.glob(text, recursive=True)):
            found, kind = Path(match).absolute(), kind_of(match)
            if kind is not None and not found.is_dir() and not _is_in_dataset(found):
                yield _here(found, kind)
    else:
        raise CaptureError(
            f"there is no {printable(text)}: give pictures, films, folders, quoted patterns, .tar or "
            ".parquet files, or addresses such as s3://bucket/folder"
        )


def _is_in_dataset(path: Path) -> bool:
    return any((folder / HEADER).exists() for folder in path.parents)


def _walk(root: Path) -> Iterator[Item]:
    others, closed = Counter[str](), list[str]()
    for folder, folders, files in os.walk(
        root, onerror=lambda error: closed.append(error.filename)
    ):
        if HEADER in files:
            _log.warning("%s: left out, it is a dataset of labels", printable(folder))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            kind = kind_of(name)
            if name.startswith(".") or kind is None:
                others[Path(name).suffix or "without a suffix"] += 1
                continue
            yield _here(Path(folder) / name, kind)
    yield from (Item("picture", folder, 0) for folder in sorted(closed))  # a row says why
    _tell_others(printable(root), others)


def _here(path: Path, kind: Kind) -> Item:
    try:
        about = path.stat()
    except OSError:  # it will be a row with its error
        return Item(kind, str(path), 0)
    return Item(
        kind, str(path), about.st_size if stat.S_ISREG(about.st_mode) else 0, about.st_mtime
    )


def _list_address(url: str) -> Iterator[Item]:
    fs, path = opened_address(url)
    try:
        if glob.has_magic(path) and not fs.exists(path):
            found = fs.glob(path, detail=True)
            yield from _there(fs, [found[name] for name in sorted(found)], named=False)
        elif (info := fs.info(path))["type"] == "directory":
            yield from _walk_there(fs, path)
        else:
            yield from _there(fs, [info], named=True)
    except FileNotFoundError as error:
        raise CaptureError(f"there is no {printable(redact(url))}") from error
    except CaptureError:
        raise
    except Exception as error:  # whatever a client of some storage raises
        raise CaptureError(f"cannot list {printable(redact(url))}: {redact(str(error))}") from error


def _walk_there(fs: Any, path: str) -> Iterator[Item]:
    others = Counter[str]()
    for _, folders, files in fs.walk(path, detail=True):
        if HEADER in files:
            folders.clear()
            continue
        kept = [name for name in sorted(files) if name and kind_of(name) is not None]
        others.update(Path(name).suffix for name in files if name and kind_of(name) is None)
        yield from _there(fs, [files[name] for name in kept], named=False)
        for name in sorted(folders):  # the walk follows the order of this mapping
            folders[name] = folders.pop(name)
    _tell_others(path, others)


def _there(fs: Any, infos: list[dict[str, Any]], *, named: bool) -> Iterator[Item]:
    for info in infos:
        name = str(info["name"])
        kind = kind_of(name) or ("film" if named else None)
        if kind is None or info["type"] != "file":
            continue
        yield Item(kind, fs.unstrip_protocol(name), int(info.get("size") or 0), _modified(info))


def _modified(info: dict[str, Any]) -> float | None:
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _tell_others(where: str, others: Counter[str]) -> None:
    if others:
        told = ", ".join(f"{count} {printable(kind)}" for kind, count in others.most_common(5))
        _log.warning("%s: left out: %s", where, told)
