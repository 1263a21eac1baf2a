"""A folder of files about events, kept for as long as there is room: FOLDER/SOURCE/LABEL_ID.SUFFIX."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.events.event import Event
from cmlr_edge.model.files import write_atomically
from cmlr_edge.redaction import printable, safe_name

_LEAST_FREE_BYTES = 200 * 10**6  # of the disk; others need room, too
_DAY_S = 86_400.0
_WRITING_S = 60.0  # at most, for one file: an older part is of a process that was killed


class KeptFiles:
    """Writes files of events, each as a whole; the oldest make room, and nothing but our own."""

    def __init__(
        self, folder: Path, suffixes: Collection[str], *, keep_bytes: float, keep_days: float | None
    ) -> None:
        """Look at what is there already.

        Args:
            folder: Made where it is missing; the one it lies in must exist.
            suffixes: Of our files, with their dots.
            keep_bytes: Of files at most.
            keep_days: Older ones are deleted; None keeps them.

        Raises:
            OutputError: The folder cannot be used.
        """
        self._folder, self._keep_bytes = folder, keep_bytes
        self._keep_s = None if keep_days is None else keep_days * _DAY_S
        ends = "|".join(map(re.escape, suffixes))
        ours = re.compile(rf".+_[0-9a-f]{{32}}({ends})(?P<part>\.\d+\.part)?")
        about = []
        try:
            folder.mkdir(exist_ok=True)
            for path in folder.glob("*/*"):
                if (found := ours.fullmatch(path.name)) is None or not path.is_file():
                    continue
                size, changed_s = path.stat().st_size, path.stat().st_mtime
                if found["part"] and changed_s < time.time() - _WRITING_S:
                    path.unlink(missing_ok=True)
                else:
                    about.append((changed_s, size, path))
        except OSError as error:
            raise _unwritten(folder, error) from error
        self._kept = deque(sorted(about))  # when, bytes, path; the oldest first
        self._bytes = sum(size for _, size, _ in about)

    def path_of(self, event: Event, suffix: str) -> Path:
        """Where a file of an event is."""
        name = f"{safe_name(event.label)}_{event.id}{suffix}"
        return self._folder / safe_name(event.source) / name

    def keep(self, path: Path, content: bytes) -> None:
        """Write a file, or another in its place.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            self._make_room(len(content))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            raise _unwritten(path, error) from error
        self._forget(path)
        self._kept.append((time.time(), len(content), path))
        self._bytes += len(content)

    def _make_room(self, size: int) -> None:
        """Delete the oldest files until there is room for one more."""
        oldest_s = -1.0 if self._keep_s is None else time.time() - self._keep_s
        while self._kept:
            free = shutil.disk_usage(self._folder).free
            is_full = self._bytes + size > self._keep_bytes or free - size < _LEAST_FREE_BYTES
            if not is_full and self._kept[0][0] >= oldest_s:
                return
            _, freed, path = self._kept.popleft()
            self._bytes -= freed
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other files are in it
                path.parent.rmdir()

    def _forget(self, path: Path) -> None:
        """Let the file that another has just replaced count no longer."""
        for item in [item for item in self._kept if item[2] == path]:
            self._kept.remove(item)
            self._bytes -= item[1]


def _unwritten(path: Path, error: OSError) -> OutputError:
    reason = error.strerror or os.strerror(error.errno or 0)
    return OutputError(f"cannot write {printable(path)}: {reason}")
