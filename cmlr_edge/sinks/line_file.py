"""A text file that only ever holds whole lines."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

from cmlr_edge.errors import OutputError


class LineFile:
    """Appends lines; a process killed at any moment leaves whole ones."""

    def __init__(
        self,
        path: Path,
        *,
        header: str = "",
        rotate_bytes: int | None = None,
        keep: int = 5,
        keep_old: bool = False,
    ) -> None:
        """Remember the path; the file is replaced at the first line, or gone on with.

        Args:
            path: Its folder must exist.
            header: First line of every file, without its end; empty for none.
            rotate_bytes: A file that would grow beyond is renamed to `path.1`, older ones to `path.2`
                and so on. None for a single file.
            keep: Renamed files to keep; older ones are deleted.
            keep_old: Go on behind the last whole line of a file that is there already.
        """
        self._path = path
        self._header = f"{header}\n".encode() if header else b""
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._keep_old = keep_old
        self._file: FileIO | None = None
        self._size = 0

    def append(self, line: str) -> None:
        """Write one line.

        Args:
            line: Without its end.

        Raises:
            OutputError: It cannot be written, and nothing of it is in the file. The next may succeed.
        """
        data = line.encode() + b"\n"
        try:
            if self._file is None:
                self._open()
            if self._is_full(len(data)):
                self._rotate()
                self._open()
            assert self._file is not None
            self._write(self._file, data if self._size else self._header + data)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; choose another place or free some space"
            ) from error

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        if not (self._keep_old and self._path.is_file()):
            self._file, self._size = self._path.open("wb", buffering=0), 0
            return
        self._file = self._path.open("r+b", buffering=0)
        self._size = _end_of_last_line(self._file)
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def _write(self, file: FileIO, data: bytes) -> None:
        # One unbuffered write per line: the kernel has all of it or nothing, but on a full disk.
        written = file.write(data) or 0
        if written != len(data):
            file.truncate(self._size)
            file.seek(self._size)
            raise OSError(None, "the disk is full")
        self._size += written

    def _is_full(self, more: int) -> bool:
        return (
            self._rotate_bytes is not None
            and self._size > 0
            and (self._size + more > self._rotate_bytes)
        )

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{i + 1}") for i in range(self._keep))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        if self._file is not None:
            self._file.close()
            self._file = None


def _end_of_last_line(file: FileIO) -> int:
    """Where the last whole line ends; a power cut may have left a part of one behind it."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
