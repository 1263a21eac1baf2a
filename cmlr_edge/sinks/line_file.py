"""A text file that only ever holds whole lines."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

from cmlr_edge.errors import OutputError


class LineFile:
    """Appends lines; a process killed at any moment leaves whole ones."""

    def __init__(self, path: Path) -> None:
        """Remember the path; the file is replaced at the first line.

        Args:
            path: Its folder must exist.
        """
        self._path = path
        self._file: FileIO | None = None

    def append(self, line: str) -> None:
        """Write one line.

        Args:
            line: Without its end.

        Raises:
            OutputError: It cannot be written; nothing of it is in the file.
        """
        data = line.encode() + b"\n"
        try:
            if self._file is None:
                self._file = self._path.open("wb", buffering=0)
            # One unbuffered write per line: the kernel has all of it or nothing.
            written = self._file.write(data)
        except OSError as error:
            raise OutputError(
                f"cannot write {self._path}: {error.strerror}; choose another place or free some space"
            ) from error
        if written != len(data):
            self._file.truncate(self._file.tell() - (written or 0))
            self._file.seek(0, 2)
            raise OutputError(f"cannot write {self._path}: the disk is full; free some space")

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()
