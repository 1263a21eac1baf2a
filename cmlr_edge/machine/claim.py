"""One program at a time: a lock file that says who holds it, and that no killed process leaves locked."""

from __future__ import annotations

import errno
import os
import platform
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.waiting import try_lock
from cmlr_edge.redaction import printable

IN_USE = ".cmlr-edge.lock"  # in a folder that one program fills
_LONGEST = 300  # bytes of what a lock file says
_ATTEMPTS = 10
_held: dict[Path, _Held] = {}
_guard = Lock()  # of the above


@dataclass
class _Held:
    """A lock file that this process holds, for as many as share it here."""

    file: int | None  # None where nothing can be locked: a full or read-only disk
    claims: int = 0


class Claim:
    """Holds a lock file against other processes; this one may claim it again.

    The kernel's lock (flock) decides, and it goes with its process: what the file says is for people. So
    neither a killed process nor a number that another container gave to its processes is in the way. Over
    NFS the server keeps the lock. A file system without locks excludes nobody.
    """

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock.

        Args:
            path: Of the lock file. It is made with the folders that it lies in, and goes with the claim.
            what: Is claimed, for the message.

        Raises:
            OutputError: Another process holds it; it says which.
        """
        self._path, self._what = Path(os.path.realpath(path.parent)) / path.name, what
        self._made = _missing(self._path.parent)
        self._is_closed = False
        with _guard:
            held = _held.setdefault(self._path, _Held(None))
            held.claims += 1
        with suppress(OSError):  # see `_taken`
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.renew()
        except OutputError:
            self.close()
            raise

    def renew(self) -> None:
        """Take the lock again where somebody deleted it, or where it could not be taken before.

        Nothing happens once it was given back.

        Raises:
            OutputError: Another process has taken it meanwhile.
        """
        with _guard:
            if self._is_closed:
                return
            held = _held[self._path]
            if held.file is not None and _is_at(held.file, self._path):
                return
            if held.file is not None:
                os.close(held.file)
                held.file = None
            held.file = self._taken()

    def close(self) -> None:
        """Give it back. Calling it twice is harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        with _guard:
            held = _held[self._path]
            held.claims -= 1
            if held.claims:
                return
            del _held[self._path]
            if held.file is not None:
                if _is_at(
                    held.file, self._path
                ):  # deleted while it is held: nobody takes a lost file
                    with suppress(OSError):
                        self._path.unlink()
                os.close(held.file)
        for folder in self._made:
            with suppress(OSError):  # it was put to use
                folder.rmdir()

    def __enter__(self) -> Claim:
        """Hold it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.close()

    def _taken(self) -> int | None:
        for attempt in range(_ATTEMPTS):
            try:
                self._path.parent.mkdir(exist_ok=True)  # where somebody took it away
                file = _opened(self._path)
            except OSError:  # whoever cannot write here is told so by what it writes
                return None
            if not try_lock(file):
                said = _said(file)
                os.close(file)
                raise OutputError(
                    f"{printable(self._what)} is in use by {said or 'another program'}: stop that one, or "
                    "choose another place"
                )
            if (
                _is_at(file, self._path) or attempt == _ATTEMPTS - 1
            ):  # some drives number files anew
                _say_who(file)
                return file
            os.close(file)  # whoever held it has just deleted it
        raise AssertionError


def _opened(path: Path) -> int:
    """Open a plain file, and no link: what is written there would be lost elsewhere.

    Raises:
        OSError: It cannot be.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags | os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EROFS}:
            raise
        file = os.open(path, flags | os.O_RDONLY)  # another user's: it can be locked all the same
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a file")
    return file


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.lstat(path))
    except OSError:
        return False


def _say_who(file: int) -> None:
    """Write for people who holds the lock; a disk may have no room for it."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]) if sys.argv else "python"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {platform.node()} ({command}), since {since}"
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, printable(text).encode()[:_LONGEST], 0)


def _said(file: int) -> str:
    try:
        return printable(os.pread(file, _LONGEST, 0).decode(errors="replace"))
    except OSError:  # some network drives let nobody read what another has locked
        return ""


def _missing(folder: Path) -> list[Path]:
    """The folders that are made for this one, itself first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]
