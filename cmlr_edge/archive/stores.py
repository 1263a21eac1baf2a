"""Where a dataset lies: a folder of this machine, or an address of object storage.

Both give a file its place whole or not at all: by a rename here, by one upload there.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from cmlr_edge.archive.packages import filesystem
from cmlr_edge.errors import CaptureError, CmlrError, DataError, OutputError
from cmlr_edge.model.files import write_atomically
from cmlr_edge.redaction import one_line, redact, told

_STALE_S = 86_400.0  # of a folder whose process is gone


@contextmanager
def being_read(root: str, name: str) -> Iterator[None]:
    """Say of a dataset's own file that it is damaged, whatever its reader raises.

    Raises:
        DataError: It is.
    """
    try:
        yield
    except CmlrError:
        raise
    except (ValueError, KeyError, TypeError, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise  # pyarrow gives plain ones without a number for content; a storage forbids
        raise DataError(
            f"{redact(root)}/{name} is damaged: {one_line(error)[:200]}; delete it, and `cmlr-edge archive "
            f"--out {redact(root)}` does again what was in it"
        ) from error


@contextmanager
def being_written(root: str) -> Iterator[None]:
    """Say where there is no room: what writes a table names no file.

    Raises:
        OutputError: The dataset cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OutputError(
            f"cannot write into {redact(root)}: {os.strerror(error.errno)}"
        ) from error


class Store(Protocol):
    """A folder of files, by names that may hold `/`."""

    root: str  # its path or address

    def scratch(self) -> Path:
        """A folder of this machine to write a file in before it gets its place."""
        ...

    def put(self, name: str, file: Path) -> None:
        """Move a finished file of `scratch` to its place; what is there is replaced."""
        ...

    def put_bytes(self, name: str, content: bytes) -> None:
        """Likewise, with what it is to hold."""
        ...

    def read(self, name: str) -> bytes:
        """All that a file holds.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def open(self, name: str) -> IO[bytes]:
        """Open a file that can seek."""
        ...

    def names(self, folder: str) -> set[str]:
        """Names of the files directly in a folder, which need not exist; without those of ends."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, if they are there."""
        ...


def is_address(text: str) -> bool:
    """Tell s3://bucket/folder from a path of this machine."""
    return "://" in text and not text.startswith("file://")


def open_store(where: str) -> Store:
    """Return the store at a path or an address; nothing is created yet."""
    return RemoteStore(where) if is_address(where) else LocalStore(where)


def opened_address(url: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it.

    Raises:
        CaptureError: It holds a password, or nobody knows this kind of address.
        DependencyError: What reads it is not installed.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or (parts.scheme in {"http", "https"} and parts.query):
        raise CaptureError(
            f"{redact(url)} may hold a password, which would be stored with every row: give it to the "
            "storage by its own variables or files"
        )
    try:
        return filesystem(url)
    except ValueError as error:
        raise CaptureError(f"cannot open {redact(url)}: {error}") from error


def temporary_folder(owner: object) -> Path:
    """A folder that goes with its owner; those of processes that were killed a day ago or more are removed."""
    for folder in Path(tempfile.gettempdir()).glob("cmlr-archive-*-*"):
        pid = folder.name.split("-")[2]
        with suppress(OSError):
            about = folder.lstat()
            is_old = time.time() - about.st_mtime > _STALE_S and about.st_uid == os.getuid()
            if is_old and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"cmlr-archive-{os.getpid()}-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


class LocalStore:
    """A folder of this machine, or one that several machines share."""

    def __init__(self, root: str) -> None:
        """Use the folder, which need not exist."""
        self._folder = Path(root.removeprefix("file://")).absolute()
        self.root = str(self._folder)

    def scratch(self) -> Path:
        """See `Store`: beside the places, so that a rename is enough."""
        folder = self._folder / ".scratch"
        self._made(folder)
        return folder

    def put(self, name: str, file: Path) -> None:
        """See `Store`."""
        path = self._folder / name
        self._made(path.parent)
        with file.open("rb") as written:
            os.fsync(written.fileno())
        file.replace(path)

    def put_bytes(self, name: str, content: bytes) -> None:
        """See `Store`."""
        path = self._folder / name
        self._made(path.parent)
        write_atomically(path, content)

    def read(self, name: str) -> bytes:
        """See `Store`."""
        return (self._folder / name).read_bytes()

    def open(self, name: str) -> IO[bytes]:
        """See `Store`."""
        return (self._folder / name).open("rb")

    def names(self, folder: str) -> set[str]:
        """See `Store`."""
        try:
            with os.scandir(self._folder / folder) as entries:
                return {entry.name.partition(".")[0] for entry in entries if entry.name[0] != "."}
        except FileNotFoundError:
            return set()

    def has(self, name: str) -> bool:
        """See `Store`."""
        return (self._folder / name).exists()

    def remove(self, names: Iterable[str]) -> None:
        """See `Store`."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what a run that was killed left unfinished; for whoever holds the dataset."""
        shutil.rmtree(self._folder / ".scratch", ignore_errors=True)

    @staticmethod
    def _made(folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error


class RemoteStore:
    """A folder in object storage."""

    def __init__(self, url: str) -> None:
        """Open the file system; the folder need not exist."""
        self.root = url.rstrip("/")
        self._fs, self._path = opened_address(self.root)
        self._scratch: Path | None = None

    def scratch(self) -> Path:
        """See `Store`."""
        if self._scratch is None:
            self._scratch = temporary_folder(self)
        return self._scratch

    def put(self, name: str, file: Path) -> None:
        """See `Store`: an upload in parts is seen when it is complete."""
        with self._at(name) as place:
            self._fs.put_file(str(file), place)
        file.unlink()

    def put_bytes(self, name: str, content: bytes) -> None:
        """See `Store`."""
        with self._at(name) as place:
            self._fs.pipe_file(place, content)

    def read(self, name: str) -> bytes:
        """See `Store`."""
        with self._at(name) as place:
            return bytes(self._fs.cat_file(place))

    def open(self, name: str) -> IO[bytes]:
        """See `Store`."""
        with self._at(name) as place:
            file: IO[bytes] = self._fs.open(place, "rb")
            return file

    def names(self, folder: str) -> set[str]:
        """See `Store`."""
        self._fs.invalidate_cache()
        try:
            with self._at(folder) as place:
                found = self._fs.ls(place, detail=False)
        except FileNotFoundError:
            return set()
        return {path.rpartition("/")[2].partition(".")[0] for path in found}

    def has(self, name: str) -> bool:
        """See `Store`."""
        try:
            self._fs.invalidate_cache()
            with self._at(name) as place:
                self._fs.info(place)
        except FileNotFoundError:
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """See `Store`."""
        for name in names:
            with suppress(FileNotFoundError), self._at(name) as place:
                self._fs.rm_file(place)

    @contextmanager
    def _at(self, name: str) -> Iterator[str]:
        """Where a file is; what forbids it says neither its own number nor which file."""
        try:
            yield f"{self._path}/{name}"
        except PermissionError as error:
            raise PermissionError(
                errno.EACCES, one_line(error) or "forbidden", f"{self.root}/{name}"
            ) from error
        except (CmlrError, FileNotFoundError, MemoryError):
            raise
        except Exception as error:  # whatever a client of some storage raises
            raise OutputError(
                f"cannot use {redact(f'{self.root}/{name}')}: {told(error)}"
            ) from error
