"""A text file that only ever holds whole lines."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

from cmlr_edge.errors import OutputError


class LineFile:
    """Appends lines; a process killed at any moment leaves whole ones."""

    def __init__(
        self, path: Path, *, header: str = "", rotate_bytes: int | None = None, keep: int = 5
    ) -> None:
        """Remember the path; the file is replaced at the first line.

        Args:
            path: Its folder must exist.
            header: First line of every file, without its end; empty for none.
            rotate_bytes: A file that would grow beyond is renamed to `path.1`, older ones to `path.2`
                and so on. None for a single file.
            keep: Renamed files to keep; older ones are deleted.
        """
        self._path = path
        self._header = f"{header}\n".encode() if header else b""
        self._rotate_bytes = rotate_bytes
        self._keep = keep
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
            if self._file is not None and self._is_full(len(data)):
                self._rotate()
            if self._file is None:
                self._file, self._size = self._path.open("wb", buffering=0), 0
            self._write(self._file, data if self._size else self._header + data)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; choose another place or free some space"
            ) from error

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()

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
