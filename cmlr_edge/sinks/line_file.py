"""A text file that only ever holds whole lines, and that one program writes at a time."""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from io import FileIO
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.machine.waiting import try_lock
from cmlr_edge.model.files import followed, is_plain

KEEP = 5  # older files: path.1 is the youngest
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_DISK = {errno.EROFS, errno.EIO, *_NO_ROOM}
_LEAST_BYTES = 4096  # of a file, however little room there is
_log = logging.getLogger(__name__)


class LineFile:
    """Appends lines; a process killed at any moment leaves whole ones.

    The file is locked (flock) while it is written, whatever names lead to it. Where somebody moved it
    away or emptied it, as logrotate does, lines go on in a new one.
    """

    def __init__(
        self,
        path: Path,
        *,
        header: str = "",
        rotate_bytes: int | None = None,
        keep: int = KEEP,
        keep_old: bool = False,
    ) -> None:
        """Remember the path; the file is created, or added to, at the first line.

        Args:
            path: Its folder must exist.
            header: First line of every file, without its end; empty for none.
            rotate_bytes: A file that would grow beyond is renamed to `path.1`, older ones to `path.2`
                and so on; earlier, where the disk has no room for all of them. On a full disk the
                oldest is deleted. None for a single file.
            keep: Renamed files to keep; older ones are deleted.
            keep_old: Go on behind the last whole line of a file that is there already, if it has the
                same header; else it is renamed to `path.1`, as above.
        """
        self._path = path
        self._header = f"{header}\n".encode() if header else b""
        self._rotate_bytes = rotate_bytes
        self._keep = keep
        self._keep_old = keep_old
        self._file: FileIO | None = None
        self._is_ready = False  # whether `_file` ends behind a whole line
        self._size = 0
        self._limit = 0  # of this file; 0 for none
        self._drops = Rarely()

    def claim(self) -> None:
        """Lock the file, if it is there; nothing is created or changed.

        Raises:
            OutputError: Another program writes it, or it may not be written.
        """
        try:
            with suppress(FileNotFoundError):
                if is_plain(self._path):
                    self._file = _locked(self._path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            if error.errno not in _OF_THE_DISK:  # lines are lost and counted, until it is mended
                raise self._error(error) from error

    def append(self, line: str) -> None:
        """Write one line.

        Args:
            line: Without its end.

        Raises:
            OutputError: It cannot be written, and nothing of it is in the file. The next may succeed.
        """
        data = line.encode() + b"\n"
        try:
            while not self._has_appended(data):
                pass
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Close the file. Calling it twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file, self._is_ready = None, False

    def _error(self, error: OSError) -> OutputError:
        if isinstance(error, BlockingIOError):
            why = "another program writes it; give each its own file"
        elif isinstance(error, BrokenPipeError):
            why = "nobody reads it; lines are lost until somebody does"
        else:
            why = f"{error.strerror}; {_remedy(error)}"
        return OutputError(f"cannot write {self._path}: {why}")

    def _has_appended(self, data: bytes) -> bool:
        """Append, or make room to try again."""
        try:
            self._append(data)
        except OSError as error:
            if error.errno not in _NO_ROOM or not self._drop_oldest():
                raise
            return False
        return True

    def _append(self, data: bytes) -> None:
        if self._file is None or not self._is_there():
            self._open()
        if not self._is_ready:
            self._prepare()
        if self._limit and self._size > 0 and self._size + len(data) > self._limit:
            self._rotate()
            self._open()
            self._prepare()
        assert self._file is not None
        self._write(self._file, data if self._size else self._header + data)

    def _is_there(self) -> bool:
        """Whether the name still leads to the file that is written, and it holds what was written."""
        assert self._file is not None
        ours = os.fstat(self._file.fileno())
        is_file = stat.S_ISREG(ours.st_mode)
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return not is_file  # where a pipe is made anew, a file must not be in its way
        if is_file:
            self._is_ready &= found.st_size == self._size
        return os.path.samestat(found, ours)

    def _open(self) -> None:
        self.close()
        if is_plain(self._path):
            self._file = _locked(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            return
        self._file, self._is_ready = self._path.open("wb", buffering=0), True
        self._size = self._limit = 0

    def _prepare(self) -> None:
        """Begin behind the last whole line, or put aside what is there."""
        assert self._file is not None
        self._size = _end_of_last_line(self._file)
        if self._size and not (self._keep_old and self._has_header(self._file)):
            self._rotate()
            self._open()
            assert self._file is not None
            self._size = _end_of_last_line(self._file)
        self._file.truncate(self._size)
        self._limit = self._share_of_room() if self._rotate_bytes else 0
        self._is_ready = self._keep_old = True  # from here on it is ours

    def _has_header(self, file: FileIO) -> bool:
        return os.pread(file.fileno(), len(self._header), 0) == self._header

    def _share_of_room(self) -> int:
        """The bound of this file, such that it and its predecessors find room together."""
        assert self._rotate_bytes is not None
        disk = os.statvfs(self._path.absolute().parent)
        held = sum(name.stat().st_size for name in self._names() if name.exists())
        share = (disk.f_bavail * disk.f_frsize + held) // (self._keep + 1)
        return min(self._rotate_bytes, max(share, _LEAST_BYTES))

    def _write(self, file: FileIO, data: bytes) -> None:
        # One unbuffered write per line: the kernel has all of it or nothing, but where there is no more room.
        written = file.write(data) or 0
        if written != len(data):
            try:
                # Tells why: a full disk, a quota, a limit of the process.
                file.write(data[written:])
            finally:
                file.truncate(self._size)
            raise OSError(errno.ENOSPC, "the disk is full")
        self._size += written

    def _names(self) -> list[Path]:
        """This file and its predecessors, the youngest first; not those of a link that leads to it."""
        path = followed(self._path)
        return [path, *(Path(f"{path}.{i + 1}") for i in range(self._keep))]

    def _rotate(self) -> None:
        names = self._names()
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)
        self.close()

    def _drop_oldest(self) -> bool:
        """Make room on a full disk, if there is an older file to do so."""
        older = [name for name in self._names()[1:] if name.exists()]
        if self._rotate_bytes is None or not older:
            return False
        older[-1].unlink()
        if self._drops.may_say():
            _log.warning("the disk is full: deleted the oldest lines, in %s", older[-1])
        return True


def _locked(path: Path, flags: int) -> FileIO:
    """Open a file and hold its lock, which goes with the process.

    Raises:
        BlockingIOError: Somebody holds it.
    """
    file = FileIO(os.open(path, flags | os.O_CLOEXEC, 0o666), "r+")
    if not try_lock(file):
        file.close()
        raise BlockingIOError(errno.EAGAIN, "somebody holds it")
    return file


def _remedy(error: OSError) -> str:
    """What to do about a file that cannot be written."""
    if error.errno in _NO_ROOM:
        return "choose another place or free some space"
    if isinstance(error, PermissionError):
        return "let the user of this program write there, or choose another place"
    return "choose another place"


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
